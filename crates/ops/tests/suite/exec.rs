//! What the container of a step is given, and what becomes of its end.

use executor::{Entitlements, ExecError, StartError};
use llb::pb;
use ops::OpFailure;
use testkit::executor::{RunMount, RunMountKind, Step};
use testkit::session::MemorySession;

use crate::lab::{Lab, cache, failure, layer, mount, names, root, step, step_with};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[tokio::test]
async fn the_environment_is_that_of_the_op_the_proxy_the_default_path_and_the_secrets() {
    testkit::requires!(root);
    let secret = |id: &str, name: &str, optional| pb::SecretEnv {
        id: id.into(),
        name: name.into(),
        optional,
    };
    let proxy = |http: &str, all: &str| {
        Some(pb::ProxyEnv {
            http_proxy: http.into(),
            all_proxy: all.into(),
            ..pb::ProxyEnv::default()
        })
    };
    type Case<'a> = (
        &'a str,
        &'a [&'a str],
        Option<pb::ProxyEnv>,
        Vec<pb::SecretEnv>,
        Result<&'a [&'a str], &'a str>,
    );
    let cases: [Case<'_>; 11] = [
        ("nothing", &[], None, vec![], Ok(&[PATH])),
        (
            "a path",
            &["PATH=/x", "A=1"],
            None,
            vec![],
            Ok(&["PATH=/x", "A=1"]),
        ),
        ("an empty path", &["PATH="], None, vec![], Ok(&["PATH="])),
        (
            "a name that begins like it",
            &["PATHS=/x"],
            None,
            vec![],
            Ok(&["PATHS=/x", PATH]),
        ),
        (
            "a proxy",
            &["A=1"],
            proxy("http://p", "x"),
            vec![],
            Ok(&[
                "A=1",
                "HTTP_PROXY=http://p",
                "http_proxy=http://p",
                "ALL_PROXY=x",
                "all_proxy=x",
                PATH,
            ]),
        ),
        (
            "a proxy without addresses",
            &[],
            proxy("", ""),
            vec![],
            Ok(&[PATH]),
        ),
        (
            "secrets, after all the rest",
            &["A=1"],
            None,
            vec![
                secret("token", "TOKEN", false),
                secret("empty", "EMPTY", false),
            ],
            Ok(&["A=1", PATH, "TOKEN=hunter2", "EMPTY="]),
        ),
        (
            "an optional secret that nobody has",
            &[],
            None,
            vec![secret("other", "OTHER", true)],
            Ok(&[PATH, "OTHER="]),
        ),
        (
            "a secret that nobody has",
            &[],
            None,
            vec![secret("other", "OTHER", false)],
            Err("secret other: not found"),
        ),
        (
            "a secret that is no text",
            &[],
            None,
            vec![secret("binary", "BINARY", false)],
            Err(
                "secret `binary` is not valid UTF-8 and cannot be an environment variable; mount it as a file",
            ),
        ),
        (
            "a secret without an id",
            &[],
            None,
            vec![secret("", "TOKEN", false)],
            Err(""),
        ),
    ];
    for (what, env, proxy_env, secretenv, want) in cases {
        let lab = Lab::new([Step::exits(0)]);
        let secrets = [
            ("token", &b"hunter2"[..]),
            ("empty", b""),
            ("binary", b"\xff"),
        ];
        lab.connect("client", MemorySession::new("client").secrets(secrets));
        let mut op = step_with(|meta| {
            meta.env = env.iter().map(|&word| word.to_owned()).collect();
            meta.proxy_env = proxy_env;
        });
        op.secretenv = secretenv;
        match want {
            Ok(want) => {
                lab.run(op).await.unwrap();
                assert_eq!(lab.executor.runs()[0].env, want, "{what}");
            }
            Err(want) => {
                let error = lab.error(op).await;
                assert!(
                    error.contains(want) && !error.contains("hunter2"),
                    "{what}: {error}"
                );
                assert_eq!(lab.executor.runs(), [], "{what}: nothing ran");
            }
        }
    }
}

