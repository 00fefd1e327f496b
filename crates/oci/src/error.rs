//! What all errors of the workspace have in common: the kind, and the sentence with every cause.
//!
//! The rule, which `xtask errors` checks: `Display` is the whole sentence, `what this level knows: what its cause says`, as
//! Go's `Error()` is, because BuildKit's clients and suites compare these sentences; `source` returns the same cause as a
//! value. So nothing that prints an error loses a cause. Errors of other people's libraries do not keep the rule: a level
//! that wraps one prints it with [`chain`], and so do the two places where an error leaves us, the client's status and the log.

use std::error::Error;
use std::io;
use std::sync::Arc;

/// What kind of thing went wrong, for those who decide by it: which status a client gets, whether the log calls it the
/// user's or ours, whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ErrorKind {
    /// A step of the build ran and failed, or nothing better is known.
    #[default]
    Failed,
    /// The request, the Dockerfile, an option or a definition is wrong.
    Invalid,
    /// The requested thing does not exist.
    NotFound,
    /// The object to create exists already.
    Exists,
    /// The caller may not do it, or is not logged in.
    Denied,
    /// Disk, memory, descriptors or a limit of ours is used up.
    Exhausted,
    /// A client, a registry or an archive sends what no honest one sends.
    Hostile,
    /// Somebody else does not answer, or not now: a registry, a client that left, a daemon that stops.
    Unavailable,
    /// A deadline passed.
    TimedOut,
    /// The caller has left.
    Cancelled,
    /// This program does not do it.
    Unsupported,
    /// The host: a system call, a device or the state directory failed for none of the reasons above.
    System,
    /// A broken invariant of ours.
    Bug,
}

impl ErrorKind {
    /// The kind of an error of the operating system.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "io::ErrorKind grows, and most of it says that the host failed"
        )]
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied,
            io::ErrorKind::AlreadyExists => Self::Exists,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::OutOfMemory => Self::Exhausted,
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe => Self::Unavailable,
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof => Self::Invalid,
            _ => match error.raw_os_error() {
                // EMFILE and ENFILE have no word in the standard library.
                Some(23 | 24) => Self::Exhausted,
                // ELOOP: links that lead to each other.
                Some(40) => Self::Invalid,
                _ => Self::System,
            },
        }
    }

    /// The kind of an error of the operating system about what is ours: files of the state directory, control groups, mounts.
    /// That such a thing is missing or refused is nobody's fault but the host's.
    #[must_use]
    pub fn of_host(error: &io::Error) -> Self {
        match Self::of_io(error) {
            Self::Exhausted => Self::Exhausted,
            Self::Failed
            | Self::Invalid
            | Self::NotFound
            | Self::Exists
            | Self::Denied
            | Self::Hostile
            | Self::Unavailable
            | Self::TimedOut
            | Self::Cancelled
            | Self::Unsupported
            | Self::System
            | Self::Bug => Self::System,
        }
    }

    /// The kind that the innermost error of the operating system among the causes gives; `Failed` where there is none.
    #[must_use]
    pub fn of_causes(error: &(dyn Error + 'static)) -> Self {
        let mut kind = Self::Failed;
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                kind = Self::of_io(io);
            } else if let Some(io) = error.downcast_ref::<Arc<io::Error>>() {
                kind = Self::of_io(io);
            }
            next = error.source();
        }
        kind
    }

    /// Whether an operator has to look: the host or this program failed, not what the user gave.
    #[must_use]
    pub fn is_ours(self) -> bool {
        match self {
            Self::Exhausted | Self::System | Self::Bug => true,
            Self::Failed
            | Self::Invalid
            | Self::NotFound
            | Self::Exists
            | Self::Denied
            | Self::Hostile
            | Self::Unavailable
            | Self::TimedOut
            | Self::Cancelled
            | Self::Unsupported => false,
        }
    }

    /// The word for logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::NotFound => "not found",
            Self::Exists => "exists",
            Self::Denied => "denied",
            Self::Exhausted => "exhausted",
            Self::Hostile => "hostile",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
            Self::Unsupported => "unsupported",
            Self::System => "system",
            Self::Bug => "bug",
        }
    }
}

