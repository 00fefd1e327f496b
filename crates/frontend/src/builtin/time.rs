//! The time of a source, for `SOURCE_DATE_EPOCH`.

use llb::build::{Constraints, State};
use llb::pb;
use prost::Message;

use super::Build;
use super::archive::newest;
use super::context::{marshal, read_file, solve};
use crate::bridge::ResolveOpts;
use crate::error::FrontendError;

/// Seconds since 1970 of a commit, or of the last change of a download; none for other sources. If the server sends no
/// time for a download, it is that of the newest file in the archive.
// DIFFERS: archives packed with bzip2, xz or zstd have no time here.
pub(crate) async fn of_source(
    build: &Build,
    state: &State,
    log_name: &str,
) -> Result<Option<i64>, FrontendError> {
    let definition = marshal(state)?;
    let mut sources = definition.def.iter().filter_map(|raw| {
        let op = pb::Op::decode(&raw[..]).ok()?.op?;
        if let pb::op::Op::Source(source) = op {
            Some(source)
        } else {
            None
        }
    });
    let (Some(source), None) = (sources.next(), sources.next()) else {
        return Ok(None);
    };
    let git = source.identifier.starts_with("git://");
    if !git
        && !source.identifier.starts_with("http://")
        && !source.identifier.starts_with("https://")
    {
        return Ok(None);
    }
    let opts = ResolveOpts {
        log_name: log_name.to_owned(),
        git_return_object: git,
        ..ResolveOpts::default()
    };
    let meta = build.bridge.resolve_source(source.clone(), opts).await?;
    if let Some(git) = meta.git {
        return Ok(committed(&git.commit_object));
    }
    let modified = meta.http.and_then(|http| http.last_modified);
    let Some(name) = source.attrs.get("http.filename").filter(|n| !n.is_empty()) else {
        return Ok(modified);
    };
    if modified.is_some() {
        return Ok(modified);
    }
    let state = llb::build::source(&source.identifier, source.attrs.clone(), Constraints::new());
    let (reference, _) = solve(build, &state, false, "failed to resolve archive").await?;
    let Ok(data) = read_file(reference.as_ref(), name).await else {
        return Ok(None);
    };
    Ok(newest(&data))
}

/// The time in a commit object's `committer` line: `committer Name <mail> seconds zone`.
fn committed(object: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(object);
    let line = text
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix("committer "))?;
    line.rsplit_once('>')?
        .1
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::committed;

    #[test]
    fn the_time_of_a_commit_is_its_committer_s() {
        let commit = b"tree 1\nauthor A <a@b> 1 +0000\ncommitter C > D <c@d> 1700000000 +0200\n\ncommitter x <y> 5 +0000\n";
        assert_eq!(committed(commit), Some(1_700_000_000));
        assert_eq!(committed(b"tree 1\n\n"), None);
    }
}