#[tokio::test]
async fn the_words_of_the_op_reach_the_container() {
    testkit::requires!(root);
    let lab = Lab::new([Step::exits(0)]);
    let op = step_with(|meta| {
        meta.user = "build:wheel".into();
        meta.hostname = "box".into();
        meta.cgroup_parent = "/slice".into();
        meta.remove_mount_stubs_recursive = true;
        meta.extra_hosts = vec![
            pb::HostIp {
                host: "db".into(),
                ip: "10.1.2.3".into(),
            },
            pb::HostIp {
                host: "six".into(),
                ip: "::1".into(),
            },
        ];
        meta.ulimit = vec![pb::Ulimit {
            name: "nofile".into(),
            soft: 7,
            hard: -1,
        }];
    });
    lab.run(op).await.unwrap();
    let run = lab.executor.runs().remove(0);
    assert_eq!(run.args, ["/do", "it"]);
    assert_eq!(
        (run.cwd.as_str(), run.user.as_str()),
        ("/work", "build:wheel")
    );
    assert_eq!(run.hostname, "box");
    assert_eq!(run.cgroup_parent.as_deref(), Some("/slice"));
    assert!(run.remove_mount_stubs_recursive && !run.readonly_root && !run.tty);
    assert_eq!(
        run.extra_hosts,
        [
            ("db".to_owned(), "10.1.2.3".parse().unwrap()),
            ("six".to_owned(), "::1".parse().unwrap())
        ]
    );
    let [limit] = run.ulimits.as_slice() else {
        panic!("{:?}", run.ulimits)
    };
    assert_eq!(
        (limit.name.as_str(), limit.soft, limit.hard),
        ("nofile", 7, -1)
    );
}

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
async fn each_kind_of_mount_becomes_what_the_container_has() {
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
    for (what, mounts, want, shm_size) in cases {
        let lab = Lab::new([Step::exits(0)]);
        let client = MemorySession::new("client").secrets([("known", b"hush")]);
        lab.connect("client", client.agents(["known"]));
        lab.run(step(mounts)).await.unwrap();
        let run = lab.executor.runs().remove(0);
        assert_eq!(run.mounts, want, "{what}");
        assert_eq!(run.shm_size, shm_size, "{what}");
    }
}

#[tokio::test]
async fn an_op_that_cannot_be_run_says_why_before_anything_runs() {
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
    for (what, op, want) in cases {
        let lab = Lab::new([]);
        let client = MemorySession::new("client").secrets([]).agents([]);
        lab.connect("client", client);
        let before = lab.records();
        let error = lab.error(op).await;
        assert!(error.contains(want), "{what}: {error}");
        assert_eq!(lab.executor.runs(), [], "{what}");
        assert_eq!(lab.records(), before, "{what}: nothing is left");
    }
}

#[tokio::test]
async fn clients_without_a_service_and_no_clients_at_all_are_told_apart() {
    testkit::requires!(root);
    let secret = pb::Mount {
        secret_opt: Some(pb::SecretOpt {
            id: "token".into(),
            ..pb::SecretOpt::default()
        }),
        ..mount("/x", pb::MountType::Secret)
    };
    let ssh = pb::Mount {
        ssh_opt: Some(pb::SshOpt {
            id: "default".into(),
            ..pb::SshOpt::default()
        }),
        ..mount("/x", pb::MountType::Ssh)
    };
    let lab = Lab::new([]);
    for op in [step([secret.clone()]), step([ssh.clone()])] {
        assert_eq!(lab.error(op).await, "no active sessions");
    }
    lab.connect("old", MemorySession::new("old"));
    assert_eq!(lab.error(step([secret])).await, "secret token: not found");
    assert_eq!(
        lab.error(step([ssh])).await,
        "no SSH key \"default\" forwarded from the client"
    );
}

