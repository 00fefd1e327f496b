//! The values that labels may have.

/// One name and value of a label.
pub type Pair = (&'static str, &'static str);

/// A fixed set of label values: each member is one series of a metric.
pub trait Labels: Copy + Send + Sync + 'static {
    /// The labels of each member, by [`Labels::index`].
    const PAIRS: &'static [&'static [Pair]];

    /// Which member it is.
    fn index(self) -> usize;
}

/// The labels of a metric without labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoLabels;

impl Labels for NoLabels {
    const PAIRS: &'static [&'static [Pair]] = &[&[]];

    fn index(self) -> usize {
        0
    }
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => [$(($key:literal, $value:expr)),*],)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All members, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many members there are.
            pub const COUNT: usize = Self::ALL.len();
        }

        impl Labels for $name {
            const PAIRS: &'static [&'static [Pair]] = &[$(&[$(($key, $value)),*],)+];

            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

labels! {
    /// How a build ended; failures by the gRPC code that its client was told.
    BuildOutcome {
        /// It gave a result.
        Success => [("status", "success")],
        /// `Canceled`.
        Canceled => [("status", "failure"), ("error_code", "Canceled")],
        /// `Unknown`: a step that failed, a bad Dockerfile.
        Unknown => [("status", "failure"), ("error_code", "Unknown")],
        /// `InvalidArgument`.
        InvalidArgument => [("status", "failure"), ("error_code", "InvalidArgument")],
        /// `DeadlineExceeded`.
        DeadlineExceeded => [("status", "failure"), ("error_code", "DeadlineExceeded")],
        /// `NotFound`.
        NotFound => [("status", "failure"), ("error_code", "NotFound")],
        /// `AlreadyExists`.
        AlreadyExists => [("status", "failure"), ("error_code", "AlreadyExists")],
        /// `PermissionDenied`.
        PermissionDenied => [("status", "failure"), ("error_code", "PermissionDenied")],
        /// `ResourceExhausted`.
        ResourceExhausted => [("status", "failure"), ("error_code", "ResourceExhausted")],
        /// `Unimplemented`.
        Unimplemented => [("status", "failure"), ("error_code", "Unimplemented")],
        /// `Internal`.
        Internal => [("status", "failure"), ("error_code", "Internal")],
        /// `Unavailable`.
        Unavailable => [("status", "failure"), ("error_code", "Unavailable")],
    }
    /// Whether a build gave a result.
    BuildStatus {
        /// It did.
        Success => [("status", "success")],
        /// It did not.
        Failure => [("status", "failure")],
    }
    /// What is counted of the steps of builds that ended.
    StepKind {
        /// Steps that ended.
        Completed => [("kind", "completed")],
        /// Steps whose result was known.
        Cached => [("kind", "cached")],
        /// All steps.
        Total => [("kind", "total")],
        /// Warnings.
        Warnings => [("kind", "warnings")],
    }
    /// What part of a build's time it is.
    Phase {
        /// A step waits for its turn, or for room on the disk.
        Queue => [("phase", "queue")],
        /// A blob is fetched from a registry, a client or a cache.
        Pull => [("phase", "pull")],
        /// A process runs.
        Exec => [("phase", "exec")],
        /// What a process wrote becomes a snapshot.
        Commit => [("phase", "commit")],
        /// A result goes where the client asked for it, pushes included.
        Export => [("phase", "export")],
        /// An image is pushed to a registry.
        Push => [("phase", "push")],
    }
    /// Where the result of a vertex that did not run came from.
    CacheKind {
        /// From the daemon's own records.
        Local => [("kind", "local")],
        /// From a cache that the build imported.
        Imported => [("kind", "imported")],
        /// From another vertex with the same key, or another build, that ran it at that time.
        Shared => [("kind", "shared")],
    }
    /// Which way bytes went, and whom they were exchanged with.
    Transfer {
        /// From a registry.
        FromRegistry => [("direction", "in"), ("peer", "registry")],
        /// To a registry.
        ToRegistry => [("direction", "out"), ("peer", "registry")],
        /// From the server of a URL.
        FromServer => [("direction", "in"), ("peer", "server")],
        /// From a client: files of contexts.
        FromClient => [("direction", "in"), ("peer", "client")],
        /// To a client: files and archives of results.
        ToClient => [("direction", "out"), ("peer", "client")],
    }
    /// How a collection of garbage ended.
    GcOutcome {
        /// All that the rules say was collected.
        Done => [("outcome", "done")],
        /// It failed; the log says why.
        Failed => [("outcome", "failed")],
    }
    /// What is measured of the state directory.
    StoreKind {
        /// Bytes on disk of everything in it.
        Used => [("kind", "used")],
        /// Bytes that the rules of collection hold it to; 0 for no limit.
        Limit => [("kind", "limit")],
        /// Bytes that the disk below it has free.
        DiskFree => [("kind", "disk_free")],
    }
    /// What is sent to a collector.
    Signal {
        /// Spans.
        Traces => [("signal", "traces")],
        /// Metrics.
        Metrics => [("signal", "metrics")],
    }
    /// A method of the daemon's API.
    RpcMethod {
        /// Runs a build.
        Solve => [("rpc_system_name", "grpc"), ("rpc_method", "moby.buildkit.v1.Control/Solve")],
        /// The progress of a build.
        Status => [("rpc_system_name", "grpc"), ("rpc_method", "moby.buildkit.v1.Control/Status")],
        /// The tunnel in which a client is asked.
        Session => [("rpc_system_name", "grpc"), ("rpc_method", "moby.buildkit.v1.Control/Session")],
        /// Usage of the disk.
        DiskUsage => [("rpc_system_name", "grpc"), ("rpc_method", "moby.buildkit.v1.Control/DiskUsage")],
        /// Deletes records.
        Prune => [("rpc_system_name", "grpc"), ("rpc_method", "moby.buildkit.v1.Control/Prune")],
        /// The workers there are.
        ListWorkers => [("rpc_system_name", "grpc"), ("rpc_method", "moby.buildkit.v1.Control/ListWorkers")],
        /// The daemon's version.
        Info => [("rpc_system_name", "grpc"), ("rpc_method", "moby.buildkit.v1.Control/Info")],
        /// Records of builds.
        BuildHistory => [("rpc_system_name", "grpc"), ("rpc_method", "moby.buildkit.v1.Control/ListenBuildHistory")],
        /// Calls of frontends.
        Gateway => [("rpc_system_name", "grpc"), ("rpc_method", "moby.buildkit.v1.frontend.LLBBridge/*")],
        /// All others.
        Other => [("rpc_system_name", "grpc"), ("rpc_method", "_OTHER")],
    }
}

