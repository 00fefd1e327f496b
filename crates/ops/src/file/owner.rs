//! The owner of a file action's results: numeric ids, or names looked up in the passwd and group files of an input.
//!
//! Facts from `solver/llbsolver/ops/user_linux.go`: a user id also sets the group; an unknown name means root;
//! a missing file has no names.

use fstree::{Owner, Root};
use llb::pb;
use pb::user_opt::User;

use crate::OpFailure;

/// Size limit of a passwd or group file in bytes (P13).
const MAX_FILE_BYTES: u64 = 10 << 20;

/// Resolves `owner`, opening inputs with `open`.
pub(crate) fn resolve(
    owner: Option<&pb::ChownOpt>,
    open: impl Fn(i64) -> Result<Option<Root>, OpFailure>,
) -> Result<Option<Owner>, OpFailure> {
    let Some(owner) = owner else { return Ok(None) };
    let mut uid = 0;
    let mut gid = 0;
    match owner.user.as_ref().and_then(|u| u.user.as_ref()) {
        Some(User::ById(id)) => (uid, gid) = (*id, *id),
        Some(User::ByName(user)) => {
            if let Some(line) = find(open(user.input)?.as_ref(), "/etc/passwd", &user.name)? {
                uid = number(&line, 2);
                gid = number(&line, 3);
            }
        }
        None => {}
    }
    match owner.group.as_ref().and_then(|u| u.user.as_ref()) {
        Some(User::ById(id)) => gid = *id,
        Some(User::ByName(user)) => {
            if let Some(line) = find(open(user.input)?.as_ref(), "/etc/group", &user.name)? {
                gid = number(&line, 2);
            }
        }
        None => {}
    }
    Ok(Some(Owner { uid, gid }))
}

fn find(root: Option<&Root>, path: &str, name: &str) -> Result<Option<String>, OpFailure> {
    let Some(root) = root else { return Ok(None) };
    let bytes = match root.read(path, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(OpFailure::Tree(Box::new(e))),
    };
    Ok(String::from_utf8_lossy(&bytes)
        .lines()
        .find(|line| line.split(':').next() == Some(name))
        .map(str::to_owned))
}

fn number(line: &str, field: usize) -> u32 {
    line.split(':')
        .nth(field)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}
