//! File operations: a chain of actions on one state.

use super::BuildError;
use super::encode;
use super::marshal::Marshaller;
use super::state::State;
use super::vertex::{Constraints, Kind, Marshalled, Output, Vertex};
use crate::pb;
use crate::validate::{EMPTY, SKIP_OUTPUT};
use gostd::path;

/// A user or group, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserOpt {
    /// A name, looked up in the target's passwd and group files.
    Name(String),
    /// A numeric id.
    Id(u32),
}

/// Owner and group of the results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chown {
    /// User of the results; none keeps it.
    pub user: Option<UserOpt>,
    /// Group of the results; none keeps it.
    pub group: Option<UserOpt>,
}

impl Chown {
    /// Parses `user[:group]`; `root` and numbers are ids, the rest names.
    pub fn parse(text: &str) -> Self {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let one = |text: &str| match text {
            "root" => UserOpt::Id(0),
            _ => match text.parse::<i32>() {
                Ok(id) => UserOpt::Id(id.cast_unsigned()),
                Err(_) => UserOpt::Name(text.to_owned()),
            },
        };
        Self {
            user: Some(one(user)),
            group: group.filter(|group| !group.is_empty()).map(one),
        }
    }

    /// Owner and group by their ids.
    pub fn ids(uid: u32, gid: u32) -> Self {
        Self {
            user: Some(UserOpt::Id(uid)),
            group: Some(UserOpt::Id(gid)),
        }
    }

    /// Whether a name must be looked up.
    pub fn by_name(&self) -> bool {
        [&self.user, &self.group]
            .into_iter()
            .any(|opt| matches!(opt, Some(UserOpt::Name(name)) if !name.is_empty()))
    }

    fn to_pb(&self, base: i64) -> pb::ChownOpt {
        let one = |opt: &UserOpt| pb::UserOpt {
            user: Some(match opt {
                UserOpt::Name(name) if !name.is_empty() => {
                    pb::user_opt::User::ByName(pb::NamedUserOpt {
                        name: name.clone(),
                        input: base,
                    })
                }
                UserOpt::Name(_) => pb::user_opt::User::ById(0),
                UserOpt::Id(id) => pb::user_opt::User::ById(*id),
            }),
        };
        pb::ChownOpt {
            user: self.user.as_ref().map(one),
            group: self.group.as_ref().map(one),
        }
    }
}

/// Permissions of the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// Permission bits.
    Bits(u32),
    /// A mode as in chmod(1), such as `u+x`.
    Symbolic(String),
}

/// Options of a copy, as `FileActionCopy` has them. The flags are independent of each other.
#[derive(Debug, Clone, Default)]
pub struct CopyInfo {
    /// Permissions of the copies; none keeps them.
    pub mode: Option<Chmod>,
    /// Whether a symlink as source is followed.
    pub follow_symlinks: bool,
    /// Whether the contents of a directory are copied instead of the directory itself.
    pub dir_contents_only: bool,
    /// Patterns of files to copy; empty for all.
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    pub exclude: Vec<String>,
    /// Paths that must exist.
    pub required: Vec<String>,
    /// Whether an archive is unpacked.
    pub unpack: bool,
    /// Whether the directories above the destination are created.
    pub create_dest: bool,
    /// Whether the source is a pattern.
    pub allow_wildcard: bool,
    /// Whether a pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// Owner of the copies; none keeps it.
    pub owner: Option<Chown>,
    /// Modification time in nanoseconds since the epoch; none keeps it.
    pub created: Option<i64>,
    /// Whether existing files of other types are replaced.
    pub always_replace: bool,
}

/// How the path of [`FileChain::rm`] is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RmPath {
    /// As the path of one file or tree.
    Literal,
    /// As a pattern, whose matches are all removed.
    Wildcard,
}

/// The result of [`FileChain::rm`] when there is nothing to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingPath {
    /// The step fails.
    Fails,
    /// The step succeeds.
    Succeeds,
}

#[derive(Debug, Clone)]
enum Action {
    Mkdir {
        path: String,
        mode: i32,
        parents: bool,
        owner: Option<Chown>,
        created: Option<i64>,
    },
    Mkfile {
        path: String,
        mode: i32,
        data: Vec<u8>,
        owner: Option<Chown>,
        created: Option<i64>,
    },
    Rm {
        path: String,
        form: RmPath,
        missing: MissingPath,
    },
    Symlink {
        old: String,
        new: String,
        owner: Option<Chown>,
        created: Option<i64>,
    },
    Copy {
        source: Option<Output>,
        source_dir: String,
        src: String,
        dest: String,
        info: Box<CopyInfo>,
    },
}

