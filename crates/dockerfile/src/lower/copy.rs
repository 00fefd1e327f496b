//! `COPY` and `ADD`.

use gostd::path;
use llb::build::{
    Chmod, Chown, Constraints, CopyInfo, FileChain, GitOpts, HttpOpts, State, git, http, merge,
};
use llb::git_url::GitRef;
use oci::Digest;

use super::error::{LowerError, LowerErrorKind};
use super::graph::Lowering;
use super::name;
use super::path::{PathError, PathRules};
use crate::check;
use crate::instruction::{self, Origin, SourcesAndDest};
use crate::lint::Linter;

/// Most steps of pattern matching that the check for ignored sources takes; the check only warns.
const MAX_IGNORE_STEPS: usize = 1 << 30;

/// The parts that `COPY` and `ADD` share, and the options that only one of them has.
struct Transfer<'a> {
    add: bool,
    files: &'a SourcesAndDest,
    /// State that plain paths are read from.
    source: State,
    /// Whether `source` is the build context.
    from_context: bool,
    chown: &'a str,
    chmod: &'a str,
    link: bool,
    parents: bool,
    exclude: &'a [String],
    keep_git_dir: Option<bool>,
    checksum: &'a str,
    unpack: Option<bool>,
}

impl Lowering<'_> {
    pub(crate) fn add_step(
        &mut self,
        at: usize,
        origin: &Origin,
        add: instruction::Add,
        lint: &Linter,
    ) -> Result<(), LowerError> {
        let transfer = Transfer {
            add: true,
            files: &add.files,
            source: self.build_context.clone(),
            from_context: true,
            chown: &add.chown,
            chmod: &add.chmod,
            link: add.link,
            parents: false,
            exclude: &add.exclude,
            keep_git_dir: add.keep_git_dir,
            checksum: &add.checksum,
            unpack: add.unpack,
        };
        self.transfer(at, origin, &transfer, lint)?;
        let local = add
            .files
            .paths
            .iter()
            .filter(|path| !path.starts_with("http://") && !path.starts_with("https://"));
        self.stages[at]
            .ctx_paths
            .extend(local.map(|path| path::join(&["/", path])));
        Ok(())
    }

    pub(crate) fn copy_step(
        &mut self,
        at: usize,
        origin: &Origin,
        copy: instruction::Copy,
        sources: &[usize],
        lint: &Linter,
    ) -> Result<(), LowerError> {
        let source = match sources.first() {
            Some(&source) if !self.stages[source].dispatched => {
                let stage = self.stages[at].stage_name.clone();
                return Err(LowerErrorKind::CopyOrder {
                    from: copy.from,
                    stage,
                }
                .into());
            }
            Some(&source) => self.stages[source].state.clone(),
            None => self.build_context.clone(),
        };
        let transfer = Transfer {
            add: false,
            files: &copy.files,
            source,
            from_context: sources.is_empty(),
            chown: &copy.chown,
            chmod: &copy.chmod,
            link: copy.link,
            parents: copy.parents,
            exclude: &copy.exclude,
            keep_git_dir: None,
            checksum: "",
            unpack: None,
        };
        self.transfer(at, origin, &transfer, lint)?;
        let paths = copy.files.paths.iter().map(|path| path::join(&["/", path]));
        match sources.first() {
            Some(&source) => {
                let used = self.stages[source].paths;
                self.paths[used].extend(paths);
            }
            None => self.stages[at].ctx_paths.extend(paths),
        }
        Ok(())
    }

    fn transfer(
        &mut self,
        at: usize,
        origin: &Origin,
        t: &Transfer<'_>,
        lint: &Linter,
    ) -> Result<(), LowerError> {
        let rules = self.path_rules(at);
        let dest = rules
            .destination(self.stages[at].state.get_dir(), &t.files.dest)
            .map_err(LowerErrorKind::Drive)?;
        let owner = (!t.chown.is_empty()).then(|| Chown::parse(t.chown));
        if t.link && owner.as_ref().is_some_and(Chown::by_name) {
            return Err(LowerErrorKind::ChownLink(t.chown.to_owned()).into());
        }
        let mode = chmod(t.chmod)?;
        check_checksum(t)?;
        let base = CopyInfo {
            mode,
            owner,
            exclude: t.exclude.to_vec(),
            create_dest: true,
            ..CopyInfo::default()
        };

        let env = self.stages[at].state.env().clone();
        let text = self.shown(&self.lex, &origin.code, &env);
        let multi = self.options.multi_platform;
        let stage = &mut self.stages[at];
        let platform = stage
            .platform
            .clone()
            .unwrap_or_else(|| self.platforms.target.clone());
        let step_name = name::prefix(stage, &text, multi, Some(&platform), &env);

        let mut chain = FileChain::new();
        let mut message = String::from(if t.add { "ADD" } else { "COPY" });
        if t.parents {
            message.push_str(" --parents");
        }
        for (flag, value) in [("--chown=", t.chown), ("--chmod=", t.chmod)] {
            if !value.is_empty() {
                message.push_str(&format!(" {flag}{value}"));
            }
        }
        // A URL's own settings go on to the sources after it, as in BuildKit.
        let mut keep_git_dir = t.keep_git_dir;
        let mut checksum = t.checksum.to_owned();
        for path in &t.files.paths {
            message.push(' ');
            message.push_str(path);
            let git_ref = GitRef::parse(path).map_err(LowerErrorKind::GitRef)?;
            chain = match git_ref {
                Some(git_ref) if !git_ref.like_local => {
                    let state =
                        self.git_source(t, &git_ref, &step_name, &mut keep_git_dir, &mut checksum)?;
                    chain.copy(&state, "/", &dest, base.clone())
                }
                None if path.starts_with("http://") || path.starts_with("https://") => {
                    if !t.add {
                        return Err(LowerErrorKind::CopyUrl.into());
                    }
                    let filename = url_filename(path);
                    let checksum = (!checksum.is_empty())
                        .then(|| Digest::parse(&checksum))
                        .transpose();
                    let opts = HttpOpts {
                        checksum: checksum.map_err(LowerErrorKind::Checksum)?,
                        filename: filename.clone(),
                    };
                    let constraints = Constraints::named(step_name.clone())
                        .describe("com.docker.dockerfile.v1.command", "");
                    let info = CopyInfo {
                        unpack: t.unpack.unwrap_or(false),
                        ..base.clone()
                    };
                    chain.copy(&http(path, &opts, constraints), &filename, &dest, info)
                }
                Some(_) | None => {
                    let ignore = if t.from_context {
                        self.ignore.as_ref()
                    } else {
                        None
                    };
                    let steps = ignore.map_or(0, |i| i.weight().saturating_mul(1 + path.len()));
                    self.ignore_steps = self.ignore_steps.saturating_add(steps);
                    let ignore = ignore.filter(|_| self.ignore_steps <= MAX_IGNORE_STEPS);
                    check::ignored_source(
                        if t.add { "Add" } else { "Copy" },
                        path,
                        ignore,
                        &origin.ranges,
                        lint,
                    );
                    let (src, info) =
                        local_source(rules, t, path, &base).map_err(LowerErrorKind::SourceDrive)?;
                    chain.copy(&t.source, &src, &dest, info)
                }
            };
        }
        for content in &t.files.contents {
            message.push_str(" <<");
            message.push_str(&content.path);
            let constraints =
                Constraints::internal("preparing inline document").platform(&platform);
            let path = rules
                .without_drive(&content.path, false)
                .map_err(LowerErrorKind::Drive)?;
            let files = FileChain::new()
                .mkfile(&path, 0o644, content.data.clone())
                .on(&State::scratch(), constraints);
            chain = chain.copy(&files, &path, &dest, base.clone());
        }
        message.push(' ');
        message.push_str(&t.files.dest);

        let ignore_cache = self.stages[at].ignore_cache;
        let constraints = self
            .constraints(step_name.clone(), origin)
            .ignore_cache(ignore_cache);
        let state = self.stages[at].state.clone();
        self.stages[at].state = if t.link && t.chmod.is_empty() {
            self.stages[at].cmd_index -= usize::from(self.stages[at].cmd_total > 0);
            let stage = &mut self.stages[at];
            let linked = name::prefix(stage, &format!("LINK {text}"), multi, Some(&platform), &env);
            let group = group_id(&step_name, origin, at);
            let own = constraints
                .clone()
                .platform(&platform)
                .progress_group(&group, &step_name, true);
            let layer = chain.on(&State::scratch(), own);
            let whole = constraints
                .progress_group(&group, &step_name, false)
                .name(linked);
            let merged = merge(&[&state, &layer], whole);
            state.with_output(merged.output().cloned())
        } else {
            chain.on(&state, constraints)
        };
        message.push_str(" # buildkit");
        self.commit(at, message, true);
        Ok(())
    }

    fn git_source(
        &self,
        t: &Transfer<'_>,
        git_ref: &GitRef,
        step_name: &str,
        keep_git_dir: &mut Option<bool>,
        checksum: &mut String,
    ) -> Result<State, LowerError> {
        if !t.add {
            return Err(LowerErrorKind::CopyGit.into());
        }
        if let (Some(flag), Some(url)) = (*keep_git_dir, git_ref.keep_git_dir)
            && flag != url
        {
            return Err(LowerErrorKind::KeepGitDir.into());
        }
        *keep_git_dir = git_ref.keep_git_dir.or(*keep_git_dir);
        if !git_ref.checksum.is_empty() {
            if !checksum.is_empty() && *checksum != git_ref.checksum {
                return Err(LowerErrorKind::ChecksumMismatch(
                    checksum.clone(),
                    git_ref.checksum.clone(),
                )
                .into());
            }
            checksum.clone_from(&git_ref.checksum);
        }
        let opts = GitOpts {
            keep_git_dir: *keep_git_dir == Some(true),
            checksum: checksum.clone(),
            advice: self.options.git_advice,
            mtime: String::new(),
            ..GitOpts::from(git_ref)
        };
        Ok(git(&git_ref.remote, &opts, Constraints::named(step_name)))
    }
}

