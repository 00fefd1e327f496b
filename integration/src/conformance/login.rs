//! The user of the worker oci-rootless: a login, a home and subordinate ids in copies of the host's files, which a run sees in a mount
//! namespace of its own, and a `sudo` that is one line.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run::RUN_VARIABLE;
use crate::process::{Error, at, need};

/// Nobody else's on any machine that we know.
const UID: u32 = 61_235;
const NAME: &str = "rbuild-suite";
/// The first of the subordinate ids, of which there are 65,536.
const SUBORDINATE: u32 = 700_100_000;

/// How the suites ask which user the worker has.
const ID_PAIR: &str = "BUILDKIT_INTEGRATION_ROOTLESS_IDPAIR";

/// Mounts the copies over the host's files.
const ENTER: &str = "dir=$1; shift; \
    for file in passwd group subuid subgid; do mount --bind \"$dir/$file\" /etc/$file || exit 125; done; exec \"$@\"";

/// A user for one run.
pub(super) struct Login {
    files: PathBuf,
}

impl Login {
    /// Makes the user's files below `scratch`, and `sudo` among its programs.
    pub(super) fn new(scratch: &Path) -> Result<Self, Error> {
        for (program, package) in [("rootlesskit", "rootlesskit"), ("newuidmap", "uidmap")] {
            need(program).map_err(|_| Error::Missing {
                what: program.to_owned(),
                remedy: format!("install it (Debian: {package})"),
            })?;
        }
        let open = |dir: &Path| {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(at("opening", dir))
        };
        open(scratch)?;
        let files = scratch.join("etc");
        let (home, runtime) = (scratch.join("home"), scratch.join("user"));
        for dir in [&files, &home, &runtime] {
            fs::create_dir_all(dir).map_err(at("making", dir))?;
        }
        for dir in [&home, &runtime] {
            chown(dir, Some(UID), Some(UID)).map_err(at("giving away", dir))?;
        }
        let write = |file: &str, text: String| {
            let file = files.join(file);
            fs::write(&file, text).map_err(at("writing", &file))
        };
        let host =
            |file: &str| fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
        let line = format!("{NAME}:x:{UID}:{UID}::{}:/bin/sh", home.display());
        write("passwd", format!("{}\n{line}\n", host("passwd").trim_end()))?;
        write(
            "group",
            format!("{}\n{NAME}:x:{UID}:\n", host("group").trim_end()),
        )?;
        for file in ["subuid", "subgid"] {
            write(file, format!("{NAME}:{SUBORDINATE}:65536\n"))?;
        }
        // `sudo -u #UID -i -- exec PROGRAM…`, as the suites say it. Whoever logs in has a folder for sockets.
        let sudo = scratch.join("bin/sudo");
        let text = format!(
            "#!/bin/sh\nshift 4; [ \"$1\" = exec ] && shift\n\
             exec setpriv --reuid {UID} --regid {UID} --clear-groups env -i HOME={home} USER={NAME} LOGNAME={NAME} \\\n  \
             XDG_RUNTIME_DIR={runtime} PATH=\"$PATH\" \"{RUN_VARIABLE}=${RUN_VARIABLE}\" sh -c 'cd; exec \"$@\"' sh \"$@\"\n",
            home = home.display(),
            runtime = runtime.display(),
        );
        fs::write(&sudo, text).map_err(at("writing", &sudo))?;
        open(&sudo)?;
        Ok(Self { files })
    }

    /// A suite that sees the user.
    pub(super) fn command(&self, binary: &Path) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", ENTER, "suite"])
            .arg(&self.files)
            .arg(binary)
            .env(ID_PAIR, format!("{UID}:{UID}"));
        command
    }
}
