//! Generated clients and servers of the BuildKit wire, and the codec that they share.
//!
//! One module for each file of `proto/protos` that has a service, with the name of the module of [`proto`] that has its messages. The
//! code under `src/gen` is written by `cargo run -p rbuild-xtask -- proto` and is committed; `proto --check` compares. Messages are a
//! crate of their own so that whoever reads a definition does not need gRPC.

pub mod codec;

macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[allow(
            missing_docs, unreachable_pub, missing_debug_implementations, let_underscore_drop, dead_code, unused_imports, clippy::all,
            clippy::wildcard_enum_match_arm, clippy::large_futures, clippy::unwrap_used, clippy::allow_attributes_without_reason,
            reason = "generated code keeps the generator's habits"
        )]
        pub mod $name {
            include!(concat!("gen/", stringify!($name), ".rs"));
        }
    )*};
}

generated! {
    /// Registry logins, answered by the client (`moby.filesync.v1.Auth`).
    auth,
    /// The content store (`containerd.services.content.v1`).
    content,
    /// The daemon's front door (`moby.buildkit.v1`).
    control,
    /// Exporters added by the client (`moby.exporter.v1`).
    exporter,
    /// File transfer (`moby.filesync.v1`).
    filesync,
    /// Calls of a frontend into its build (`moby.buildkit.v1.frontend`).
    gateway,
    /// Health (`grpc.health.v1`).
    health,
    /// Metrics pushed to a collector (`opentelemetry.proto.collector.metrics.v1`).
    metrics,
    /// Source policy decided by the client (`moby.buildkit.v1.sourcepolicy.policysession`).
    policysession,
    /// Secrets (`moby.buildkit.secrets.v1`).
    secrets,
    /// ssh agents (`moby.sshforward.v1`).
    ssh,
    /// Spans pushed by clients (`opentelemetry.proto.collector.trace.v1`).
    trace,
    /// Streams handed over once (`moby.upload.v1`).
    upload,
}
