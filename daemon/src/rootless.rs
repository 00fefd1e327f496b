//! A daemon that an ordinary user starts: before it has threads, the process moves into a user namespace in which it is root.
//!
//! ```text
//! this process ──► copy of it, outside: newuidmap, newgidmap (set-user-id, they read /etc/subuid and /etc/subgid)
//!      │                 ▲ when it has left         │ ids are mapped
//!      └─ unshare(user, mounts) ────────────────────┴─► goes on as root, in the same process: number, signals and exit code stay
//! ```
//!
//! Without subordinate ids it has its own id alone, which is told. A process that is root already, of the machine or of somebody's user
//! namespace (rootlesskit, a pod with users of its own), stays where it is.

pub mod subids;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use sys::process::SingleThreaded;
use sys::userns;

use subids::{IdLine, User};

/// Why an ordinary user's daemon has no user namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootlessError {
    /// The kernel refuses to make one.
    #[error(
        "cannot start without root: the kernel makes no user namespace for this user (`rbuild doctor` says what is missing): {0}"
    )]
    Namespace(#[source] std::io::Error),
    /// The user's id cannot be mapped into it.
    #[error(
        "cannot start without root: this user's id cannot be mapped into its user namespace (`rbuild doctor` says what is missing): {0}"
    )]
    Map(#[source] std::io::Error),
}

impl RootlessError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Namespace(error) | Self::Map(error) => oci::ErrorKind::of_io(error),
        }
    }
}

/// How the process is root after [`enter`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Entered {
    /// The process was root already.
    AlreadyRoot,
    /// It is root of a namespace of its own with this many ids.
    Mapped {
        /// How many user ids the namespace has.
        ids: u32,
    },
    /// It is root of a namespace of its own that has no other id.
    Alone {
        /// Why no subordinate ids could be mapped.
        why: String,
    },
}

impl Entered {
    /// A warning for the user about what builds will miss; `None` if they miss nothing.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self::Alone { why } = self else {
            return None;
        };
        Some(format!(
            "this daemon has one user id, for {why}: files of other owners in images become its own, chown and setuid in steps do nothing though they say that they did, and steps with another USER fail; a line for this user in /etc/subuid and /etc/subgid mends that (`rbuild doctor` writes it)"
        ))
    }
}

/// Whether this process has to enter a namespace to be root.
#[must_use]
pub fn is_needed() -> bool {
    userns::own_ids().0 != 0
}

/// Whether the process works in a user's places and not in the machine's: for an ordinary user, also after [`enter`]; and under somebody
/// else's namespace for whoever is not called root, as BuildKit has it.
#[must_use]
pub fn has_users_places() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment is read where the process begins"
    )]
    let name = std::env::var("USER").unwrap_or_default();
    is_needed()
        || HAS_ENTERED.load(Ordering::Relaxed)
        || (userns::is_nested() && !matches!(name.as_str(), "" | "root"))
}

static HAS_ENTERED: AtomicBool = AtomicBool::new(false);

/// Makes an ordinary user's process root of a user namespace. Must be called before it has threads.
pub fn enter() -> Result<Entered, RootlessError> {
    if !is_needed() {
        return Ok(Entered::AlreadyRoot);
    }
    let alone = SingleThreaded::claim().map_err(RootlessError::Namespace)?;
    let (uid, gid) = userns::own_ids();
    let plan = Plan::read(uid, gid);
    let count = plan.count();
    let mapped = userns::enter(&alone, |process| plan.map(process));
    let mapped = mapped.map_err(RootlessError::Namespace)?;
    HAS_ENTERED.store(true, Ordering::Relaxed);
    match mapped {
        Ok(()) => Ok(Entered::Mapped { ids: count }),
        Err(why) => {
            userns::map_self(uid, gid).map_err(RootlessError::Map)?;
            Ok(Entered::Alone { why })
        }
    }
}

/// The id maps of the new namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    users: Vec<IdLine>,
    groups: Vec<IdLine>,
    name: String,
}

impl Plan {
    fn read(uid: u32, gid: u32) -> Self {
        let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
        let user = User {
            uid,
            name: subids::name_of(&passwd, uid),
        };
        let ranges = |file: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            subids::ranges(&text, &user)
        };
        Self {
            users: subids::map(uid, &ranges("/etc/subuid")),
            groups: subids::map(gid, &ranges("/etc/subgid")),
            name: user.name.unwrap_or_else(|| uid.to_string()),
        }
    }

    fn count(&self) -> u32 {
        let count = |lines: &[IdLine]| {
            lines
                .iter()
                .map(|line| line.count)
                .fold(0, u32::saturating_add)
        };
        count(&self.users).min(count(&self.groups))
    }

    /// Has the ids of a process mapped. Runs outside of its namespace.
    fn map(&self, process: i32) -> Result<(), String> {
        for (lines, program, file) in [
            (&self.users, "newuidmap", "/etc/subuid"),
            (&self.groups, "newgidmap", "/etc/subgid"),
        ] {
            if lines.len() < 2 {
                return Err(format!("{file} has no line for {}", self.name));
            }
            let path = find_program(program)
                .ok_or_else(|| format!("{program} is not installed (Debian: uidmap)"))?;
            let mut command = Command::new(path);
            command.arg(process.to_string());
            for line in lines {
                command.args([line.inside, line.outside, line.count].map(|id| id.to_string()));
            }
            let output = command
                .output()
                .map_err(|error| format!("{program}: {error}"))?;
            if !output.status.success() {
                let message = String::from_utf8_lossy(&output.stderr);
                return Err(format!("{program} refused: {}", message.trim()));
            }
        }
        Ok(())
    }
}

/// The name of a user, or the number of one without a name.
pub(crate) fn name_of(uid: u32) -> String {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    subids::name_of(&passwd, uid).unwrap_or_else(|| uid.to_string())
}

/// Where a program is, as PATH has it or where administrators' programs are.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual: &[u8] = b"/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    let dirs = path.as_bytes().split(|byte| *byte == b':');
    dirs.chain(usual.split(|byte| *byte == b':'))
        .map(|dir| Path::new(OsStr::from_bytes(dir)))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_daemon_with_one_id_warns_and_says_what_mends_it() {
        assert_eq!(Entered::AlreadyRoot.warning(), None);
        assert_eq!(Entered::Mapped { ids: 65537 }.warning(), None);
        let why = "/etc/subuid has no line for eve".to_owned();
        let warning = Entered::Alone { why }.warning().unwrap();
        for word in ["for eve", "chown", "/etc/subgid", "rbuild doctor"] {
            assert!(warning.contains(word), "{word}: {warning}");
        }
    }

    #[test]
    fn a_plan_without_subordinate_ids_asks_nobody() {
        let own_id_only = |id| subids::map(id, &[]);
        let plan = Plan {
            users: own_id_only(1000),
            groups: own_id_only(1000),
            name: "eve".to_owned(),
        };
        assert_eq!(plan.count(), 1);
        assert_eq!(plan.map(0).unwrap_err(), "/etc/subuid has no line for eve");
    }

    #[test]
    fn programs_are_found_in_the_usual_places() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-program-of-this-name"), None);
    }
}
