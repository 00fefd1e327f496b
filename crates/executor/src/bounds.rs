//! What a spec may say at most. Its words come from clients, and everything here is made for each of them: folders, mounts, messages.

use crate::error::ExecError;
use crate::mount::MountSource;
use crate::spec::{ContainerSpec, ProcessSpec};

/// Bytes of a path: what the kernel takes in one call, without the zero at its end.
pub const MAX_PATH_BYTES: usize = 4095;
// DIFFERS: BuildKit makes any number of folders for a working directory or a mount, and any number of mounts.
/// Names in a path, after `.` and `..` are resolved, and in what links make of it.
pub const MAX_PATH_PARTS: usize = 256;
/// Mounts of one container.
pub const MAX_MOUNTS: usize = 1024;
/// Bytes of the name of a control group's parent, which stands in messages to the launcher once for each hierarchy.
const MAX_CGROUP_PARENT_BYTES: usize = 1024;
/// How many bytes of a value that is too long an error shows.
const MAX_SHOWN_BYTES: usize = 64;

/// Checks a path in a container, called `what` in the error: the working directory, where something is mounted, what of it is.
pub fn check_path(what: &'static str, path: &str) -> Result<(), ExecError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(ExecError::LongPath {
            what,
            path: shortened(path),
            bytes: path.len(),
        });
    }
    let parts = gostd::path::names_below_root(path).len();
    if parts > MAX_PATH_PARTS {
        return Err(ExecError::DeepPath {
            what,
            path: shortened(path),
            parts,
        });
    }
    Ok(())
}

/// Checks how many mounts a container is to have.
pub fn check_mount_count(count: usize) -> Result<(), ExecError> {
    if count > MAX_MOUNTS {
        return Err(ExecError::ManyMounts { count });
    }
    Ok(())
}

/// Checks a process. Neither arguments nor environment are shown: they may hold secrets.
pub(crate) fn check_process(process: &ProcessSpec) -> Result<(), ExecError> {
    if let Some(index) = process.args.iter().position(|arg| arg.contains('\0')) {
        return Err(ExecError::ZeroByteInArgument { index });
    }
    if let Some(entry) = process.env.iter().find(|entry| entry.contains('\0')) {
        let name = entry.split_once('=').map_or("", |(name, _)| name);
        return Err(ExecError::ZeroByteInEnvironment {
            name: shortened(name),
        });
    }
    if process.cwd.contains('\0') {
        return Err(ExecError::Invalid {
            what: "working directory",
            value: shortened(&process.cwd),
        });
    }
    check_path("working directory", &process.cwd)
}

/// Checks everything that a client chose.
pub(crate) fn check(spec: &ContainerSpec) -> Result<(), ExecError> {
    check_process(&spec.process)?;
    check_mount_count(spec.mounts.len())?;
    for mount in &spec.mounts {
        for path in [&mount.dest, &mount.selector] {
            if path.contains('\0') {
                return Err(ExecError::Invalid {
                    what: "path of a mount",
                    value: shortened(path),
                });
            }
        }
        check_path("mount destination", &mount.dest)?;
        if let MountSource::Mount(_) | MountSource::Place(_) = mount.source {
            check_path("mount selector", &mount.selector)?;
        }
    }
    if let Some(parent) = &spec.cgroup_parent {
        check_path("cgroup parent", parent)?;
        if parent.len() > MAX_CGROUP_PARENT_BYTES || parent.contains(char::is_control) {
            return Err(ExecError::Invalid {
                what: "cgroup parent",
                value: shortened(parent),
            });
        }
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    if text.len() <= MAX_SHOWN_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_SHOWN_BYTES);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_many_parts_or_bytes_are_refused_with_their_count() {
        let parts = |count: usize| "/a".repeat(count);
        for (path, want) in [
            (parts(256), None),
            (format!("{}{}", parts(300), "/..".repeat(50)), None),
            (
                parts(257),
                Some("the working directory has 257 parts, at most 256 are possible"),
            ),
            (
                parts(2000),
                Some("the working directory has 2000 parts, at most 256 are possible"),
            ),
            (
                parts(5000),
                Some("the working directory has 10000 bytes, at most 4095 are possible"),
            ),
            (
                format!("/{}", "a".repeat(4095)),
                Some("the working directory has 4096 bytes, at most 4095 are possible"),
            ),
        ] {
            let error = check_path("working directory", &path).err();
            let error = error.map(|error| error.to_string());
            assert_eq!(
                error
                    .as_deref()
                    .map(|text| text.split(": ").next().unwrap()),
                want,
                "{} bytes",
                path.len()
            );
            assert!(error.is_none_or(|text| text.len() < 200));
        }
    }

    #[test]
    fn an_error_about_a_zero_byte_shows_no_value() {
        let process = |args: &[&str], env: &[&str]| ProcessSpec {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            ..ProcessSpec::default()
        };
        for (process, want) in [
            (
                process(&["sh", "-c", "echo hunter2\0"], &[]),
                "argument 2 of the process has a zero byte",
            ),
            (
                process(&["true"], &["A=1", "TOKEN=hunter2\0more"]),
                "environment variable `TOKEN` has a zero byte in its name or value",
            ),
            (
                process(&["true"], &["hunter2\0"]),
                "environment variable `` has a zero byte in its name or value",
            ),
        ] {
            let error = check_process(&process).unwrap_err();
            assert_eq!(error.to_string(), want);
            assert!(!format!("{error:?} {process:?}").contains("hunter2\\0more"));
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }
}
