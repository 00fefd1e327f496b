//! Cache mounts of concurrent steps, and the cleanup after cancelled steps.

use std::future::Future;
use std::pin::Pin;

use llb::pb;
use llb::pb::CacheSharingOpt::{Locked, Private, Shared};
use ops::Ref;
use solver::OpError;
use testkit::executor::Step;
use testkit::session::MemorySession;

use crate::lab::{Lab, cache, layer, mount, step};

type Running<'a> = Pin<Box<dyn Future<Output = Result<Vec<Ref>, OpError>> + Send + 'a>>;

/// Drives a step until `count` runs have started in all.
async fn drive(lab: &Lab, running: &mut Running<'_>, count: usize) {
    tokio::select! {
        end = running => panic!("it ended: {end:?}"),
        () = lab.executor.wait_for_runs(count) => {}
    }
}

/// Lets everything run that can, and checks that the step waits and no further run has started.
async fn waits(lab: &Lab, running: &mut Running<'_>) {
    let runs = lab.executor.runs().len();
    for _ in 0..100 {
        assert!(futures::poll!(&mut *running).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.executor.runs().len(), runs, "it waits");
}

/// A step that writes `name` into the mount at `/cache` and checks which files it had.
fn adds(step: Step, name: &'static str, sees: &'static [&'static str]) -> Step {
    step.does(move |mounts| {
        assert_eq!(mounts.names("/cache"), sees, "what {name} finds");
        std::fs::write(mounts.host_path("/cache").join(name), "")
            .expect("the mount can be written");
    })
}

#[tokio::test]
async fn a_second_step_shares_waits_or_has_its_own_mount_by_the_sharing_mode() {
    testkit::requires!(root);
    // The modes of the running step and of the next, the files that the latter finds, and whether it waits for the former.
    let cases = [
        (Shared, Shared, &["first"][..], false),
        (Shared, Private, &[], false),
        (Shared, Locked, &["first"], true),
        (Private, Shared, &[], false),
        (Private, Private, &[], false),
        (Private, Locked, &["first"], true),
        (Locked, Shared, &[], false),
        (Locked, Private, &[], false),
        (Locked, Locked, &["first"], true),
    ];
    for (first, second, sees, is_waiting) in cases {
        let lab = Lab::new([
            adds(Step::never_ends(), "first", &[]),
            adds(Step::exits(0), "second", sees),
        ]);
        let run =
            |sharing| -> Running<'_> { Box::pin(lab.run(step([cache("/cache", "id", sharing)]))) };
        let mut holder = run(first);
        drive(&lab, &mut holder, 1).await;
        let mut next = run(second);
        if is_waiting {
            waits(&lab, &mut next).await;
            drop(holder);
            next.await.unwrap();
        } else {
            (&mut next).await.unwrap();
            drop(holder);
        }
        assert_eq!(lab.executor.runs().len(), 2, "{first:?} {second:?}");
    }
}

#[tokio::test]
async fn the_next_step_finds_the_files_of_the_last_in_every_mode() {
    testkit::requires!(root);
    for sharing in [Shared, Private, Locked] {
        let lab = Lab::new([
            adds(Step::exits(0), "one", &[]),
            adds(Step::exits(1), "two", &["one"]),
            adds(Step::exits(0), "three", &["one", "two"]),
        ]);
        let run = || lab.run(step([cache("/cache", "id", sharing)]));
        run().await.unwrap();
        run().await.unwrap_err();
        run().await.unwrap();
    }
}

#[tokio::test]
async fn a_step_does_not_wait_for_itself() {
    testkit::requires!(root);
    for sharing in [Shared, Private, Locked] {
        let lab = Lab::new([Step::exits(0).does(|mounts| {
            std::fs::write(mounts.host_path("/one/file"), "").unwrap();
            assert_eq!(mounts.names("/two"), ["file"]);
        })]);
        let mounts = [cache("/one", "id", sharing), cache("/two", "id", sharing)];
        lab.run(step(mounts)).await.unwrap();
    }
}

#[tokio::test]
async fn mounts_differ_by_id_and_by_input() {
    testkit::requires!(root);
    let lab = Lab::new([
        adds(Step::exits(0), "plain", &[]),
        adds(Step::exits(0), "named", &[]),
        adds(Step::exits(0), "seeded", &["base"]),
        adds(Step::exits(0), "again", &["base", "seeded"]),
        adds(Step::exits(0), "other", &["more"]),
        adds(Step::exits(0), "last", &["plain"]),
    ]);
    let more = layer(&lab.parts.store, None, &["more"]);
    let over = |input| pb::Mount {
        input,
        ..cache("/cache", "id", Locked)
    };
    let inputs = || vec![Some(lab.base.clone()), Some(more.clone())];
    for mount in [
        cache("/cache", "id", Locked),
        cache("/cache", "other", Locked),
        over(0),
        over(0),
        over(1),
        cache("/cache", "id", Locked),
    ] {
        lab.run_with(step([mount]), inputs()).await.unwrap();
    }
}

#[tokio::test]
async fn a_step_that_is_cancelled_while_it_waits_for_a_lock_leaves_no_record() {
    testkit::requires!(root);
    let lab = Lab::new([
        adds(Step::never_ends(), "first", &[]),
        adds(Step::exits(0), "third", &["first"]),
    ]);
    let run = || -> Running<'_> { Box::pin(lab.run(step([cache("/cache", "id", Locked)]))) };
    let mut holder = run();
    drive(&lab, &mut holder, 1).await;
    let records = lab.records();
    let mut waiting = run();
    waits(&lab, &mut waiting).await;
    let mut third = run();
    waits(&lab, &mut third).await;
    drop(waiting);
    waits(&lab, &mut third).await;
    drop(holder);
    third.await.unwrap();
    assert_eq!(lab.executor.killed(), 1);
    assert!(
        lab.records() <= records + 1,
        "its result is all that is new"
    );
}

#[tokio::test]
async fn a_step_that_is_cancelled_while_it_waits_for_its_second_lock_releases_the_first() {
    testkit::requires!(root);
    let lab = Lab::new([Step::never_ends(), Step::exits(0)]);
    let run = |ids: &[&str]| -> Running<'_> {
        let mounts: Vec<_> = ids
            .iter()
            .map(|id| cache(&format!("/{id}"), id, Locked))
            .collect();
        Box::pin(lab.run(step(mounts)))
    };
    let mut holder = run(&["b"]);
    drive(&lab, &mut holder, 1).await;
    let mut step_with_both = run(&["a", "b"]);
    waits(&lab, &mut step_with_both).await;
    drop(step_with_both);
    // `a` is free again, while `b` is still locked.
    run(&["a"]).await.unwrap();
    drop(holder);
}

/// Cancels a step at each of its stages; afterwards the same step runs, and the store is as before.
#[tokio::test]
async fn a_cancelled_step_leaves_nothing_at_any_stage() {
    testkit::requires!(root);
    let secret = pb::Mount {
        secret_opt: Some(pb::SecretOpt {
            id: "token".into(),
            ..pb::SecretOpt::default()
        }),
        ..mount("/secret", pb::MountType::Secret)
    };
    let ssh = pb::Mount {
        ssh_opt: Some(pb::SshOpt {
            id: "default".into(),
            ..pb::SshOpt::default()
        }),
        ..mount("/agent", pb::MountType::Ssh)
    };
    let out = pb::Mount {
        output: 1,
        ..mount("/out", pb::MountType::Bind)
    };
    let variable = pb::SecretEnv {
        id: "token".into(),
        name: "TOKEN".into(),
        optional: false,
    };
    for stage in ["secret of the environment", "secret", "agent", "process"] {
        let lab = Lab::new((stage == "process").then(Step::never_ends));
        let session = MemorySession::new("client");
        let session = if stage == "process" {
            session.secrets([("token", b"x")]).agents(["default"])
        } else {
            session.silent()
        };
        let client = lab.connect("client", session);
        let mounts = match stage {
            "secret" => vec![out.clone(), secret.clone()],
            "agent" => vec![out.clone(), ssh.clone()],
            _ => vec![out.clone(), secret.clone(), ssh.clone()],
        };
        let mut op = step(mounts);
        if stage == "secret of the environment" {
            op.secretenv = vec![variable.clone()];
        }
        let before = lab.records();
        let mut running: Running<'_> = Box::pin(lab.run(op));
        if stage == "process" {
            drive(&lab, &mut running, 1).await;
        } else {
            tokio::select! {
                end = &mut running => panic!("{stage}: {end:?}"),
                () = client.wait_for_calls(1) => {}
            }
        }
        drop(running);
        assert_eq!(lab.records(), before, "{stage}");
        assert_eq!(
            lab.executor.killed(),
            usize::from(stage == "process"),
            "{stage}"
        );
        let agents = std::fs::read_dir(lab.parts.store.root().join("agents"));
        let remaining = agents.map_or(0, Iterator::count);
        assert_eq!(remaining, 0, "{stage}: no socket remains");
        lab.executor.then(Step::exits(0));
        lab.run(step([out.clone()])).await.unwrap();
    }
}
