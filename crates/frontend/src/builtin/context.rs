//! The places of the Dockerfile and its files: the client's directories, a git repository, a download, or an input.

use std::sync::Arc;

use bytes::Bytes;
use dockerfile::ignore;
use dockerfile::lower::source_map;
use dockerfile::syntax::to_utf8;
use gostd::path;
use gostd::strconv::is_true;
use llb::build::{
    Constraints, CopyInfo, FileChain, GitOpts, HttpOpts, LocalOpts, MarshalOptions, SourceMap,
    State, git, http, local, state_from_definition,
};
use llb::git_url::GitRef;
use llb::pb;
use oci::{Digest, ErrorKind};
use tokio::sync::OnceCell;

use super::Build;
use super::archive::is_archive;
use crate::bridge::{FileRange, Ref, SolveRequest};
use crate::error::{BridgeError, FrontendError};

const DOCKERFILE: &str = "Dockerfile";
const DOCKERIGNORE: &str = ".dockerignore";
/// Size limit of a Dockerfile or an ignore file. One message of the gateway holds it.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;

/// The places of the Dockerfile and of the build's files.
pub(crate) struct Context {
    /// The build context; none for the client's directory.
    pub(crate) state: Option<State>,
    /// The tree with the Dockerfile; none for the client's directory.
    dockerfile: Option<State>,
    filename: String,
    context_local: &'static str,
    dockerfile_local: String,
    ignore: OnceCell<Vec<String>>,
    own_ignore: OnceCell<Option<Bytes>>,
    /// The repository of the build context, if it is one.
    repository: Option<Repository>,
}

/// A git repository as build context.
struct Repository {
    state: State,
    /// Folder of the repository that is the context.
    folder: String,
    keeps_git_dir: bool,
    /// Patterns of its ignore file.
    ignore: OnceCell<Vec<String>>,
}

impl Repository {
    fn ignore_path(&self) -> String {
        path::join(&[&self.folder, DOCKERIGNORE])
    }

    async fn ignore(&self, build: &Build) -> Result<Vec<String>, FrontendError> {
        let read = || async {
            let (reference, _) = solve(build, &self.state, false, "").await?;
            ignore_at(reference.as_ref(), &self.ignore_path()).await
        };
        self.ignore.get_or_try_init(read).await.cloned()
    }
}

/// The Dockerfile.
pub(crate) struct Entrypoint {
    /// Name, text and definition of the Dockerfile's source.
    pub(crate) map: Arc<SourceMap>,
    /// The step that read it; warnings are shown there.
    pub(crate) vertex: Digest,
}

/// The definition of a state.
pub(crate) fn marshal(state: &State) -> Result<pb::Definition, FrontendError> {
    llb::build::marshal(state.output(), &MarshalOptions::default())
        .map_err(FrontendError::definition)
}

/// Solves a state; the ref is none for an empty one.
pub(crate) async fn solve(
    build: &Build,
    state: &State,
    evaluate: bool,
    context: &str,
) -> Result<(Option<Arc<dyn Ref>>, Arc<pb::Definition>), FrontendError> {
    let definition = Arc::new(marshal(state)?);
    let request = SolveRequest {
        evaluate,
        ..SolveRequest::of_definition(Arc::clone(&definition))
    };
    let result = build
        .bridge
        .solve(request)
        .await
        .map_err(|error| FrontendError::bridge_failed(context, error))?;
    Ok((result.single_ref()?.cloned(), definition))
}

