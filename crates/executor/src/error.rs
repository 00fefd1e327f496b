//! Errors of running a process in a container.

use std::io;

use oci::error::errno_text;

use serde::{Deserialize, Serialize};

use crate::user::LookupError;

/// Why a process has no exit status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The container could not be set up or the program not started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The user or group is not known in the root filesystem.
    #[error(transparent)]
    User(#[from] LookupError),
    /// The step's network could not be had.
    #[error("cannot give a step its network: {0}")]
    Network(#[from] net::NetError),
    /// The proxy of a step could not be started.
    #[error("cannot give a step its proxy: {0}")]
    Proxy(#[from] proxy::ProxyError),
    /// The proxy network was asked for, and there is none.
    #[error("proxy network provider is not available")]
    NoProxy,
    /// The proxy network was asked for, and steps of this worker have no network.
    #[error("the proxy network has no way out: worker.oci.networkMode is none")]
    NoWayOut,
    /// No such container runs.
    #[error("container {id} not found")]
    NotFound {
        /// The id of the container that was named.
        id: String,
    },
    /// The container ended before the process could be started in it.
    #[error("container {id} has stopped")]
    Stopped {
        /// The id of the container that was named.
        id: String,
    },
    /// Another container with this id is being made or runs.
    #[error("container {id} already exists")]
    Exists {
        /// The id.
        id: String,
    },
    /// A value of the spec cannot be used.
    #[error("invalid {what}: {value:?}")]
    Invalid {
        /// Which value of the spec.
        what: &'static str,
        /// The value as the spec has it.
        value: String,
    },
    /// A path is longer than the kernel takes.
    #[error(
        "the {what} has {bytes} bytes, at most {} are possible: `{path}`",
        crate::bounds::MAX_PATH_BYTES
    )]
    LongPath {
        /// Which path of the spec.
        what: &'static str,
        /// The beginning of the path.
        path: String,
        /// The length of the path in bytes.
        bytes: usize,
    },
    /// A path leads through too many folders.
    #[error(
        "the {what} has {parts} parts, at most {} are possible: `{path}`",
        crate::bounds::MAX_PATH_PARTS
    )]
    DeepPath {
        /// Which path of the spec.
        what: &'static str,
        /// The beginning of the path.
        path: String,
        /// How many names the path has.
        parts: usize,
    },
    /// A container is to have more than [`crate::bounds::MAX_MOUNTS`] mounts.
    #[error(
        "{count} mounts are more than the {} that a container may have",
        crate::bounds::MAX_MOUNTS
    )]
    ManyMounts {
        /// How many mounts the spec has.
        count: usize,
    },
    /// An argument that no program can be given. It is not shown, for it may hold a secret.
    #[error("argument {index} of the process has a zero byte")]
    ZeroByteInArgument {
        /// The index of the argument; 0 is the program.
        index: usize,
    },
    /// An entry of the environment that no program can be given. The value is not shown, for it may be a secret.
    #[error("environment variable `{name}` has a zero byte in its name or value")]
    ZeroByteInEnvironment {
        /// The name of the variable.
        name: String,
    },
    /// Steps are to have user namespaces, and this host gives none.
    #[error("cannot make a user namespace for steps: {}", errno_text(source))]
    UserNamespace {
        /// The error of the system call.
        source: io::Error,
    },
    /// A user or group that the user namespace of steps does not have.
    #[error("user or group {id} is not among the {count} of the user namespace of steps")]
    UnmappedId {
        /// The id in the container.
        id: u32,
        /// The namespace has the ids from 0 up to and without this one.
        count: u32,
    },
    /// A user or group that the daemon's own user namespace does not have.
    #[error(
        "no process can run as {uid}:{gid} here: the daemon runs in a user namespace without these ids; give its user more in /etc/subuid and /etc/subgid (`rbuild doctor` says how)"
    )]
    NoSuchIds {
        /// The user id in the container.
        uid: u32,
        /// The group id in the container.
        gid: u32,
    },
    /// A hook of a CDI device, which is a program of the host, failed.
    #[error("the {name} hook {hook} of a CDI device failed: {source}")]
    Hook {
        /// When it is run.
        name: String,
        /// The path of the hook on the host.
        hook: String,
        /// Why it failed.
        source: HookError,
    },
    /// A configured nameserver is not an address.
    #[error("bad nameserver address: {0:?}")]
    Nameserver(String),
    /// A limit was asked for that this host cannot enforce.
    #[error("cannot limit {what}: this host has no usable `{controller}` controller")]
    NoController {
        /// The resource that was to be limited.
        what: &'static str,
        /// The controller of control groups that would enforce it.
        controller: &'static str,
    },
    /// The control group could not be made or written.
    #[error("cannot set up control group file `{file}`: {}", errno_text(source))]
    Cgroup {
        /// The file or directory of the control group.
        file: String,
        /// The error of the system call.
        source: io::Error,
    },
    /// The launcher process ended, or cannot be started. The next run starts another.
    #[error("container launcher failed: {during}: {}", errno_text(source))]
    Launcher {
        /// What was being done when it failed.
        during: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
    /// The OCI runtime reported an error.
    #[error("{program} failed: {message}")]
    Runtime {
        /// The runtime's program, as the configuration names it.
        program: String,
        /// The last error in the runtime's log, or the last line that it wrote.
        message: String,
    },
    /// The OCI runtime cannot be started or waited for.
    #[error("{program} failed: {source}")]
    RuntimeProcess {
        /// The runtime's program, as the configuration names it.
        program: String,
        /// The error of the system call.
        source: io::Error,
    },
    /// A system call of the daemon failed.
    #[error("{during}: {}", errno_text(source))]
    System {
        /// What was being done when it failed.
        during: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
}

/// Why a container's process was not started; reported by the process that was to become it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The arguments are empty.
    #[error("no command specified")]
    NoCommand,
    /// The program is not where the PATH leads.
    #[error("exec: {name:?}: executable file not found in $PATH")]
    NotInPath {
        /// The program's name.
        name: String,
    },
    /// The program is a path that cannot be executed.
    #[error("exec: {path:?}: {}{}", if *errno == libc::ENOENT { format!("stat {path}: ") } else { String::new() }, reason(*errno))]
    Lookup {
        /// The program's path.
        path: String,
        /// The errno of the system call.
        errno: i32,
    },
    /// The kernel refused the program.
    #[error("exec {path}: {}", reason(*errno))]
    Exec {
        /// The program's path.
        path: String,
        /// The errno of the system call.
        errno: i32,
    },
    /// The working directory cannot be entered.
    #[error("working dir {path} points to invalid target: {}", reason(*errno))]
    WorkingDir {
        /// The directory's path in the container.
        path: String,
        /// The errno of the system call.
        errno: i32,
    },
    /// A mount point leads where nothing may be mounted.
    #[error("{path:?} cannot be mounted because it is inside /proc")]
    InsideProc {
        /// Where the mount was to go in the container.
        path: String,
    },
    /// A mount's source is not there.
    #[error("open /{}: {}", selector.trim_start_matches('/'), reason(*errno))]
    Selector {
        /// Where the mount was to go in the container.
        dest: String,
        /// The path inside of the mount's source that was to be mounted.
        selector: String,
        /// The errno of the system call.
        errno: i32,
    },
    /// Something could not be mounted.
    #[error("failed to mount {dest}: {}", reason(*errno))]
    Mount {
        /// Where the mount was to go in the container.
        dest: String,
        /// The errno of the system call.
        errno: i32,
    },
    /// A hook of a CDI device failed that runs in the container.
    #[error("the startContainer hook {path} of a CDI device failed: {reason}")]
    Hook {
        /// The path of the hook in the container.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another step of the set-up failed.
    #[error("failed to start container: {step}: {}", reason(*errno))]
    Step {
        /// The name of the step, such as `prctl` or `join namespaces`.
        step: String,
        /// The errno of the system call.
        errno: i32,
    },
}

impl StartError {
    /// Something could not be mounted at `dest`.
    pub(crate) fn mount(dest: &str) -> impl Fn(io::Error) -> Self + Copy + '_ {
        move |error| Self::Mount {
            dest: dest.to_owned(),
            errno: errno(&error),
        }
    }

    /// Tells whether a mount asks for something that is not in its source.
    pub fn is_missing_source(&self) -> bool {
        matches!(self, Self::Selector { .. })
    }

    /// Tells whether the kernel does not know the format of the program: most often it is of another architecture.
    pub fn is_wrong_format(&self) -> bool {
        matches!(
            self,
            Self::Exec {
                errno: libc::ENOEXEC,
                ..
            }
        )
    }
}

