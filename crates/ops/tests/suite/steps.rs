//! Exec ops in real containers over a real store. Needs root and /bin/busybox; skips otherwise.

#![allow(clippy::unwrap_used, reason = "helpers of a test may panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor::launcher::{Config, Launcher};
use executor::{Access, Executor, IdRange};
use llb::pb;
use oci::Digest;
use ops::exec::ExecOp;
use ops::{BuildDomain, BuildRights, OpSys, Parts, ProgressSink, StepLimits};
use solver::{Op as _, OpCtx, Vertex};
use store::{ImmutableRef, RefOptions, Store};

executor::before_main!(executor::launcher::dispatch);

struct Host {
    _dir: tempfile::TempDir,
    parts: Arc<Parts>,
    base: ImmutableRef,
}

const IDS: IdRange = IdRange {
    base: 0x1000_0000,
    count: u32::MAX - 0x1000_0000,
};

impl Host {
    /// A store with a busybox tree of two layers; steps with or without a user namespace. None if the machine lacks what it needs.
    fn new(user_namespace: bool) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            testkit::skip::skip("needs root and /bin/busybox");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(store::Config::new(dir.path().join("state"))).unwrap();
        let launcher = Launcher::new(Config {
            user_namespace: user_namespace.then_some(IDS),
            ..Config::host_network()
        });
        if user_namespace {
            let ids = launcher.id_mapping(&Access::SANDBOX).ok().flatten();
            let Some(ids) = ids.filter(|ids| store.check_mapping(ids).is_ok()) else {
                testkit::skip::skip("this machine maps no ids");
                return None;
            };
            drop(ids);
        }
        let layer = |parent: Option<&ImmutableRef>, fill: &dyn Fn(&Path)| {
            let mutable = store.new_mutable(parent, RefOptions::default()).unwrap();
            let mount = mutable.mount().unwrap().try_clone().unwrap();
            let number = std::os::fd::AsRawFd::as_raw_fd(&mount);
            fill(&PathBuf::from(format!("/proc/self/fd/{number}")));
            drop(mount);
            mutable.commit().unwrap()
        };
        let first = layer(None, &|root| {
            for name in ["bin", "etc", "tmp", "gone"] {
                std::fs::create_dir(root.join(name)).unwrap();
            }
            std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
            std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
        });
        let base = layer(Some(&first), &|root| {
            for (name, owner) in [("theirs", 1000), ("many", 1_000_620_000)] {
                std::fs::write(root.join(name), name).unwrap();
                std::os::unix::fs::chown(root.join(name), Some(owner), Some(owner)).unwrap();
            }
        });
        let parts = Parts::new(
            store,
            Arc::new(launcher),
            Arc::new(source::Sources::new()),
            session::SessionManager::new(),
            StepLimits {
                platforms: vec![oci::Platform::host()],
                devices: None,
                max_parallelism: 0,
                ..StepLimits::default()
            },
        );
        Some(Self {
            _dir: dir,
            parts,
            base,
        })
    }

    async fn run(&self, op: pb::ExecOp) -> Result<Vec<ops::Ref>, String> {
        let inputs = vec![Some(self.base.clone()), None];
        let rights = BuildRights::default();
        let op = ExecOp::new(
            Arc::clone(&self.parts),
            op,
            None,
            rights,
            executor::Resources::default(),
            inputs.len(),
        );
        op.exec(&context(), inputs).await.map_err(|e| e.to_string())
    }

    /// The layer of a result as it is exported, without times.
    fn tar(&self, result: &ops::Ref) -> Vec<u8> {
        let result = result.as_ref().unwrap();
        let options = layer::CreateOptions {
            latest_time: Some(1),
            compression: layer::Compression {
                kind: layer::CompressionKind::Uncompressed,
                ..layer::Compression::default()
            },
        };
        let mut out = Vec::new();
        let parents = result.parents();
        let lower = parents.first().map(|parent| parent.root().unwrap());
        layer::create(&result.upper().unwrap(), lower.as_ref(), &options, &mut out).unwrap();
        out
    }
}

fn context() -> OpCtx<BuildDomain> {
    let vertex = Vertex::new(Digest::sha256(b"step"), "step", Arc::new(OpSys::default()));
    OpCtx::detached(Arc::new(vertex), Arc::new(ProgressSink::null()), Vec::new())
}

fn mount(dest: &str, kind: pb::MountType) -> pb::Mount {
    pb::Mount {
        input: -1,
        output: -1,
        dest: dest.into(),
        mount_type: kind.into(),
        ..pb::Mount::default()
    }
}

fn step(script: &str) -> pb::ExecOp {
    let root = pb::Mount {
        input: 0,
        output: 0,
        ..mount("/", pb::MountType::Bind)
    };
    let cache = |dest: &str, id: &str, input| pb::Mount {
        input,
        cache_opt: Some(pb::CacheOpt {
            id: id.into(),
            sharing: pb::CacheSharingOpt::Shared.into(),
        }),
        ..mount(dest, pb::MountType::Cache)
    };
    pb::ExecOp {
        meta: Some(pb::Meta {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".into()],
            cwd: "/work".into(),
            ..pb::Meta::default()
        }),
        mounts: vec![
            root,
            cache("/cache", "plain", -1),
            cache("/seeded", "seeded", 0),
            pb::Mount {
                input: 0,
                readonly: true,
                ..mount("/base", pb::MountType::Bind)
            },
            mount("/scratch", pb::MountType::Tmpfs),
            pb::Mount {
                output: 1,
                ..mount("/out", pb::MountType::Bind)
            },
        ],
        ..pb::ExecOp::default()
    }
}