/// Reads a whole file of at most [`MAX_FILE_BYTES`].
pub(crate) async fn read_file(
    reference: Option<&Arc<dyn Ref>>,
    path: &str,
) -> Result<Bytes, ReadError> {
    let Some(reference) = reference else {
        return Err(ReadError::Bridge(BridgeError::new(
            ErrorKind::NotFound,
            format!("open /{path}: no such file or directory"),
        )));
    };
    if let Ok(stat) = reference.stat_file(path).await
        && u64::try_from(stat.size).is_ok_and(|size| size > MAX_FILE_BYTES)
    {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    let range = FileRange {
        offset: 0,
        length: MAX_FILE_BYTES + 1,
    };
    let data = reference
        .read_file(path, Some(range))
        .await
        .map_err(ReadError::Bridge)?;
    if data.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    Ok(data)
}

/// Why a file of a context cannot be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    TooLarge(String),
    Bridge(BridgeError),
}

impl ReadError {
    /// Whether the file, or the session that should have it, does not exist.
    fn is_not_found(&self) -> bool {
        match self {
            Self::TooLarge(_) => false,
            Self::Bridge(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    pub(crate) fn explain(self, context: &str) -> FrontendError {
        match self {
            Self::TooLarge(path) => {
                let sentence =
                    format!("{path} exceeds maximum allowed size of {MAX_FILE_BYTES} bytes");
                FrontendError::definition_while(context, sentence)
            }
            Self::Bridge(error) => FrontendError::bridge_failed(context, error),
        }
    }
}

/// The state of a git URL; none if `text` is not one. `adjust` may change the options that the URL sets.
pub(crate) fn git_context(
    text: &str,
    adjust: impl FnOnce(&mut GitOpts),
) -> Result<Option<State>, FrontendError> {
    let git_ref = GitRef::parse(text).map_err(FrontendError::definition)?;
    Ok(git_ref.map(|git_ref| {
        let mut opts = GitOpts::from(&git_ref);
        adjust(&mut opts);
        git(
            &git_ref.remote,
            &opts,
            Constraints::internal(&format!("load git source {text}")),
        )
    }))
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

impl Context {
    /// Determines from the options where the Dockerfile and the files are; downloads a context from an address.
    pub(crate) async fn open(build: &Build) -> Result<Self, FrontendError> {
        let opts = &build.request.opts;
        let get = |key: &str| opts.get(key).map(String::as_str).unwrap_or_default();
        let mut context = Self {
            state: None,
            dockerfile: None,
            filename: opts
                .get("filename")
                .cloned()
                .unwrap_or_else(|| DOCKERFILE.to_owned()),
            context_local: "context",
            dockerfile_local: "dockerfile".to_owned(),
            ignore: OnceCell::new(),
            own_ignore: OnceCell::new(),
            repository: None,
        };
        let forced = opts.get("dockerfilekey").cloned();
        if let Some(name) = &forced {
            context.dockerfile_local.clone_from(name);
        }
        let key = opts.get("contextkey").map_or("context", String::as_str);
        let url = get(key);
        let keep_git = is_true(get("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR"));
        let mtime_commit = !get("build-arg:SOURCE_DATE_EPOCH").is_empty();
        let repository = git_context(url, |opts| {
            opts.advice = build.config.lower.git_advice;
            opts.keep_git_dir |= keep_git;
            if mtime_commit && opts.mtime.is_empty() {
                opts.mtime = "commit".into();
            }
        })?;
        if let Some(state) = repository {
            context.dockerfile = Some(state.clone());
            context.repository = Some(Repository {
                state: state.clone(),
                folder: get("contextsubdir").to_owned(),
                keeps_git_dir: keep_git,
                ignore: OnceCell::new(),
            });
            context.state = Some(state);
        } else if is_http(url) {
            context.download(build, url).await?;
        } else {
            let input = |name: &str| {
                build
                    .request
                    .inputs
                    .get(name)
                    .map(|definition| state_from_definition(definition))
                    .transpose()
                    .map_err(FrontendError::definition)
            };
            context.dockerfile = input(&context.dockerfile_local)?;
            context.state = input("context")?;
        }
        if forced.is_some() {
            context.dockerfile = None;
        }
        if let Some(state) = &context.state
            && let Some(dir) = opts.get("contextsubdir")
        {
            let info = CopyInfo {
                dir_contents_only: true,
                ..CopyInfo::default()
            };
            let inside = FileChain::new()
                .copy(state, dir, "/", info)
                .on(&State::scratch(), Constraints::new());
            context.state = Some(inside);
        }
        Ok(context)
    }

    /// A downloaded archive is the context; any other file is the Dockerfile.
    async fn download(&mut self, build: &Build, url: &str) -> Result<(), FrontendError> {
        const NAME: &str = "context";
        let opts = HttpOpts {
            checksum: None,
            filename: NAME.into(),
        };
        let state = http(
            url,
            &opts,
            Constraints::internal("load remote build context"),
        );
        let (reference, _) = solve(build, &state, false, "failed to resolve httpcontext").await?;
        let range = FileRange {
            offset: 0,
            length: 1024,
        };
        let failed =
            |error| FrontendError::bridge_failed("failed to read downloaded context", error);
        let head = match &reference {
            Some(reference) => reference
                .read_file(NAME, Some(range))
                .await
                .map_err(failed)?,
            None => Bytes::new(),
        };
        if is_archive(&head) {
            let info = CopyInfo {
                unpack: true,
                ..CopyInfo::default()
            };
            let tree = FileChain::new()
                .copy(&state, &path::join(&["/", NAME]), "/", info)
                .on(&State::scratch(), Constraints::new());
            self.state = Some(tree);
        } else {
            self.filename = NAME.to_owned();
            self.state = Some(state);
        }
        self.dockerfile.clone_from(&self.state);
        Ok(())
    }

    /// Reads the Dockerfile, and the ignore file beside it if there is one.
    pub(crate) async fn read_entrypoint(&self, build: &Build) -> Result<Entrypoint, FrontendError> {
        let filename = &self.filename;
        let lower = (path::base(filename) == DOCKERFILE)
            .then(|| path::join(&[&path::dir(filename), &DOCKERFILE.to_lowercase()]));
        let own_ignore = format!("{filename}{DOCKERIGNORE}");
        let state = match &self.dockerfile {
            Some(state) => state.clone(),
            None => {
                let mut follow_paths = vec![filename.clone(), own_ignore.clone()];
                follow_paths.extend(lower.clone());
                let opts = LocalOpts {
                    session_id: build
                        .config
                        .session_of(&self.dockerfile_local, &build.request)
                        .clone(),
                    follow_paths,
                    shared_key_hint: self.dockerfile_local.clone(),
                    differ_none: true,
                    ..LocalOpts::default()
                };
                let name = format!("load build definition from {filename}");
                local(&self.dockerfile_local, &opts, Constraints::internal(&name))
            }
        };
        let (reference, definition) =
            solve(build, &state, false, "failed to resolve dockerfile").await?;
        let mut read = read_file(reference.as_ref(), filename).await;
        if let (Err(ReadError::Bridge(_)), Some(lower)) = (&read, &lower)
            && let Ok(data) = read_file(reference.as_ref(), lower).await
        {
            read = Ok(data);
        }
        let data = read.map_err(|error| error.explain("failed to read dockerfile"))?;
        let own = match read_file(reference.as_ref(), &own_ignore).await {
            Ok(data) => Some(data),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.explain("failed to read dockerignore patterns")),
        };
        // Nobody else sets the cell, so `set` cannot fail.
        drop(self.own_ignore.set(own));
        if let (Some(repository), Some(_)) = (&self.repository, &self.dockerfile) {
            // The repository is at hand here, so its ignore file needs no further solve.
            let path = repository.ignore_path();
            let patterns = ignore_at(reference.as_ref(), &path).await?;
            drop(repository.ignore.set(patterns));
        }
        let vertex = llb::definition::head(&definition).unwrap_or_else(|| Digest::sha256(b""));
        Ok(Entrypoint {
            map: source_map(filename, &to_utf8(&data), Some(definition)),
            vertex,
        })
    }

    /// The build context, restricted to some paths if it is the client's directory.
    pub(crate) async fn main(
        &self,
        build: &Build,
        follow_paths: Vec<String>,
    ) -> Result<State, FrontendError> {
        if let Some(state) = &self.state {
            return self.without_ignored(build, state).await;
        }
        let opts = LocalOpts {
            session_id: build
                .config
                .session_of(self.context_local, &build.request)
                .clone(),
            exclude: self
                .ignore_file(build)
                .await
                .map_err(|error| error.within("failed to read dockerignore patterns"))?,
            follow_paths,
            shared_key_hint: self.context_local.to_owned(),
            ..LocalOpts::default()
        };
        Ok(local(
            self.context_local,
            &opts,
            Constraints::internal("load build context"),
        ))
    }

    /// A context without the files that the ignore file of its repository names.
    ///
    /// DIFFERS: the reference reads no ignore file of a repository, so that one Dockerfile copies other files from a clone than
    /// from its address.
    async fn without_ignored(&self, build: &Build, state: &State) -> Result<State, FrontendError> {
        let Some(repository) = &self.repository else {
            return Ok(state.clone());
        };
        let mut exclude = self
            .ignore_file(build)
            .await
            .map_err(|error| error.within("failed to read dockerignore patterns"))?;
        if exclude.is_empty() {
            return Ok(state.clone());
        }
        if repository.keeps_git_dir {
            // The ignore file itself was requested by name.
            exclude.extend(["!.git".to_owned(), "!.git/**".to_owned()]);
        }
        let info = CopyInfo {
            dir_contents_only: true,
            exclude,
            ..CopyInfo::default()
        };
        let name = format!("leave out what {DOCKERIGNORE} names");
        Ok(FileChain::new()
            .copy(state, "/", "/", info)
            .on(&State::scratch(), Constraints::internal(&name)))
    }

    /// Patterns of the ignore file; none for contexts that are neither the client's directory nor a repository.
    pub(crate) async fn ignore_patterns(
        &self,
        build: &Build,
    ) -> Result<Vec<String>, FrontendError> {
        if self.state.is_some() && self.repository.is_none() {
            return Ok(Vec::new());
        }
        self.ignore_file(build).await
    }

    async fn ignore_file(&self, build: &Build) -> Result<Vec<String>, FrontendError> {
        self.ignore
            .get_or_try_init(|| async {
                if let Some(Some(own)) = self.own_ignore.get() {
                    return Ok(ignore::patterns(own));
                }
                if let Some(repository) = &self.repository {
                    return repository.ignore(build).await;
                }
                let opts = LocalOpts {
                    session_id: build
                        .config
                        .session_of(self.context_local, &build.request)
                        .clone(),
                    follow_paths: vec![DOCKERIGNORE.to_owned()],
                    shared_key_hint: format!("{}-{DOCKERIGNORE}", self.context_local),
                    differ_none: true,
                    ..LocalOpts::default()
                };
                let state = local(
                    self.context_local,
                    &opts,
                    Constraints::internal(&format!("load {DOCKERIGNORE}")),
                );
                let (reference, _) = solve(build, &state, false, "").await?;
                ignore_of(reference.as_ref()).await
            })
            .await
            .cloned()
    }
}

/// Patterns of the ignore file in a directory; a missing file is no error.
pub(crate) async fn ignore_of(
    reference: Option<&Arc<dyn Ref>>,
) -> Result<Vec<String>, FrontendError> {
    ignore_at(reference, DOCKERIGNORE).await
}

/// Patterns of an ignore file; a missing file is no error.
///
/// DIFFERS: the reference takes every error for a missing file and then sends the whole context, secrets included.
async fn ignore_at(
    reference: Option<&Arc<dyn Ref>>,
    path: &str,
) -> Result<Vec<String>, FrontendError> {
    match read_file(reference, path).await {
        Ok(data) => Ok(ignore::patterns(&data)),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.explain("")),
    }
}
