//! Steps: their rights, their outcomes, their results.

use executor::{Entitlements, ExecError, StartError};
use llb::pb;
use ops::OpFailure;
use testkit::executor::Step;

use crate::lab::{Lab, failure, layer, mount, names, root, step, step_with};

#[tokio::test]
async fn the_values_of_the_op_reach_the_container() {
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

#[tokio::test]
async fn rights_that_the_build_lacks_are_refused_before_anything_is_prepared() {
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
async fn results_have_the_order_of_the_outputs_and_read_only_inputs_pass_through() {
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
    let second_input = layer(&lab.parts.store, None, &["other"]);
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
    let inputs = vec![Some(lab.base.clone()), Some(second_input.clone())];
    let results = lab.run_with(op, inputs).await.unwrap();
    assert_eq!(names(&results[0]), ["base", "in-root"]);
    assert_eq!(names(&results[1]), ["b", "other"]);
    assert_eq!(results[2].as_ref().map(|r| r.id()), Some(second_input.id()));
    assert_eq!(names(&results[3]), ["c"]);
    assert_eq!(results.len(), 4);
    assert_eq!(
        names(&Some(second_input)),
        ["other"],
        "an input stays as it was"
    );
    assert_eq!(lab.log().await, "1:some\n2:thing\n");
}

#[tokio::test]
async fn the_op_decides_which_exit_codes_are_successes() {
    testkit::requires!(root);
    let not_in_path = || ExecError::Start(StartError::NotInPath { name: "/do".into() });
    let missing_source = || {
        ExecError::Start(StartError::Selector {
            dest: "/x".into(),
            selector: "/part".into(),
            errno: 2,
        })
    };
    let stopped = || ExecError::Stopped { id: "x".into() };
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
            Step::fails(stopped()),
            &[],
            Err(format!("{failed}container x has stopped")),
        ),
    ];
    for (case, end, valid, want) in cases {
        let lab = Lab::new([end]);
        let op = step_with(|meta| meta.valid_exit_codes = valid.to_vec());
        let answer = lab.run(op).await.map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(answer, want, "{case}");
        let expected = match case {
            "no such program" => {
                "2:unable to start container process: exec: \"/do\": executable file not found in $PATH\n"
            }
            "want of memory" | "want of memory is never wanted" => {
                "2:the kernel ended a process of this step because there was no memory left\n"
            }
            _ => "",
        };
        assert_eq!(lab.log().await, expected, "{case}");
    }
}

#[tokio::test]
async fn a_program_for_another_architecture_is_refused_with_its_platform() {
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
async fn clients_can_look_at_the_inputs_and_mounts_of_a_failed_step() {
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
async fn steps_wait_for_a_permit_if_their_number_is_limited() {
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

#[tokio::test]
async fn the_log_of_a_step_killed_for_memory_says_how_much_it_had() {
    testkit::requires!(root);
    let sentence = "2:the kernel ended a process of this step because there was no memory left";
    for (peak, limit, rest) in [
        (0, 0, ""),
        (0, 64, ": the step is limited to 64 MiB"),
        (63, 0, ": the step had 63 MiB and no limit of its own"),
        (63, 64, ": the step had 63 MiB and is limited to 64"),
    ] {
        let end = Step::runs_out_of_memory().has_memory_peak(peak << 20);
        let mut lab = Lab::new([end]);
        lab.resources.memory = limit << 20;
        lab.error(step([])).await;
        assert_eq!(lab.log().await, format!("{sentence}{rest}\n"));
    }
}

#[tokio::test]
async fn a_step_has_its_own_limit_up_to_the_daemon_s() {
    testkit::requires!(root);
    for (requested, bound, effective) in [(0, 9, 9), (5, 9, 5), (12, 9, 9), (5, 0, 5), (0, 0, 0)] {
        let limits = ops::StepLimits {
            resources: executor::Resources {
                memory: bound,
                ..executor::Resources::default()
            },
            ..ops::StepLimits::default()
        };
        let mut lab = Lab::with_limits(limits, [Step::exits(0)]);
        lab.resources.memory = requested;
        lab.run(step([])).await.unwrap();
        assert_eq!(lab.executor.runs()[0].resources.memory, effective);
    }
}
