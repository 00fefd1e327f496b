use super::*;

#[test]
fn hierarchies_are_found_on_unified_hybrid_and_bare_hosts() {
    let unified = "35 23 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
    assert!(Groups::parse(unified).unified());
    let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
    let groups = Groups::parse(hybrid);
    assert!(!groups.unified() && groups.v2.is_some());
    assert_eq!(
        groups.v1.get("cpuacct").unwrap(),
        Path::new("/sys/fs/cgroup/cpu")
    );
    assert!(Groups::parse("").v2.is_none());
}

#[test]
fn a_groups_parent_cannot_lead_out_of_the_hierarchy() {
    let id = ContainerId::new("abc").unwrap();
    assert_eq!(
        relative("../../x/./y/..", &id).unwrap(),
        Path::new("x/buildkit/abc")
    );
    assert_eq!(relative("", &id).unwrap(), Path::new("buildkit/abc"));
    assert_eq!(counter("low 0\noom 1\noom_kill 3\n", "oom_kill"), Some(3));
}

/// A hierarchy in a folder, with these controllers in the group `g`.
fn unified(controllers: &str) -> (tempfile::TempDir, Groups, Group) {
    let dir = tempfile::tempdir().unwrap();
    let group = dir.path().join("g");
    fs::create_dir(&group).unwrap();
    fs::write(group.join("cgroup.controllers"), controllers).unwrap();
    let groups = Groups {
        v2: Some(dir.path().to_owned()),
        ..Groups::default()
    };
    (dir, groups, group_with(Some(group)))
}

fn group_with(v2: Option<PathBuf>) -> Group {
    Group {
        v2,
        v1: Vec::new(),
        fd: None,
        procs: Vec::new(),
        limits_devices: false,
        shown: Vec::new(),
        oom_before: 0,
    }
}