impl BuildOutcome {
    /// Whether the build gave a result.
    #[must_use]
    pub fn status(self) -> BuildStatus {
        match self {
            Self::Success => BuildStatus::Success,
            Self::Canceled
            | Self::Unknown
            | Self::InvalidArgument
            | Self::DeadlineExceeded
            | Self::NotFound
            | Self::AlreadyExists
            | Self::PermissionDenied
            | Self::ResourceExhausted
            | Self::Unimplemented
            | Self::Internal
            | Self::Unavailable => BuildStatus::Failure,
        }
    }
}

impl RpcMethod {
    /// The method of a request's path, such as `/moby.buildkit.v1.Control/Solve`.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.starts_with("moby.buildkit.v1.frontend.LLBBridge/") {
            return Self::Gateway;
        }
        let named = Self::ALL.iter().find(|method| {
            let pairs = Self::PAIRS.get(method.index());
            pairs.is_some_and(|pairs| pairs.contains(&("rpc_method", path)))
        });
        named.copied().unwrap_or(Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_method_that_it_names_and_all_others_share_one() {
        for (path, method) in [
            ("/moby.buildkit.v1.Control/Solve", RpcMethod::Solve),
            (
                "/moby.buildkit.v1.Control/ListenBuildHistory",
                RpcMethod::BuildHistory,
            ),
            (
                "/moby.buildkit.v1.frontend.LLBBridge/ReadFile",
                RpcMethod::Gateway,
            ),
            ("/moby.buildkit.v1.Control/Solve2", RpcMethod::Other),
            ("/_OTHER", RpcMethod::Other),
            ("grpc", RpcMethod::Other),
            ("", RpcMethod::Other),
        ] {
            assert_eq!(RpcMethod::of_path(path), method, "{path}");
        }
    }

    #[test]
    fn a_member_has_the_labels_that_stand_beside_it() {
        let pairs = |outcome: BuildOutcome| BuildOutcome::PAIRS[outcome.index()];
        assert_eq!(pairs(BuildOutcome::Success), [("status", "success")]);
        for outcome in BuildOutcome::ALL {
            let status = BuildStatus::PAIRS[outcome.status().index()][0];
            assert_eq!(pairs(*outcome)[0], status);
            let code = pairs(*outcome).get(1).map(|(_, code)| (*code).to_owned());
            assert_eq!(
                code,
                (*outcome != BuildOutcome::Success).then(|| format!("{outcome:?}"))
            );
        }
    }

    /// The labels of all members, checked for what a scraper takes: names of letters, the same of each member but for those that only
    /// failures have, and no two members alike.
    fn check<L: Labels + std::fmt::Debug>(members: &[L], names: &[&str]) {
        assert_eq!(L::PAIRS.len(), members.len());
        for (index, member) in members.iter().enumerate() {
            assert_eq!(member.index(), index, "{member:?}");
            let pairs = L::PAIRS[index];
            for (position, (name, value)) in pairs.iter().enumerate() {
                assert_eq!(*name, names[position], "{member:?}");
                assert!(
                    !value.is_empty() && !value.contains(['"', '\\', '\n']),
                    "{member:?}"
                );
            }
            let alike = L::PAIRS.iter().filter(|other| **other == pairs).count();
            assert_eq!(alike, 1, "{member:?}");
        }
    }

    #[test]
    fn every_member_has_labels_of_its_own_under_the_names_of_its_set() {
        check(BuildOutcome::ALL, &["status", "error_code"]);
        check(BuildStatus::ALL, &["status"]);
        check(StepKind::ALL, &["kind"]);
        check(Phase::ALL, &["phase"]);
        check(CacheKind::ALL, &["kind"]);
        check(Transfer::ALL, &["direction", "peer"]);
        check(GcOutcome::ALL, &["outcome"]);
        check(StoreKind::ALL, &["kind"]);
        check(Signal::ALL, &["signal"]);
        check(RpcMethod::ALL, &["rpc_system_name", "rpc_method"]);
        check(&[NoLabels], &[]);
    }
}