/// A chain of file actions.
#[derive(Debug, Clone, Default)]
pub struct FileChain {
    actions: Vec<Action>,
}

impl FileChain {
    /// A chain without actions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are no actions.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Creates a directory.
    #[must_use]
    pub fn mkdir(
        mut self,
        path: &str,
        mode: u32,
        parents: bool,
        owner: Option<Chown>,
        created: Option<i64>,
    ) -> Self {
        self.actions.push(Action::Mkdir {
            path: path.into(),
            mode: permissions(mode),
            parents,
            owner,
            created,
        });
        self
    }

    /// Creates a file.
    #[must_use]
    pub fn mkfile(mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        self.actions.push(Action::Mkfile {
            path: path.into(),
            mode: permissions(mode),
            data,
            owner: None,
            created: None,
        });
        self
    }

    /// Removes a file or a tree.
    #[must_use]
    pub fn rm(mut self, path: &str, form: RmPath, missing: MissingPath) -> Self {
        self.actions.push(Action::Rm {
            path: path.into(),
            form,
            missing,
        });
        self
    }

    /// Creates a symlink `new` to `old`.
    #[must_use]
    pub fn symlink(mut self, old: &str, new: &str) -> Self {
        self.actions.push(Action::Symlink {
            old: old.into(),
            new: new.into(),
            owner: None,
            created: None,
        });
        self
    }

    /// Copies from `source`. A relative `src` is under the source's directory, a relative `dest` under the target's.
    #[must_use]
    pub fn copy(mut self, source: &State, src: &str, dest: &str, info: CopyInfo) -> Self {
        self.actions.push(Action::Copy {
            source: source.output().cloned(),
            source_dir: source.get_dir().to_owned(),
            src: src.into(),
            dest: dest.into(),
            info: Box::new(info),
        });
        self
    }

    /// Performs the actions on `state`.
    pub fn on(self, state: &State, constraints: Constraints) -> State {
        let op = FileOp {
            base: state.output().cloned(),
            dir: state.get_dir().to_owned(),
            actions: self.actions,
        };
        let vertex = Vertex::new(Kind::File(op), constraints);
        state.with_output(Some(Output::new(vertex, 0, None)))
    }
}

fn permissions(mode: u32) -> i32 {
    i32::try_from(mode & 0o777).unwrap_or_default()
}

#[derive(Debug)]
pub(crate) struct FileOp {
    base: Option<Output>,
    dir: String,
    actions: Vec<Action>,
}