#[tokio::test]
async fn the_second_client_is_asked_when_the_first_has_no_such_service() {
    testkit::requires!(root);
    let lab = Lab::new([Step::exits(0)]);
    let first = lab.connect("first", MemorySession::new("first"));
    let second = MemorySession::new("second").secrets([("token", b"hunter2")]);
    let second = lab.connect("second", second);
    let mut op = step([]);
    op.secretenv = vec![pb::SecretEnv {
        id: "token".into(),
        name: "TOKEN".into(),
        optional: false,
    }];
    lab.run(op).await.unwrap();
    assert_eq!(lab.executor.runs()[0].env, [PATH, "TOKEN=hunter2"]);
    assert_eq!(first.calls(), ["secret token"]);
    assert_eq!(second.calls(), ["secret token"]);
}

#[tokio::test]
async fn rights_that_the_build_was_not_granted_are_refused_before_anything_is_made() {
    testkit::requires!(root);
    let ask = |network: pb::NetMode, security: pb::SecurityMode| pb::ExecOp {
        network: network.into(),
        security: security.into(),
        ..step([])
    };
    let cases = [
        (
            ask(pb::NetMode::Host, pb::SecurityMode::Sandbox),
            "network.host",
        ),
        (
            ask(pb::NetMode::Unset, pb::SecurityMode::Insecure),
            "security.insecure",
        ),
    ];
    for (op, entitlement) in cases {
        let lab = Lab::new([]);
        let before = lab.records();
        let error = lab.run(op).await.unwrap_err();
        assert!(matches!(failure(&error), OpFailure::Denied(_)), "{error:?}");
        assert!(error.to_string().contains(entitlement), "{error}");
        assert_eq!(lab.records(), before);
    }
    assert_eq!(Lab::new([]).rights.entitlements, Entitlements::default());
}

#[tokio::test]
async fn results_are_in_the_order_of_the_outputs_and_what_cannot_be_written_passes_through() {
    testkit::requires!(root);
    let lab = Lab::new([Step::exits(0)
        .does(|mounts| {
            for path in ["/in-root", "/second/b", "/third/c", "/thrown/away"] {
                std::fs::write(mounts.host_path(path), "").unwrap();
            }
            assert_eq!(mounts.names("/"), ["base", "in-root"]);
            assert_eq!(mounts.names("/through"), ["other"]);
        })
        .prints("some\n", "thing\n")]);
    let other = layer(&lab.parts.store, None, &["other"]);
    let output = |dest: &str, input, output, readonly| pb::Mount {
        input,
        output,
        readonly,
        ..mount(dest, pb::MountType::Bind)
    };
    let op = pb::ExecOp {
        mounts: vec![
            output("/third", -1, 3, false),
            output("/through", 1, 2, true),
            output("/second", 1, 1, false),
            root(),
            output("/thrown", 1, -1, false),
        ],
        ..step([])
    };
    let inputs = vec![Some(lab.base.clone()), Some(other.clone())];
    let results = lab.run_with(op, inputs).await.unwrap();
    assert_eq!(names(&results[0]), ["base", "in-root"]);
    assert_eq!(names(&results[1]), ["b", "other"]);
    assert_eq!(results[2].as_ref().map(|r| r.id()), Some(other.id()));
    assert_eq!(names(&results[3]), ["c"]);
    assert_eq!(results.len(), 4);
    assert_eq!(names(&Some(other)), ["other"], "an input stays as it was");
    assert_eq!(lab.log().await, "1:some\n2:thing\n");
}

