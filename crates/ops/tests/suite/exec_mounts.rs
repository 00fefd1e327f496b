//! Mounts in the container of a step, and malformed ops.

use llb::pb;
use testkit::executor::{RunMount, RunMountKind, Step};
use testkit::session::MemorySession;

use crate::lab::{Lab, cache, mount, step, step_with};

fn tree(dest: &str, readonly: bool) -> RunMount {
    RunMount {
        dest: dest.into(),
        kind: RunMountKind::Tree,
        selector: String::new(),
        readonly,
    }
}

fn tmpfs(dest: &str, size: Option<u64>) -> RunMount {
    RunMount {
        kind: RunMountKind::Tmpfs { size },
        ..tree(dest, false)
    }
}

#[tokio::test]
async fn each_type_of_mount_appears_in_the_container() {
    testkit::requires!(root);
    let bind = |dest: &str, readonly| pb::Mount {
        input: 0,
        readonly,
        ..mount(dest, pb::MountType::Bind)
    };
    let sized = |dest: &str, size| pb::Mount {
        tmpfs_opt: Some(pb::TmpfsOpt { size }),
        ..mount(dest, pb::MountType::Tmpfs)
    };
    let secret = |id: &str, optional| pb::Mount {
        secret_opt: Some(pb::SecretOpt {
            id: id.into(),
            uid: 1,
            gid: 2,
            mode: 0o100_440,
            optional,
        }),
        ..mount("/run/secret", pb::MountType::Secret)
    };
    let ssh = |id: &str, optional| pb::Mount {
        ssh_opt: Some(pb::SshOpt {
            id: id.into(),
            optional,
            ..pb::SshOpt::default()
        }),
        selector: "ignored".into(),
        ..mount("/run/agent", pb::MountType::Ssh)
    };
    let file = RunMount {
        kind: RunMountKind::File {
            contents: "hush".into(),
            mode: 0o440,
            uid: 1,
            gid: 2,
        },
        ..tree("/run/secret", false)
    };
    let agent = RunMount {
        kind: RunMountKind::Place,
        ..tree("/run/agent", false)
    };
    let selected = pb::Mount {
        selector: "/part".into(),
        ..bind("/in", true)
    };
    let with_selector = RunMount {
        selector: "/part".into(),
        ..tree("/in", true)
    };
    type Case<'a> = (&'a str, Vec<pb::Mount>, Vec<RunMount>, Option<u64>);
    let cases: Vec<Case<'_>> = vec![
        ("only the root", vec![], vec![], None),
        (
            "an input",
            vec![bind("/in", true)],
            vec![tree("/in", true)],
            None,
        ),
        (
            "an input that can be written",
            vec![bind("/in", false)],
            vec![tree("/in", false)],
            None,
        ),
        (
            "a part of an input",
            vec![selected],
            vec![with_selector],
            None,
        ),
        (
            "scratch",
            vec![mount("/out", pb::MountType::Bind)],
            vec![tree("/out", false)],
            None,
        ),
        (
            "a place in the working directory",
            vec![bind("sub/../in", true)],
            vec![tree("/work/in", true)],
            None,
        ),
        (
            "parents first",
            vec![
                bind("/a/b", true),
                mount("/c", pb::MountType::Tmpfs),
                bind("/a", true),
            ],
            vec![tree("/a", true), tree("/a/b", true), tmpfs("/c", None)],
            None,
        ),
        (
            "a tmpfs with a size",
            vec![sized("/t", 4096)],
            vec![tmpfs("/t", Some(4096))],
            None,
        ),
        (
            "a tmpfs of size 0 or less has none",
            vec![sized("/t", 0), sized("/u", -1)],
            vec![tmpfs("/t", None), tmpfs("/u", None)],
            None,
        ),
        (
            "shared memory is no mount",
            vec![sized("/dev/shm", 4096)],
            vec![],
            Some(4096),
        ),
        (
            "a secret without the bits that are no permissions",
            vec![secret("known", false)],
            vec![file],
            None,
        ),
        (
            "an optional secret that nobody has",
            vec![secret("other", true)],
            vec![],
            None,
        ),
        ("an agent", vec![ssh("known", false)], vec![agent], None),
        (
            "an optional agent that nobody has",
            vec![ssh("other", true)],
            vec![],
            None,
        ),
        (
            "a cache mount",
            vec![cache("/cache", "id", pb::CacheSharingOpt::Shared)],
            vec![tree("/cache", false)],
            None,
        ),
    ];
    for (case, mounts, want, shm_size) in cases {
        let lab = Lab::new([Step::exits(0)]);
        let client = MemorySession::new("client").secrets([("known", b"hush")]);
        lab.connect("client", client.agents(["known"]));
        lab.run(step(mounts)).await.unwrap();
        let run = lab.executor.runs().remove(0);
        assert_eq!(run.mounts, want, "{case}");
        assert_eq!(run.shm_size, shm_size, "{case}");
    }
}