/// A path of the context or of a stage, and how to copy it.
fn local_source(
    rules: PathRules,
    t: &Transfer<'_>,
    path: &str,
    base: &CopyInfo,
) -> Result<(String, CopyInfo), PathError> {
    let mut src = path;
    let mut info = CopyInfo {
        follow_symlinks: true,
        dir_contents_only: true,
        unpack: t.unpack.unwrap_or(t.add),
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..base.clone()
    };
    if t.parents {
        // `a/./b/c` keeps `b/c`; without the pivot everything is kept.
        let (root, pattern) = path.split_once("/./").unwrap_or(("/", path));
        let pattern = rules.absolute("/", pattern, false)?;
        info.include = vec![pattern.strip_prefix('/').unwrap_or(&pattern).to_owned()];
        if !has_wildcards(root) && !has_wildcards(&pattern) {
            info.required = vec![rules.absolute("/", &path::join(&[root, &pattern]), false)?];
        }
        src = root;
    }
    Ok((rules.absolute("/", src, false)?, info))
}

fn chmod(text: &str) -> Result<Option<Chmod>, LowerError> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        return match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o7777 => Ok(Some(Chmod::Bits(bits))),
            _ => Err(LowerErrorKind::Chmod(text.to_owned()).into()),
        };
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(LowerErrorKind::Chmod(text.to_owned()).into());
    }
    if !is_symbolic_mode(text) {
        return Err(LowerErrorKind::ChmodSyntax(text.to_owned()).into());
    }
    Ok(Some(Chmod::Symbolic(text.to_owned())))
}

