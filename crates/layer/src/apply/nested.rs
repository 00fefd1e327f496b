//! Files of an archive that a user namespace cannot create: those with unmapped ids, and devices.

use std::io;
use std::path::Path;
use std::sync::Once;

use fstree::{Kind, Owner, PathError};
use sys::userns;

use super::ApplyError;

/// By this overlayfs tells that a directory hides those below it.
pub(super) fn opaque_mark() -> String {
    format!("{}opaque", userns::overlay_xattrs())
}

/// Judges the result of giving `path` its owner.
///
/// Where there is one id only, files of others become its own, as podman's `ignore_chown_errors` has it: no image could be unpacked
/// otherwise. Where there are more, an owner that is missing is an error that says whom to ask.
pub(super) fn settle(path: &Path, owner: Owner, owned: io::Result<()>) -> Result<(), ApplyError> {
    static TOLD: Once = Once::new();
    let Err(error) = owned else { return Ok(()) };
    let Owner { uid, gid } = owner;
    if !userns::is_nested() || userns::has_ids(uid, gid) {
        return Err(PathError::new("lchown", path, error).into());
    }
    if !userns::has_one_id() {
        let path = path.to_owned();
        return Err(ApplyError::NoSuchOwner { path, uid, gid });
    }
    TOLD.call_once(|| {
        tracing::warn!(
            path = %path.display(), uid, gid,
            "this daemon has one user id: files of other owners in images become its own (subordinate ids in /etc/subuid and /etc/subgid mend that)"
        );
    });
    Ok(())
}

/// Whether `node` failed because a user namespace makes no devices. As under BuildKit, the layer is then unpacked without it.
pub(super) fn nobodys_device(path: &Path, kind: Kind, node: &io::Result<()>) -> bool {
    let Err(error) = node else { return false };
    let is_device = matches!(kind, Kind::Char | Kind::Block);
    let skipped =
        is_device && error.kind() == io::ErrorKind::PermissionDenied && userns::is_nested();
    if skipped {
        tracing::debug!(path = %path.display(), "a device in a layer is left out: this daemon cannot make devices");
    }
    skipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_could_not_be_set_is_an_error_where_all_ids_are_there() {
        let owner = Owner { uid: 0, gid: 0 };
        settle(Path::new("a"), owner, Ok(())).unwrap();
        let refused = || Err(io::Error::from(rustix::io::Errno::PERM));
        let error = settle(Path::new("a"), owner, refused()).unwrap_err();
        assert!(error.to_string().contains("lchown"), "{error}");
        if userns::is_nested() && !userns::has_one_id() {
            let (uid, gid) = (u32::MAX - 1, 5);
            let error = settle(Path::new("a"), Owner { uid, gid }, refused()).unwrap_err();
            assert!(matches!(error, ApplyError::NoSuchOwner { .. }), "{error}");
        }
    }

    #[test]
    fn only_a_device_that_was_refused_in_a_user_namespace_is_left_out() {
        let refused = || Err(io::Error::from(rustix::io::Errno::PERM));
        let full = || Err(io::Error::from(rustix::io::Errno::NOSPC));
        let at = Path::new("dev/null");
        assert!(!nobodys_device(at, Kind::Char, &Ok(())));
        assert!(!nobodys_device(at, Kind::Char, &full()));
        assert!(!nobodys_device(at, Kind::Fifo, &refused()));
        assert_eq!(
            nobodys_device(at, Kind::Block, &refused()),
            userns::is_nested()
        );
    }

    #[test]
    fn directories_are_marked_where_overlay_reads_it() {
        assert!(
            ["user.overlay.opaque", "trusted.overlay.opaque"].contains(&opaque_mark().as_str())
        );
    }
}
