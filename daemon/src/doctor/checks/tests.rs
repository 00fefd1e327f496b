use super::super::{Cgroups, Helper, Report, State};
use super::*;

fn good() -> Facts {
    let helper = Helper {
        path: Some("/usr/bin/newuidmap".into()),
        privileged: true,
    };
    Facts {
        release: "6.18.44".to_owned(),
        uid: 0,
        name: "root".to_owned(),
        nested: false,
        userns_clone: None,
        max_userns: Some("96365".to_owned()),
        apparmor_restricts: None,
        helpers: [helper.clone(), helper],
        entered: None,
        ids: 1 << 32,
        overlay: Ok(()),
        proc: Ok(()),
        namespaces: Ok(()),
        nftables: Ok(()),
        cgroups: Cgroups {
            v2: true,
            v1: false,
            delegated: true,
            controllers: vec!["memory".to_owned(), "pids".to_owned()],
        },
        root: "/var/lib/rbuild".into(),
        free: Some(100 << 30),
        git: true,
        tun: Ok(()),
        own_network: true,
        carriers: Vec::new(),
        emulators: vec!["aarch64".to_owned()],
    }
}

fn users(ids: u64) -> Facts {
    let entered = if ids == 1 {
        Entered::Alone {
            why: "/etc/subuid has no line for eve".to_owned(),
        }
    } else {
        Entered::Mapped { ids: 65537 }
    };
    Facts {
        uid: 1000,
        name: "eve".to_owned(),
        entered: Some(Ok(entered)),
        ids,
        own_network: false,
        carriers: vec!["pasta"],
        ..good()
    }
}

#[test]
fn a_host_with_everything_lacks_nothing() {
    for facts in [good(), users(65537)] {
        let report = Report::of(&facts);
        let lacks: Vec<_> = report
            .findings
            .iter()
            .filter(|(_, finding)| finding.state != State::Good)
            .collect();
        assert!(lacks.is_empty(), "{lacks:?}");
        assert!(report.can_build());
    }
}

/// Each row: what is missing, the check that says so, whether builds still run, and words of the line that mends it.
#[test]
fn each_missing_precondition_is_named_with_the_line_that_mends_it() {
    let refused = || Err("operation not permitted".to_owned());
    let without_namespace = |change: fn(&mut Facts)| {
        let mut facts = Facts {
            entered: Some(Err("the kernel makes no user namespace".to_owned())),
            ..users(1)
        };
        change(&mut facts);
        facts
    };
    let with = |base: Facts, change: fn(&mut Facts)| {
        let mut facts = base;
        change(&mut facts);
        facts
    };
    let rows: Vec<(Facts, &str, State, &str)> = vec![
        (
            with(good(), |f| f.release = "5.10.0-8-amd64".into()),
            "kernel",
            State::Fatal,
            "5.12",
        ),
        (
            without_namespace(|f| f.userns_clone = Some("0".into())),
            "root",
            State::Fatal,
            "kernel.unprivileged_userns_clone=1",
        ),
        (
            without_namespace(|f| f.max_userns = Some("0".into())),
            "root",
            State::Fatal,
            "user.max_user_namespaces",
        ),
        (
            without_namespace(|f| f.apparmor_restricts = Some("1".into())),
            "root",
            State::Fatal,
            "apparmor_restrict_unprivileged_userns=0",
        ),
        (
            without_namespace(|_| {}),
            "root",
            State::Fatal,
            "seccomp=unconfined",
        ),
        (
            users(1),
            "subordinate ids",
            State::Missing,
            "eve:100000:65536",
        ),
        (
            users(1000),
            "subordinate ids",
            State::Missing,
            "/etc/subgid",
        ),
        (
            with(users(1), |f| f.helpers = Default::default()),
            "newuidmap, newgidmap",
            State::Missing,
            "install uidmap",
        ),
        (
            with(users(1), |f| {
                f.helpers.iter_mut().for_each(|h| h.privileged = false)
            }),
            "newuidmap, newgidmap",
            State::Missing,
            "chmod u+s",
        ),
        (
            Facts {
                namespaces: refused(),
                ..good()
            },
            "namespaces of steps",
            State::Fatal,
            "--privileged",
        ),
        (
            Facts {
                namespaces: refused(),
                apparmor_restricts: Some("1".into()),
                ..users(65537)
            },
            "namespaces of steps",
            State::Fatal,
            "AppArmor",
        ),
        (
            Facts {
                overlay: refused(),
                ..good()
            },
            "overlay",
            State::Missing,
            "RBUILD_ROOT",
        ),
        (
            Facts {
                proc: refused(),
                ..users(65537)
            },
            "proc of steps",
            State::Missing,
            "systempaths=unconfined",
        ),
        (
            with(good(), |f| f.release = "6.1.0".into()),
            "users of steps",
            State::Missing,
            "6.15",
        ),
        (
            with(users(65537), |f| f.cgroups.delegated = false),
            "control groups",
            State::Missing,
            "Delegate=yes",
        ),
        (
            with(good(), |f| f.cgroups = Cgroups::default()),
            "control groups",
            State::Missing,
            "unified_cgroup_hierarchy",
        ),
        (
            with(users(65537), |f| f.carriers.clear()),
            "bridge network",
            State::Missing,
            "install passt",
        ),
        (
            Facts {
                nftables: refused(),
                ..good()
            },
            "bridge network",
            State::Missing,
            "nf_tables",
        ),
        (
            Facts {
                tun: refused(),
                ..users(65537)
            },
            "tun device",
            State::Missing,
            "/dev/net/tun",
        ),
        (
            with(good(), |f| f.git = false),
            "git",
            State::Missing,
            "install git",
        ),
        (
            with(good(), |f| f.emulators.clear()),
            "other platforms",
            State::Missing,
            "qemu-user-static",
        ),
        (
            with(good(), |f| f.free = Some(1 << 20)),
            "disk",
            State::Missing,
            "prune",
        ),
    ];
    for (facts, name, state, remedy) in rows {
        let report = Report::of(&facts);
        let (_, finding) = report
            .findings
            .iter()
            .find(|(check, _)| *check == name)
            .unwrap();
        assert_eq!(finding.state, state, "{name}: {finding:?}");
        assert!(
            finding.remedy.contains(remedy),
            "{name}: {remedy}: {finding:?}"
        );
        assert_eq!(report.can_build(), state != State::Fatal, "{name}");
        assert!(
            state == State::Fatal || !finding.instead.is_empty(),
            "{name} says what is used instead"
        );
    }
}

#[test]
fn what_does_not_matter_is_not_told() {
    let names = |facts: &Facts| -> Vec<&str> {
        Report::of(facts)
            .findings
            .iter()
            .map(|(name, _)| *name)
            .collect()
    };
    let root = names(&good());
    for rootless in ["subordinate ids", "newuidmap, newgidmap", "tun device"] {
        assert!(!root.contains(&rootless), "{rootless}");
        assert!(names(&users(1)).contains(&rootless), "{rootless}");
    }
    let pod = Facts {
        nested: true,
        ..good()
    };
    assert!(
        !names(&pod).contains(&"newuidmap, newgidmap"),
        "its ids are mapped by somebody else"
    );
}