/// The files of a folder but those that the kernel makes, as `name=contents`.
fn written(dir: &Path) -> Vec<String> {
    let mut files: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            !path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("cgroup.")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            format!("{name}={}", fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

type Set = fn(&mut Resources);

fn disk(read: u64, write: u64) -> Option<IoLimits> {
    Some(IoLimits {
        device: (8, 16),
        read,
        write,
    })
}

#[test]
fn limits_are_written_in_the_words_of_the_unified_hierarchy() {
    let cases: [(Set, &[&str]); 16] = [
        (|_| {}, &[]),
        (|l| l.io = disk(0, 7), &["io.max=8:16 rbps=max wbps=7"]),
        (|l| l.io = disk(5, 0), &["io.max=8:16 rbps=5 wbps=max"]),
        (|l| l.memory = 1 << 20, &["memory.max=1048576"]),
        (|l| l.memory = -1, &["memory.max=max"]),
        (
            |l| (l.memory, l.memory_swap) = (100, 300),
            &["memory.max=100", "memory.swap.max=200"],
        ),
        (
            |l| (l.memory, l.memory_swap) = (300, 100),
            &["memory.max=300", "memory.swap.max=0"],
        ),
        (|l| l.memory_swap = -1, &["memory.swap.max=max"]),
        (|l| l.cpu_shares = 1, &["cpu.weight=1"]),
        (|l| l.cpu_shares = 1024, &["cpu.weight=39"]),
        (|l| l.cpu_shares = u64::MAX, &["cpu.weight=10000"]),
        (|l| l.cpu_quota = 50_000, &["cpu.max=50000 100000"]),
        (
            |l| (l.cpu_quota, l.cpu_period) = (-1, 20_000),
            &["cpu.max=max 20000"],
        ),
        (|l| l.cpuset_cpus = "0-3,7".into(), &["cpuset.cpus=0-3,7"]),
        (|l| l.cpuset_mems = "0".into(), &["cpuset.mems=0"]),
        (|l| l.pids = 5, &["pids.max=5"]),
    ];
    for (set, files) in cases {
        let (dir, groups, mut group) = unified("cpuset cpu io memory pids");
        let mut limits = Resources::default();
        set(&mut limits);
        groups.limit(&mut group, Path::new("g"), &limits).unwrap();
        assert_eq!(written(&dir.path().join("g")), files);
        assert!(group.v1.is_empty());
    }
}

#[test]
fn limits_are_written_in_the_words_of_the_older_hierarchies() {
    let cases: [(Set, &str, &[&str]); 9] = [
        (
            |l| l.io = disk(5, 7),
            "blkio",
            &[
                "blkio.throttle.read_bps_device=8:16 5",
                "blkio.throttle.write_bps_device=8:16 7",
            ],
        ),
        (
            |l| l.io = disk(0, 7),
            "blkio",
            &["blkio.throttle.write_bps_device=8:16 7"],
        ),
        (
            |l| l.memory = 1 << 20,
            "memory",
            &["memory.limit_in_bytes=1048576"],
        ),
        (
            |l| l.memory_swap = -1,
            "memory",
            &["memory.memsw.limit_in_bytes=-1"],
        ),
        (|l| l.cpu_shares = 1024, "cpu", &["cpu.shares=1024"]),
        (
            |l| l.cpu_quota = 50_000,
            "cpu",
            &["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"],
        ),
        (
            |l| l.cpu_period = 20_000,
            "cpu",
            &["cpu.cfs_period_us=20000", "cpu.cfs_quota_us=-1"],
        ),
        (|l| l.pids = -1, "pids", &["pids.max=max"]),
        (|l| l.pids = 9, "pids", &["pids.max=9"]),
    ];
    for (set, controller, files) in cases {
        let dir = tempfile::tempdir().unwrap();
        let v1_dir = dir.path().join(controller).join("g");
        fs::create_dir_all(&v1_dir).unwrap();
        fs::write(v1_dir.join("cgroup.procs"), "").unwrap();
        let groups = Groups {
            v1: [(controller.to_owned(), dir.path().join(controller))].into(),
            ..Groups::default()
        };
        let mut group = group_with(None);
        let mut limits = Resources::default();
        set(&mut limits);
        groups.limit(&mut group, Path::new("g"), &limits).unwrap();
        assert_eq!(written(&v1_dir), files);
        assert_eq!(
            (group.v1.len(), group.procs.len()),
            (1, 1),
            "one group for each controller"
        );
    }
}

#[test]
fn a_limit_without_its_controller_is_an_error_that_names_it() {
    let cases: [(Set, &str); 5] = [
        (|l| l.io = disk(1, 1), "io"),
        (|l| l.memory = 1, "memory"),
        (|l| l.cpu_shares = 2, "cpu"),
        (|l| l.cpuset_cpus = "0".into(), "cpuset"),
        (|l| l.pids = 1, "pids"),
    ];
    for (set, controller) in cases {
        let (_dir, groups, mut group) = unified("rdma");
        let mut limits = Resources::default();
        set(&mut limits);
        let error = groups
            .limit(&mut group, Path::new("g"), &limits)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot limit {controller}: this host has no usable `{controller}` controller")
        );
        assert_eq!(error.kind(), oci::ErrorKind::Unsupported);
    }
}

#[test]
fn kills_and_the_peak_are_read_from_whichever_hierarchy_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let [new, old] = ["new", "old"].map(|name| dir.path().join(name));
    fs::create_dir(&new).unwrap();
    fs::create_dir(&old).unwrap();
    let mut group = group_with(Some(new.clone()));
    group.v1.push(old.clone());
    assert!(
        !group.out_of_memory() && group.memory_peak() == 0,
        "no files are no kills"
    );
    fs::write(new.join("memory.events"), "low 0\noom 4\noom_kill 0\n").unwrap();
    fs::write(new.join("memory.peak"), "4096\n").unwrap();
    assert!(!group.out_of_memory());
    fs::write(
        old.join("memory.oom_control"),
        "oom_kill_disable 0\noom_kill 2\n",
    )
    .unwrap();
    fs::write(old.join("memory.max_usage_in_bytes"), "8192\n").unwrap();
    assert!(group.out_of_memory());
    assert_eq!(group.memory_peak(), 8192);
    assert_eq!(counter("oom_kill_disable 1", "oom_kill"), None);
    assert_eq!(counter("oom_kill many", "oom_kill"), None);
}

#[test]
fn devices_are_named_in_the_words_of_the_older_controller() {
    for (rule, text) in [
        (DeviceRule::character(1, Some(3)), "c 1:3 rwm"),
        (DeviceRule::character(136, None), "c 136:* rwm"),
        (
            DeviceRule {
                block: true,
                major: 7,
                minor: Some(0),
                read: true,
                write: false,
            },
            "b 7:0 rm",
        ),
        (
            DeviceRule {
                read: false,
                ..DeviceRule::character(10, Some(200))
            },
            "c 10:200 wm",
        ),
    ] {
        assert_eq!(v1_rule(&rule), text);
    }
}