impl FileOp {
    /// Base first, then the copy sources from the last action to the first: the order in which definitions list them.
    pub(crate) fn inputs(&self) -> Vec<&Output> {
        let sources = self.actions.iter().rev().filter_map(|action| match action {
            Action::Copy { source, .. } => source.as_ref(),
            Action::Mkdir { .. }
            | Action::Mkfile { .. }
            | Action::Rm { .. }
            | Action::Symlink { .. } => None,
        });
        self.base.iter().chain(sources).collect()
    }

    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        let sources = self.actions.iter_mut().filter_map(|action| match action {
            Action::Copy { source, .. } => source.take(),
            Action::Mkdir { .. }
            | Action::Mkfile { .. }
            | Action::Rm { .. }
            | Action::Symlink { .. } => None,
        });
        self.base.take().into_iter().chain(sources).collect()
    }

    pub(crate) fn marshal(
        &self,
        m: &Marshaller<'_>,
        constraints: &Constraints,
    ) -> Result<Marshalled, BuildError> {
        if self.actions.is_empty() {
            return Err(BuildError::NoAction);
        }
        let mut inputs: Vec<pb::Input> = Vec::new();
        let mut add = |output: Option<&Output>| -> Result<i64, BuildError> {
            let Some(input) = output.map(|output| m.input(output)).transpose()?.flatten() else {
                return Ok(EMPTY);
            };
            let at = inputs
                .iter()
                .position(|have| *have == input)
                .unwrap_or_else(|| {
                    inputs.push(input);
                    inputs.len() - 1
                });
            Ok(i64::try_from(at).unwrap_or(i64::MAX))
        };
        let base = add(self.base.as_ref())?;
        let mut seconds = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            seconds.push(match action {
                Action::Copy { source, .. } => add(source.as_ref())?,
                Action::Mkdir { .. }
                | Action::Mkfile { .. }
                | Action::Rm { .. }
                | Action::Symlink { .. } => EMPTY,
            });
        }
        let count = i64::try_from(inputs.len()).unwrap_or(i64::MAX);
        let last = self.actions.len() - 1;
        let actions = self
            .actions
            .iter()
            .zip(seconds)
            .enumerate()
            .map(|(at, (action, secondary_input))| pb::FileAction {
                input: if at == 0 {
                    base
                } else {
                    count + i64::try_from(at - 1).unwrap_or(i64::MAX)
                },
                secondary_input,
                output: if at == last { 0 } else { SKIP_OUTPUT },
                action: Some(self.action(action, base)),
            })
            .collect();
        let op = pb::op::Op::File(pb::FileOp { actions });
        Ok(encode::finish(
            inputs,
            op,
            None,
            constraints,
            &["file.base"],
        ))
    }

    fn action(&self, action: &Action, base: i64) -> pb::file_action::Action {
        use pb::file_action::Action as Wire;
        let chown = |owner: &Option<Chown>| owner.as_ref().map(|owner| owner.to_pb(base));
        match action {
            Action::Mkdir {
                path,
                mode,
                parents,
                owner,
                created,
            } => Wire::Mkdir(pb::FileActionMkDir {
                path: normalize(&self.dir, path, false),
                mode: *mode,
                make_parents: *parents,
                owner: chown(owner),
                timestamp: created.unwrap_or(-1),
            }),
            Action::Mkfile {
                path,
                mode,
                data,
                owner,
                created,
            } => Wire::Mkfile(pb::FileActionMkFile {
                path: normalize(&self.dir, path, false),
                mode: *mode,
                data: data.clone(),
                owner: chown(owner),
                timestamp: created.unwrap_or(-1),
            }),
            Action::Rm {
                path,
                form,
                missing,
            } => Wire::Rm(pb::FileActionRm {
                path: normalize(&self.dir, path, false),
                allow_not_found: *missing == MissingPath::Succeeds,
                allow_wildcard: *form == RmPath::Wildcard,
            }),
            Action::Symlink {
                old,
                new,
                owner,
                created,
            } => Wire::Symlink(pb::FileActionSymlink {
                oldpath: old.clone(),
                newpath: new.clone(),
                owner: chown(owner),
                timestamp: created.unwrap_or(-1),
            }),
            Action::Copy {
                source_dir,
                src,
                dest,
                info,
                ..
            } => {
                let cleaned = path::clean(src);
                let from = if path::is_abs(&cleaned) {
                    "/"
                } else {
                    source_dir
                };
                let (mode, mode_str) = match &info.mode {
                    None => (-1, String::new()),
                    Some(Chmod::Bits(bits)) => {
                        (i32::try_from(*bits).unwrap_or(i32::MAX), String::new())
                    }
                    Some(Chmod::Symbolic(text)) => (0, text.clone()),
                };
                Wire::Copy(pb::FileActionCopy {
                    src: path::join(&[from, &cleaned]),
                    dest: normalize(&self.dir, dest, true),
                    owner: chown(&info.owner),
                    mode,
                    follow_symlink: info.follow_symlinks,
                    dir_copy_contents: info.dir_contents_only,
                    attempt_unpack_docker_compatibility: info.unpack,
                    create_dest_path: info.create_dest,
                    allow_wildcard: info.allow_wildcard,
                    allow_empty_wildcard: info.allow_empty_wildcard,
                    timestamp: info.created.unwrap_or(-1),
                    include_patterns: info.include.clone(),
                    exclude_patterns: info.exclude.clone(),
                    always_replace_existing_dest_paths: info.always_replace,
                    mode_str,
                    required_paths: info.required.clone(),
                })
            }
        }
    }
}

/// An absolute path under `parent`. With `keep_slash` a trailing `/` or `/.` is kept.
fn normalize(parent: &str, path: &str, keep_slash: bool) -> String {
    let mut out = path::clean(path);
    if !path::is_abs(&out) {
        out = path::join(&["/", parent, &out]);
    }
    if keep_slash {
        if path.ends_with('/') && !out.ends_with('/') {
            out.push('/');
        } else if path.ends_with("/.") {
            if out != "/" {
                out.push('/');
            }
            out.push('.');
        }
    }
    out
}
