//! The time of a source, for `SOURCE_DATE_EPOCH`.

use llb::build::State;
use llb::pb;
use prost::Message;

use super::Build;
use super::context::marshal;
use crate::bridge::ResolveOpts;
use crate::error::FrontendError;

/// Seconds since the epoch: of a commit, or of the last change of a download. None for other sources.
// DIFFERS: for a download without Last-Modified, BuildKit reads the archive for its newest file; we take no time.
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
    let meta = build.bridge.resolve_source(source, opts).await?;
    if let Some(git) = meta.git {
        return Ok(committed(&git.commit_object));
    }
    Ok(meta.http.and_then(|http| http.last_modified))
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
    fn the_committer_says_when() {
        let commit = b"tree 1\nauthor A <a@b> 1 +0000\ncommitter C > D <c@d> 1700000000 +0200\n\ncommitter x <y> 5 +0000\n";
        assert_eq!(committed(commit), Some(1_700_000_000));
        assert_eq!(committed(b"tree 1\n\n"), None);
    }
}