const SCRIPT: &str = "set -e; b=/bin/busybox; $b rmdir /gone; echo more >> /theirs; echo more >> /many; $b chown 7:8 /theirs; \
    echo a > /tmp/a; $b chmod 4755 /tmp/a; $b mkfifo /tmp/p; \
    $b mknod -m 640 /tmp/c c 1 3; $b chown 3:4 /tmp/c; $b mknod /out/b b 259 70000; echo result > /out/file; $b chown 1000:1000 /out/file; \
    $b test \"$($b stat -c %u:%g /base/many)\" = 1000620000:1000620000; $b test \"$($b stat -c %u /seeded/theirs)\" = 1000; \
    echo x > /scratch/x; echo x >> /cache/x; $b chown 5 /cache/x; echo x >> /seeded/theirs; \
    if $b test -e /cache/count; then $b stat -c %u /cache/x > /seen; fi; echo > /cache/count";

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_the_same_bytes_with_a_user_namespace_and_without() {
    let (Some(plain), Some(mapped)) = (Host::new(false), Host::new(true)) else {
        return;
    };
    let mut layers = Vec::new();
    for host in [&plain, &mapped] {
        let first = host.run(step(SCRIPT)).await.unwrap();
        // The same step again, with the cache mounts of the first run.
        let second = host.run(step(SCRIPT)).await.unwrap();
        let tars = [&first[0], &first[1], &second[0]].map(|result| host.tar(result));
        layers.push(tars);
    }
    for (index, (plain, mapped)) in layers[0].iter().zip(&layers[1]).enumerate() {
        assert!(plain.len() > 1024, "layer {index} holds something");
        assert!(plain == mapped, "layer {index} differs");
    }
    // Each kind of step continues with the files of the other.
    for (from, namespace) in [(&mapped, false), (&plain, true)] {
        let launcher = Launcher::new(Config {
            user_namespace: namespace.then_some(IDS),
            ..Config::host_network()
        });
        let parts = Parts::new(
            Arc::clone(&from.parts.store),
            Arc::new(launcher),
            Arc::new(source::Sources::new()),
            session::SessionManager::new(),
            StepLimits {
                platforms: vec![oci::Platform::host()],
                devices: None,
                max_parallelism: 0,
                ..StepLimits::default()
            },
        );
        let host = Host {
            _dir: tempfile::tempdir().unwrap(),
            parts,
            base: from.base.clone(),
        };
        let result = host.run(step(SCRIPT)).await.unwrap();
        assert!(host.tar(&result[0]) == layers[0][2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_running_container_in_a_user_namespace_can_be_read_from_outside() {
    let Some(host) = Host::new(true) else { return };
    let op = step("");
    let inputs = vec![Some(host.base.clone()), None];
    let ctx = context();
    let prepared = ops::exec::prepare(&host.parts, &ctx, &op.mounts, "/", &[], &inputs);
    let ids = host.parts.executor.id_mapping(&Access::SANDBOX).unwrap();
    let prepared = prepared.await.unwrap().with_ids(ids);
    // Before a container runs, as frontends do: root, seeded cache mount, input.
    for (position, name) in [(0, "theirs"), (2, "theirs"), (3, "many")] {
        let root = prepared.tree(position).unwrap().unwrap();
        let owner = root.lstat(name).unwrap().uid - IDS.base;
        assert!(
            [1000, 1_000_620_000].contains(&owner),
            "{position}: {owner}"
        );
    }
    let (mounts, rootfs, _) = prepared.open().await.unwrap();
    let process = executor::ProcessSpec {
        args: ["/bin/sh", "-c", "echo x > /made; echo x > /seeded/made"]
            .map(str::to_owned)
            .to_vec(),
        env: vec!["PATH=/bin".into()],
        ..executor::ProcessSpec::default()
    };
    let mut spec = executor::ContainerSpec::new(Access::SANDBOX, rootfs, process);
    spec.mounts = mounts;
    spec.ids = prepared.ids();
    let io = executor::ProcessIo::default();
    let status = host.parts.executor.run(spec, io, None).await.unwrap();
    assert_eq!(status.code, 0);
    for position in [0, 2] {
        let root = prepared.tree(position).unwrap().unwrap();
        assert_eq!(root.lstat("made").unwrap().uid, IDS.base);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_op_with_paths_of_thousands_of_components_is_refused_before_anything_is_prepared() {
    let Some(host) = Host::new(false) else { return };
    let deep = "/a".repeat(2000);
    let with = |change: &dyn Fn(&mut pb::ExecOp)| {
        let mut op = step("true");
        change(&mut op);
        op
    };
    for (op, want) in [
        (
            with(&|op| op.meta.as_mut().unwrap().cwd = deep.clone()),
            "the working directory has 2000 parts, at most 256 are possible",
        ),
        (
            with(&|op| op.meta.as_mut().unwrap().cwd = "/a".repeat(5000)),
            "the working directory has 10000 bytes, at most 4095 are possible",
        ),
        (
            with(&|op| op.mounts[4].dest = deep.clone()),
            "the mount destination has 2000 parts, at most 256 are possible",
        ),
        (
            with(&|op| op.mounts[1].selector = deep.clone()),
            "the mount selector has 2000 parts, at most 256 are possible",
        ),
        (
            with(&|op| {
                let more = (0..5000).map(|n| mount(&format!("/m{n}"), pb::MountType::Tmpfs));
                op.mounts.extend(more);
            }),
            "5006 mounts are more than the 1024 that a container may have",
        ),
    ] {
        let error = host.run(op).await.unwrap_err();
        assert!(error.starts_with(want), "{error}");
        let used = host.parts.store.find_meta("cache-dir", b"plain").unwrap();
        assert!(used.is_empty(), "no cache mount was made");
    }
    host.run(step("true")).await.unwrap();
}
