//! Generated messages of the BuildKit wire, and nothing else. The services that carry them are in the crate `services`.
//!
//! One module for each file of `protos/`. The code under `src/gen` is written by `cargo run -p rbuild-xtask -- proto` and is
//! committed; `proto --check` compares. Maps are ordered, so that encoding is deterministic. Encoding an op with these types
//! does not give the bytes Go would give (a `oneof` is written in another place): digests are taken of bytes as received.

mod redacted;
pub mod weigh;

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
    /// Capabilities (`moby.buildkit.v1.apicaps`).
    caps,
    /// The content store (`containerd.services.content.v1`).
    content,
    /// Records of content digests (`contenthash`).
    contenthash,
    /// The daemon's front door (`moby.buildkit.v1`).
    control,
    /// Error details (`errdefs`).
    errdefs,
    /// Exporters added by the client (`moby.exporter.v1`).
    exporter,
    /// File transfer (`moby.filesync.v1`).
    filesync,
    /// File metadata and packets (`fsutil.types`).
    fsutil,
    /// Calls of a frontend into its build (`moby.buildkit.v1.frontend`).
    gateway,
    /// Health (`grpc.health.v1`).
    health,
    /// Metrics pushed to a collector (`opentelemetry.proto.collector.metrics.v1`).
    metrics,
    /// The build graph (`pb`).
    ops,
    /// What spans and metrics are made of.
    otlp,
    /// Source policy decided by the client (`moby.buildkit.v1.sourcepolicy.policysession`).
    policysession,
    /// Secrets (`moby.buildkit.secrets.v1`).
    secrets,
    /// What messages take in memory, see [`weigh`].
    shapes,
    /// Source policy (`moby.buildkit.v1.sourcepolicy`).
    sourcepolicy,
    /// ssh agents (`moby.sshforward.v1`).
    ssh,
    /// Stack traces (`stack`).
    stack,
    /// The status of a failed call (`google.rpc`).
    status,
    /// Spans pushed by clients (`opentelemetry.proto.collector.trace.v1`).
    trace,
    /// Streams handed over once (`moby.upload.v1`).
    upload,
    /// Workers (`moby.buildkit.v1.types`).
    worker,
}

pub use ops as pb;
pub use status as rpc;
pub use worker as types;

/// The limit both sides put on one message, and on one header list.
pub const MAX_MESSAGE: usize = 16 << 20;