#[tokio::test]
async fn a_malformed_op_is_refused_with_the_reason_before_anything_runs() {
    testkit::requires!(root);
    let with = |mounts: Vec<pb::Mount>| pb::ExecOp { mounts, ..step([]) };
    let kind = |kind: i32| pb::Mount {
        mount_type: kind,
        ..mount("/x", pb::MountType::Bind)
    };
    let secret = |id: &str| pb::Mount {
        secret_opt: Some(pb::SecretOpt {
            id: id.into(),
            ..pb::SecretOpt::default()
        }),
        ..mount("/x", pb::MountType::Secret)
    };
    let ssh = |id: &str| pb::Mount {
        ssh_opt: Some(pb::SshOpt {
            id: id.into(),
            ..pb::SshOpt::default()
        }),
        ..mount("/x", pb::MountType::Ssh)
    };
    let mut sharing = cache("/x", "id", pb::CacheSharingOpt::Shared);
    sharing.cache_opt.as_mut().unwrap().sharing = 9;
    let input = |input| pb::Mount {
        input,
        ..mount("/x", pb::MountType::Bind)
    };
    let mut network = step([]);
    network.network = 77;
    let cases = [
        (
            "no root",
            with(vec![mount("/x", pb::MountType::Tmpfs)]),
            "exec op has no root mount",
        ),
        ("no mounts", with(vec![]), "exec op has no root mount"),
        (
            "a root in memory",
            with(vec![mount("/", pb::MountType::Tmpfs)]),
            "invalid mount type TMPFS for /",
        ),
        (
            "a kind that there is not",
            step([kind(99)]),
            "mount type 99 not implemented",
        ),
        (
            "an input that there is not",
            step([input(7)]),
            "missing input 7",
        ),
        ("a negative input", step([input(-2)]), "missing input -2"),
        (
            "a secret without options",
            step([mount("/x", pb::MountType::Secret)]),
            "invalid secret mount options",
        ),
        (
            "a secret without an id",
            step([secret("")]),
            "secret ID missing from mount options",
        ),
        (
            "a secret that nobody has",
            step([secret("other")]),
            "secret other: not found",
        ),
        (
            "an agent without options",
            step([mount("/x", pb::MountType::Ssh)]),
            "invalid SSH mount options",
        ),
        (
            "an agent that nobody has",
            step([ssh("other")]),
            "unset ssh forward key other",
        ),
        (
            "a cache without options",
            step([mount("/x", pb::MountType::Cache)]),
            "invalid cache mount options",
        ),
        (
            "a sharing mode that there is not",
            step([sharing]),
            "invalid cache sharing option: 9",
        ),
        (
            "no words",
            pb::ExecOp {
                meta: None,
                ..step([])
            },
            "invalid exec op with no meta",
        ),
        ("a network that there is not", network, "77"),
        (
            "a host without an address",
            step_with(|meta| {
                meta.extra_hosts = vec![pb::HostIp {
                    host: "db".into(),
                    ip: "here".into(),
                }];
            }),
            "here",
        ),
    ];
    for (case, op, want) in cases {
        let lab = Lab::new([]);
        let client = MemorySession::new("client").secrets([]).agents([]);
        lab.connect("client", client);
        let before = lab.records();
        let error = lab.error(op).await;
        assert!(error.contains(want), "{case}: {error}");
        assert_eq!(lab.executor.runs(), [], "{case}");
        assert_eq!(lab.records(), before, "{case}: nothing is left");
    }
}