/// The sentence of an error with all its causes, `outer: inner: innermost`. A cause whose words the sentence has already is
/// not said again, so an error that keeps the rule of this workspace comes out as its `Display`.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        // Go's words for an errno are in the sentence where ours for the same would follow.
        let is_in_text = text.contains(&words)
            || cause
                .downcast_ref::<io::Error>()
                .is_some_and(|e| text.contains(&errno_text(e)));
        if !words.is_empty() && !is_in_text {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// What the last of the causes says: for errors of libraries whose other levels say only that there is a further one, as
/// those of a transport do.
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// Go's words where the C libraries have different ones, by the number that all platforms we run on give the errno.
const ERRNO_WORDS: &[(i32, &str)] = &[
    (2, "no such file or directory"),
    (5, "input/output error"),
    (16, "device or resource busy"),
    (17, "file exists"),
    (18, "invalid cross-device link"),
    (20, "not a directory"),
    (21, "is a directory"),
    (23, "too many open files in system"),
    (24, "too many open files"),
    (28, "no space left on device"),
    (30, "read-only file system"),
    (31, "too many links"),
    (36, "file name too long"),
    (39, "directory not empty"),
    (40, "too many levels of symbolic links"),
    (95, "operation not supported"),
    (122, "disk quota exceeded"),
];

/// What Go's `syscall.Errno` says for an error of the system: the words are lower case and have no number. An error that has
/// no errno says what it says.
#[must_use]
pub fn errno_text(error: &io::Error) -> String {
    let whole = error.to_string();
    let Some(errno) = error.raw_os_error() else {
        return whole;
    };
    if let Some((_, words)) = ERRNO_WORDS.iter().find(|(number, _)| *number == errno) {
        return (*words).to_owned();
    }
    let words = whole.split(" (os error").next().unwrap_or_default();
    let mut chars = words.chars();
    chars
        .next()
        .map(|c| c.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Level {
        words: String,
        // As the libraries do it that keep their causes out of their words.
        #[source]
        cause: Option<Box<dyn Error>>,
    }

    fn levels(words: &[&str]) -> Level {
        Level {
            words: words[0].to_owned(),
            cause: (words.len() > 1).then(|| Box::new(levels(&words[1..])) as Box<dyn Error>),
        }
    }

    #[test]
    fn a_chain_says_every_cause_once() {
        for (causes, sentence) in [
            (&["only"][..], "only"),
            (&["outer", "inner", "innermost"], "outer: inner: innermost"),
            // An error that keeps the rule shows its causes itself.
            (&["outer: inner", "inner"], "outer: inner"),
            (
                &["outer: inner", "inner", "no space left"],
                "outer: inner: no space left",
            ),
            (&["same", "same", "same"], "same"),
            (&["outer", "", "inner"], "outer: inner"),
        ] {
            assert_eq!(chain(&levels(causes)), sentence);
        }
    }

    #[test]
    fn an_errno_that_is_said_in_gos_words_is_not_said_again() {
        let words = "write /a: no space left on device".to_owned();
        let cause = Some(Box::new(io::Error::from_raw_os_error(28)) as Box<dyn Error>);
        assert_eq!(
            chain(&Level { words, cause }),
            "write /a: no space left on device"
        );
    }

    #[test]
    fn a_full_disk_and_missing_descriptors_are_exhausted() {
        for (errno, kind) in [
            (28, ErrorKind::Exhausted),
            (12, ErrorKind::Exhausted),
            (23, ErrorKind::Exhausted),
            (24, ErrorKind::Exhausted),
            (122, ErrorKind::Exhausted),
            (2, ErrorKind::NotFound),
            (13, ErrorKind::Denied),
            (30, ErrorKind::Denied),
            (111, ErrorKind::Unavailable),
            (20, ErrorKind::Invalid),
            (40, ErrorKind::Invalid),
            (5, ErrorKind::System),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(ErrorKind::of_io(&error), kind, "{error}");
        }
    }
}