/// The number of an error of the kernel.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// An error number in the words Go uses for it.
fn reason(errno: i32) -> String {
    errno_text(&io::Error::from_raw_os_error(errno))
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// It cannot be started.
    #[error("cannot start it: {source}")]
    Start {
        /// The error of the system call.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{status}{}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Exit {
        /// How it ended.
        status: std::process::ExitStatus,
        /// The begin of its standard error.
        stderr: String,
    },
    /// It did not end in time, and was killed.
    #[error("it did not end within {} s", limit.as_secs())]
    Timeout {
        /// How long it may run.
        limit: std::time::Duration,
    },
    /// Nothing can be written down for it.
    #[error("cannot write its bundle: {source}")]
    Bundle {
        /// The error of the system call.
        source: io::Error,
    },
}

impl HookError {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Start { source } | Self::Bundle { source } => oci::ErrorKind::of_host(source),
            Self::Exit { .. } => oci::ErrorKind::Failed,
            Self::Timeout { .. } => oci::ErrorKind::Unavailable,
        }
    }
}

impl ExecError {
    pub(crate) fn system(during: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { during, source }
    }

    pub(crate) fn launcher(during: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Launcher { during, source }
    }
}

impl ExecError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            // The file that cannot be run or mounted is one of the image.
            Self::Start(_) | Self::User(_) => ErrorKind::Failed,
            Self::Network(error) => error.kind(),
            Self::Proxy(error) => error.kind(),
            Self::NoProxy | Self::NoWayOut => oci::ErrorKind::Unsupported,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Stopped { .. } => ErrorKind::Unavailable,
            Self::Exists { .. } => ErrorKind::Exists,
            Self::Invalid { .. }
            | Self::LongPath { .. }
            | Self::DeepPath { .. }
            | Self::ManyMounts { .. }
            | Self::ZeroByteInArgument { .. }
            | Self::ZeroByteInEnvironment { .. }
            | Self::UnmappedId { .. }
            | Self::Nameserver(_) => ErrorKind::Invalid,
            Self::Hook { source, .. } => source.kind(),
            Self::NoController { .. } | Self::NoSuchIds { .. } => ErrorKind::Unsupported,
            Self::UserNamespace { source }
            | Self::Cgroup { source, .. }
            | Self::Launcher { source, .. }
            | Self::RuntimeProcess { source, .. }
            | Self::System { source, .. } => ErrorKind::of_host(source),
            Self::Runtime { .. } => ErrorKind::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::ErrorKind;

    #[test]
    fn failures_to_start_say_what_the_reference_says() {
        let path = || "/bin/x".to_owned();
        for (error, sentence) in [
            (StartError::NoCommand, "no command specified"),
            (
                StartError::NotInPath { name: "x".into() },
                "exec: \"x\": executable file not found in $PATH",
            ),
            (
                StartError::Lookup {
                    path: path(),
                    errno: libc::ENOENT,
                },
                "exec: \"/bin/x\": stat /bin/x: no such file or directory",
            ),
            (
                StartError::Lookup {
                    path: path(),
                    errno: libc::EACCES,
                },
                "exec: \"/bin/x\": permission denied",
            ),
            (
                StartError::Exec {
                    path: path(),
                    errno: libc::ENOEXEC,
                },
                "exec /bin/x: exec format error",
            ),
            (
                StartError::WorkingDir {
                    path: "/w".into(),
                    errno: libc::ENOTDIR,
                },
                "working dir /w points to invalid target: not a directory",
            ),
            (
                StartError::InsideProc {
                    path: "/proc/x".into(),
                },
                "\"/proc/x\" cannot be mounted because it is inside /proc",
            ),
            (
                StartError::Selector {
                    dest: "/m".into(),
                    selector: "//a".into(),
                    errno: libc::ENOENT,
                },
                "open /a: no such file or directory",
            ),
            (
                StartError::Mount {
                    dest: "/m".into(),
                    errno: libc::ENOSPC,
                },
                "failed to mount /m: no space left on device",
            ),
            (
                StartError::Step {
                    step: "pivot".into(),
                    errno: libc::EMFILE,
                },
                "failed to start container: pivot: too many open files",
            ),
        ] {
            let is_missing = matches!(error, StartError::Selector { .. });
            assert_eq!(error.to_string(), sentence);
            assert_eq!(error.is_missing_source(), is_missing, "{sentence}");
            assert_eq!(
                error.is_wrong_format(),
                sentence.contains("format"),
                "{sentence}"
            );
            // The container's process sends it to the daemon as JSON.
            let text = serde_json::to_string(&error).unwrap();
            assert_eq!(serde_json::from_str::<StartError>(&text).unwrap(), error);
            assert_eq!(ExecError::from(error).kind(), ErrorKind::Failed);
        }
    }

    #[test]
    fn what_the_kernel_says_decides_the_kind_and_stands_in_the_sentence() {
        let io = io::Error::from_raw_os_error;
        type Make = fn(io::Error) -> ExecError;
        let makers: [(Make, &str); 5] = [
            (
                |source| ExecError::UserNamespace { source },
                "cannot make a user namespace for steps: ",
            ),
            (
                |source| ExecError::Cgroup {
                    file: "memory.max".into(),
                    source,
                },
                "cannot set up control group file `memory.max`: ",
            ),
            (
                |source| ExecError::launcher("starting it")(source),
                "container launcher failed: starting it: ",
            ),
            (
                |source| ExecError::system("copying a descriptor")(source),
                "copying a descriptor: ",
            ),
            (
                |source| ExecError::RuntimeProcess {
                    program: "runc".into(),
                    source,
                },
                "runc failed: ",
            ),
        ];
        for (make, begin) in makers {
            for (errno, kind, words) in [
                (libc::ENOSPC, ErrorKind::Exhausted, "o space left on device"),
                (libc::EMFILE, ErrorKind::Exhausted, "oo many open files"),
                (libc::EPERM, ErrorKind::System, "peration not permitted"),
                (libc::ENOENT, ErrorKind::System, "o such file or directory"),
            ] {
                let error = make(io(errno));
                let sentence = error.to_string();
                assert!(
                    sentence.starts_with(begin) && sentence.contains(words),
                    "{sentence}"
                );
                assert_eq!(error.kind(), kind, "{sentence}");
                assert!(std::error::Error::source(&error).is_some(), "{sentence}");
                assert_eq!(
                    oci::error::chain(&error),
                    sentence,
                    "no cause is said twice"
                );
            }
        }
    }
}