/// chmod(1)'s letters: `who` (`op` `perms`)+, separated by commas.
fn is_symbolic_mode(text: &str) -> bool {
    text.split(',').all(|clause| {
        let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        actions.starts_with(['+', '-', '='])
            && actions.chars().all(|c| {
                matches!(
                    c,
                    '+' | '-' | '=' | 'r' | 'w' | 'x' | 'X' | 's' | 't' | 'u' | 'g' | 'o'
                )
            })
    })
}

fn check_checksum(t: &Transfer<'_>) -> Result<(), LowerError> {
    if t.checksum.is_empty() {
        return Ok(());
    }
    if !t.add {
        return Err(LowerErrorKind::ChecksumCopy.into());
    }
    let [path] = t.files.paths.as_slice() else {
        return Err(LowerErrorKind::ChecksumMany.into());
    };
    if is_http_source(path) || is_git_source(path) {
        return Ok(());
    }
    Err(LowerErrorKind::ChecksumLocal.into())
}

pub(crate) fn is_http_source(path: &str) -> bool {
    (path.starts_with("http://") || path.starts_with("https://")) && !is_git_source(path)
}

fn is_git_source(path: &str) -> bool {
    matches!(GitRef::parse(path), Ok(Some(_)))
}

/// The last part of a URL's path, unescaped: the file name of a download.
pub(crate) fn url_filename(url: &str) -> String {
    const UNNAMED: &str = "__unnamed__";
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let Some((_, path)) = rest.split_once('/') else {
        return UNNAMED.into();
    };
    match path::base(&format!("/{path}")) {
        "." | "/" => UNNAMED.into(),
        name => unescape(name),
    }
}

fn unescape(text: &str) -> String {
    let bytes = gostd::url::unescape_lossy(text).into_owned();
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// An id for the group of steps that a linked copy is shown as.
// DIFFERS: BuildKit draws it at random; ours follows from the step, so that equal builds give equal definitions.
fn group_id(name: &str, origin: &Origin, stage: usize) -> String {
    let line = origin.ranges.first().map_or(0, |range| range.start.line);
    Digest::sha256(format!("{stage}\n{line}\n{name}"))
        .hex()
        .chars()
        .take(25)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_letters() {
        assert_eq!(chmod("0644").unwrap(), Some(Chmod::Bits(0o644)));
        assert_eq!(
            chmod("u=rwX,go=rX").unwrap(),
            Some(Chmod::Symbolic("u=rwX,go=rX".into()))
        );
        assert_eq!(
            chmod("10000").unwrap_err().to_string(),
            "invalid chmod parameter: '10000'. it should be octal string and between 0 and 07777"
        );
        assert!(chmod("99").is_err() && chmod("foo").is_err());
    }

    #[test]
    fn urls_suggest_file_names() {
        for (url, want) in [
            ("https://x/a/b.tar?c#d", "b.tar"),
            ("https://x/", "__unnamed__"),
            ("https://x", "__unnamed__"),
            ("http://x/a%20b", "a b"),
        ] {
            assert_eq!(url_filename(url), want, "{url}");
        }
    }
}
