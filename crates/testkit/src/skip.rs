//! Reports tests that cannot run on this machine.
//!
//! libtest has no way to skip while running and counts a test that returns early as passed. So the test writes a line
//! `skipped: PACKAGE TEST: REASON` to standard error, past libtest's capture, and `./run count` takes it from those that passed.

use std::ffi::CStr;
use std::io::Write as _;
use std::path::Path;

/// Returns from the test, reporting it as skipped, unless this machine has everything that is named: functions of
/// [`skip`](mod@crate::skip), as in `requires!(root, busybox)`.
#[macro_export]
macro_rules! requires {
    ($($need:ident),+ $(,)?) => {
        $(if let Err(reason) = $crate::skip::$need() {
            $crate::skip::skip(&reason);
            return;
        })+
    };
}

/// Reports the test that runs on this thread as skipped. The caller returns then.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let package = std::env::var_os("CARGO_PKG_NAME").unwrap_or_default();
    let line = format!("skipped: {} {test}: {reason}\n", package.display());
    // Not eprintln!: of a test that passes, libtest throws away what that prints.
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// The user is root.
pub fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err("needs root".into())
}

/// The folder for temporary files can be the upper layer of an overlay. Needs root.
pub fn overlay() -> Result<(), String> {
    root()?;
    let dir = std::env::temp_dir();
    let probe = |kind: &CStr| sys::mount::fsopen(kind);
    probe(c"overlay").map_err(|error| format!("no overlay in {}: {error}", dir.display()))?;
    Ok(())
}

/// A static busybox to make root filesystems of.
pub fn busybox() -> Result<(), String> {
    program("/bin/busybox", "busybox-static")
}

/// The OCI runtime `runc`.
pub fn runc() -> Result<(), String> {
    one_of(&["/usr/sbin/runc", "/usr/bin/runc"], "runc")
}

/// The OCI runtime `crun`.
pub fn crun() -> Result<(), String> {
    one_of(&["/usr/sbin/crun", "/usr/bin/crun"], "crun")
}

/// The program `git`.
pub fn git() -> Result<(), String> {
    program("/usr/bin/git", "git")
}

fn program(path: &str, package: &str) -> Result<(), String> {
    one_of(&[path], package)
}

fn one_of(paths: &[&str], package: &str) -> Result<(), String> {
    if paths.iter().any(|path| Path::new(path).exists()) {
        return Ok(());
    }
    Err(format!(
        "no {} (apt-get install {package})",
        paths.join(" or ")
    ))
}