#[test]
fn a_group_that_is_being_left_is_removed_when_it_is_empty_and_not_waited_for_long() {
    for (busy, tries, removed) in [(0, 1, true), (3, 4, true), (99, 7, false)] {
        let count = std::cell::Cell::new(0);
        let result = remove_left(|| {
            count.set(count.get() + 1);
            if count.get() <= busy {
                Err(io::ErrorKind::ResourceBusy.into())
            } else {
                Ok(())
            }
        });
        assert_eq!((count.get(), result.is_ok()), (tries, removed));
    }
    let error = remove_left(|| Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_new_cpuset_starts_with_what_the_one_above_has() {
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("a/b");
    fs::create_dir_all(&below).unwrap();
    for (place, cpus, mems) in [("", "0-7", "0"), ("a", "", "1"), ("a/b", "", "")] {
        fs::write(dir.path().join(place).join("cpuset.cpus"), cpus).unwrap();
        fs::write(dir.path().join(place).join("cpuset.mems"), mems).unwrap();
    }
    inherit_cpuset(dir.path(), Path::new("a/b")).unwrap();
    let read = |name: &str| fs::read_to_string(below.join(name)).unwrap();
    assert_eq!(
        (read("cpuset.cpus"), read("cpuset.mems")),
        ("0-7".into(), "1".into())
    );
    let error = inherit_cpuset(dir.path(), Path::new("missing")).unwrap_err();
    assert!(error.to_string().contains("missing/cpuset.cpus"), "{error}");
}

#[test]
fn groups_that_a_container_made_go_with_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let group = dir.path().join("own");
    for below in ["a/b/c", "a/d", "e"] {
        fs::create_dir_all(group.join(below)).unwrap();
    }
    remove_groups(&group).unwrap();
    assert!(!group.exists() && dir.path().exists());
    assert_eq!(
        remove_groups(&group).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    // What does not go is told, and is not tried for ever.
    fs::create_dir_all(group.join("a")).unwrap();
    fs::write(group.join("a/file"), "").unwrap();
    assert!(remove_groups(&group).is_err());
}

#[test]
fn only_privileged_containers_see_groups_of_every_controller() {
    let dir = tempfile::tempdir().unwrap();
    let mut groups = Groups::default();
    for (controller, place) in [
        ("cpu", "cpu,cpuacct"),
        ("cpuacct", "cpu,cpuacct"),
        ("pids", "pids"),
    ] {
        let root = dir.path().join(place);
        fs::create_dir_all(root.join("buildkit/abc")).unwrap();
        // The kernel makes this file.
        fs::write(root.join("buildkit/abc/cgroup.procs"), "").unwrap();
        groups.v1.insert(controller.into(), root);
    }
    let id = ContainerId::new("abc").unwrap();
    let shown = |devices| {
        let group = groups
            .make("", &id, &Resources::default(), devices)
            .unwrap();
        let names: Vec<String> = group.shown.iter().map(|(name, _)| name.clone()).collect();
        let processes = group.procs.len();
        (names, processes)
    };
    assert_eq!(shown(Some(&[])), (Vec::new(), 0));
    let all = vec!["cpu,cpuacct".to_owned(), "pids".to_owned()];
    assert_eq!(shown(None), (all, 2));
}

#[test]
fn a_process_that_has_made_room_before_uses_the_same_group_again() {
    for (own, expected) in [
        ("user.slice/app.scope", "user.slice/app.scope"),
        ("user.slice/app.scope/init", "user.slice/app.scope"),
        ("user.slice/app.scope/init/", "user.slice/app.scope"),
        ("user.slice/myinit", "user.slice/myinit"),
        ("init/app.scope", "init/app.scope"),
        ("init", ""),
        ("", ""),
    ] {
        assert_eq!(delegated(own), expected, "{own}");
    }
}

#[test]
fn the_delegated_group_is_found_again_and_one_that_nobody_delegated_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let scope = dir.path().join("app.scope");
    fs::create_dir_all(scope.join("init")).unwrap();
    let kept = |own: &str| {
        let mut groups = Groups {
            v2: Some(dir.path().to_owned()),
            ..Groups::default()
        };
        groups.keep_delegated(own);
        groups.v2
    };
    assert_eq!(kept("0::/app.scope\n"), None, "nobody may write there");
    fs::write(scope.join("cgroup.procs"), "").unwrap();
    for own in ["0::/app.scope\n", "0::/app.scope/init\n"] {
        assert_eq!(kept(own).as_ref(), Some(&scope), "{own}");
    }
    // A scope that is itself called so, in somebody else's group.
    let scope = dir.path().join("other/init");
    fs::create_dir_all(&scope).unwrap();
    fs::write(scope.join("cgroup.procs"), "").unwrap();
    assert_eq!(kept("0::/other/init\n"), Some(scope));
}
