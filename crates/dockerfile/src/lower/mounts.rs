//! `RUN --mount`.

use gostd::path;
use llb::build::exec::{Mount as Bind, MountContent, Run, Secret, Sharing, Ssh};
use llb::build::{Chown, Constraints, FileChain, State};

use super::error::{LowerError, LowerErrorKind};
use super::graph::{Lowering, SCRATCH};
use super::path::PathRules;
use crate::instruction::{self, Mount, MountType, Origin, ShareMode};

/// The mounts of a process in their order.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    binds: Vec<Bind>,
    secrets: Vec<Secret>,
    ssh: Vec<Ssh>,
}

impl Mounts {
    pub(crate) fn add_to(self, run: Run) -> Run {
        let run = self.binds.into_iter().fold(run, Run::mount);
        let run = self.secrets.into_iter().fold(run, Run::secret);
        self.ssh.into_iter().fold(run, Run::ssh)
    }
}

impl Lowering<'_> {
    pub(crate) fn mounts(
        &mut self,
        at: usize,
        origin: &Origin,
        run: &instruction::Run,
        sources: &[usize],
    ) -> Result<Mounts, LowerError> {
        let mut out = Mounts::default();
        for (mount, &source) in run.mounts.iter().zip(sources) {
            // A cache without a source starts empty; other mounts without one show the build context.
            let empty_cache = mount.kind == MountType::Cache && mount.from.is_empty();
            let from = if empty_cache {
                SCRATCH
            } else {
                mount.from.as_str()
            };
            if !from.is_empty() && !self.stages[source].dispatched {
                let kind = LowerErrorKind::MountOrder {
                    from: from.to_owned(),
                    target: mount.target.clone(),
                };
                return Err(kind.into());
            }
            match mount.kind {
                MountType::Secret => out.secrets.push(self.secret(at, origin, mount)?),
                MountType::Ssh => out.ssh.push(self.ssh(at, origin, mount)?),
                MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                    let state = if mount.kind == MountType::Tmpfs {
                        State::scratch()
                    } else if from.is_empty() {
                        self.build_context.clone()
                    } else {
                        self.stages[source].state.clone()
                    };
                    out.binds.push(self.bind(at, mount, state)?);
                    let path = path::join(&["/", &mount.source]);
                    if from.is_empty() {
                        self.stages[at].ctx_paths.insert(path);
                    } else {
                        let used = self.stages[source].paths;
                        self.paths[used].insert(path);
                    }
                }
            }
        }
        Ok(out)
    }

    fn bind(&self, at: usize, mount: &Mount, mut state: State) -> Result<Bind, LowerError> {
        let mut target = mount.target.clone();
        if !path::is_abs(&path::clean(&target)) {
            target = path::join(&["/", self.stages[at].state.get_dir(), &target]);
        }
        if target == "/" {
            return Err(LowerErrorKind::MountTarget(target).into());
        }
        let mut selector = path::join(&["/", &mount.source]);
        if selector == "/" {
            selector.clear();
            if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() {
                let owner = Chown::ids(mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
                state = FileChain::new()
                    .mkdir(
                        "/cache",
                        mount.mode.unwrap_or(0o755),
                        false,
                        Some(owner),
                        None,
                    )
                    .on(
                        &state,
                        Constraints::internal("setting cache mount permissions"),
                    );
                selector.push_str("/cache");
            }
        }
        let content = match mount.kind {
            MountType::Tmpfs => MountContent::Tmpfs {
                size: mount.size_limit,
            },
            MountType::Cache => {
                let id = if mount.id.is_empty() {
                    path::clean(&mount.target)
                } else {
                    mount.id.clone()
                };
                let sharing = match mount.sharing {
                    Some(ShareMode::Private) => Sharing::Private,
                    Some(ShareMode::Locked) => Sharing::Locked,
                    Some(ShareMode::Shared) | None => Sharing::Shared,
                };
                MountContent::Cache {
                    id: format!("{}/{id}", self.options.cache_id_namespace),
                    sharing,
                }
            }
            MountType::Bind | MountType::Secret | MountType::Ssh => MountContent::Bind,
        };
        let mut bind = Bind::new(target, &state);
        bind.selector = selector;
        bind.readonly = mount.read_only;
        bind.no_output = !mount.read_only && mount.kind == MountType::Bind;
        bind.content = content;
        Ok(bind)
    }

    fn secret(&mut self, at: usize, origin: &Origin, mount: &Mount) -> Result<Secret, LowerError> {
        let rules = self.path_rules(at);
        let written = rules.slashes(&mount.target).into_owned();
        let mut id = if mount.source.is_empty() {
            mount.id.clone()
        } else {
            mount.source.clone()
        };
        if id.is_empty() {
            if written.is_empty() {
                return Err(LowerErrorKind::SecretName.into());
            }
            path::base(&written).clone_into(&mut id);
        }
        let mut target = (!written.is_empty()).then_some(written);
        if rules == PathRules::Windows {
            // There is no folder that all images have for secrets, and `C:name` would land in some other.
            match &target {
                Some(target) if rules.is_absolute(target) => {}
                Some(target) => {
                    let target = target.clone();
                    return Err(LowerErrorKind::SecretTargetRelative { target, id }.into());
                }
                None if mount.env.is_some() => {}
                None => return Err(LowerErrorKind::SecretTargetMissing(id).into()),
            }
        } else if mount.env.is_none() && target.is_none() {
            target = Some(format!("/run/secrets/{}", path::base(&id)));
        }
        let place = (mount.required, origin.ranges.clone());
        self.stages[at]
            .outline
            .secrets
            .entry(id.clone())
            .or_insert(place);
        Ok(Secret {
            id,
            target,
            env: mount.env.clone(),
            mode: mount.mode.unwrap_or(0o400),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            optional: !mount.required,
        })
    }

    fn ssh(&mut self, at: usize, origin: &Origin, mount: &Mount) -> Result<Ssh, LowerError> {
        if !mount.source.is_empty() {
            return Err(LowerErrorKind::SshSource.into());
        }
        let id = if mount.id.is_empty() {
            "default"
        } else {
            &mount.id
        };
        let place = (mount.required, origin.ranges.clone());
        self.stages[at]
            .outline
            .ssh
            .entry(id.to_owned())
            .or_insert(place);
        Ok(Ssh {
            id: mount.id.clone(),
            target: mount.target.clone(),
            mode: mount.mode.unwrap_or(0o600),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            optional: !mount.required,
        })
    }
}