#[tokio::test]
async fn which_ends_are_good_is_the_ops_to_say() {
    testkit::requires!(root);
    let not_in_path = || ExecError::Start(StartError::NotInPath { name: "/do".into() });
    let missing_source = || {
        ExecError::Start(StartError::Selector {
            dest: "/x".into(),
            selector: "/part".into(),
            errno: 2,
        })
    };
    let lost = || ExecError::Stopped { id: "x".into() };
    let failed = "process \"/do it\" did not complete successfully: ";
    type Case<'a> = (&'a str, Step, &'a [i32], Result<(), String>);
    let cases: Vec<Case<'_>> = vec![
        ("success", Step::exits(0), &[], Ok(())),
        (
            "failure",
            Step::exits(7),
            &[],
            Err(format!("{failed}exit code: 7")),
        ),
        ("a failure that is wanted", Step::exits(7), &[3, 7], Ok(())),
        (
            "success that is not",
            Step::exits(0),
            &[3, 7],
            Err(format!("{failed}exit code: 0")),
        ),
        (
            "want of memory",
            Step::runs_out_of_memory(),
            &[],
            Err(format!("{failed}cannot allocate memory")),
        ),
        (
            "want of memory is never wanted",
            Step::runs_out_of_memory(),
            &[137],
            Err(format!("{failed}cannot allocate memory")),
        ),
        (
            "no such program",
            Step::fails(not_in_path()),
            &[],
            Err(format!("{failed}exit code: 1")),
        ),
        (
            "no such part of a mount",
            Step::fails(missing_source()),
            &[],
            Err(format!("{failed}open /part: no such file or directory")),
        ),
        (
            "no end",
            Step::fails(lost()),
            &[],
            Err(format!("{failed}container x has stopped")),
        ),
    ];
    for (what, end, valid, want) in cases {
        let lab = Lab::new([end]);
        let op = step_with(|meta| meta.valid_exit_codes = valid.to_vec());
        let answer = lab.run(op).await.map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(answer, want, "{what}");
        let said = "2:unable to start container process: exec: \"/do\": executable file not found in $PATH\n";
        let expected = if what == "no such program" { said } else { "" };
        assert_eq!(lab.log().await, expected, "{what}");
    }
}

#[tokio::test]
async fn a_program_of_another_architecture_is_told_by_the_platform() {
    testkit::requires!(root);
    let wrong = || {
        Step::fails(ExecError::Start(StartError::Exec {
            path: "/do".into(),
            errno: 8,
        }))
    };
    let mut lab = Lab::new([wrong(), wrong()]);
    let native = lab.error(step([])).await;
    assert!(native.ends_with("exit code: 1"), "{native}");
    lab.platform = Some(pb::Platform {
        os: "linux".into(),
        architecture: "s390x".into(),
        ..pb::Platform::default()
    });
    let foreign = lab.run(step([])).await.unwrap_err();
    assert!(foreign.to_string().contains("linux/s390x"), "{foreign}");
}

#[tokio::test]
async fn a_failed_step_leaves_what_it_had_and_what_it_wrote_to_be_looked_at() {
    testkit::requires!(root);
    let lab = Lab::new([Step::exits(1).does(|mounts| {
        std::fs::write(mounts.host_path("/broken"), "").unwrap();
        std::fs::write(mounts.host_path("/out/half"), "").unwrap();
    })]);
    let out = pb::Mount {
        output: 1,
        ..mount("/out", pb::MountType::Bind)
    };
    let error = lab
        .run(step([mount("/t", pb::MountType::Tmpfs), out]))
        .await
        .unwrap_err();
    let OpFailure::Exec { inputs, mounts, .. } = failure(&error) else {
        panic!("{error:?}")
    };
    assert_eq!(inputs[0].as_ref().map(|r| r.id()), Some(lab.base.id()));
    assert_eq!((inputs.len(), mounts.len()), (3, 3));
    assert!(inputs[1].is_none() && inputs[2].is_none() && mounts[1].is_none());
    assert_eq!(names(&mounts[0]), ["base", "broken"]);
    assert_eq!(names(&mounts[2]), ["half"]);
}

#[tokio::test]
async fn steps_wait_for_their_turn_where_their_number_is_bounded() {
    testkit::requires!(root);
    let lab = Lab::with_parallelism(1, [Step::never_ends(), Step::exits(0)]);
    let mut first = Box::pin(lab.run(step([])));
    let mut second = Box::pin(lab.run(step([])));
    tokio::select! {
        _ = &mut first => panic!("it never ends"),
        () = lab.executor.wait_for_runs(1) => {}
    }
    for _ in 0..50 {
        assert!(futures::poll!(&mut second).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.executor.runs().len(), 1);
    drop(first);
    second.await.unwrap();
    assert_eq!((lab.executor.runs().len(), lab.executor.killed()), (2, 1));
}
