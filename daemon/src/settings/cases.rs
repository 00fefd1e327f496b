//! Settings as cases: what each flag and key changes, the rules of collection, and what is refused.

use std::time::Duration;

use clap::Parser as _;

use super::file::{File, UNSUPPORTED, keys};
use super::*;

fn try_resolve(args: &[&str], text: &str) -> Result<Settings, String> {
    let args = Args::try_parse_from(std::iter::once("buildkitd").chain(args.iter().copied()))
        .map_err(|e| e.to_string())?;
    let (file, warnings) = File::parse(text).map_err(|e| e.to_string())?;
    Settings::resolve(&args, file, warnings, &Defaults::of("buildkitd")).map_err(|e| e.to_string())
}

fn resolve(args: &[&str], text: &str) -> Settings {
    try_resolve(args, text).unwrap()
}

const UNSET: DiskSpace = DiskSpace::Unset;

fn space(rule: &GcPolicy) -> [DiskSpace; 3] {
    [rule.reserved, rule.max_used, rule.min_free]
}

#[test]
fn without_rules_those_of_buildkit_hold_with_the_space_that_was_given() {
    let gb: u64 = 1_000_000_000;
    let smaller = |percent, gigabytes| DiskSpace::Smaller {
        percent,
        bytes: gigabytes * gb,
    };
    let built_in = [smaller(10, 10), smaller(80, 100), DiskSpace::Percent(20)];
    let mb = |n: u64| DiskSpace::Bytes(n * 1_000_000);
    let oci = |keys: &str| format!("[worker.oci]\n{keys}\n");
    // Reserved, most used, least free.
    let cases: Vec<(&[&str], String, [DiskSpace; 3])> = vec![
        (&[], String::new(), built_in),
        (
            &[],
            oci("reservedSpace = \"1GB\""),
            [DiskSpace::Bytes(1 << 30), UNSET, UNSET],
        ),
        (
            &[],
            oci("gckeepstorage = \"1GB\""),
            [DiskSpace::Bytes(1 << 30), UNSET, UNSET],
        ),
        (
            &[],
            oci("maxUsedSpace = \"50%\""),
            [UNSET, DiskSpace::Percent(50), UNSET],
        ),
        (
            &[],
            oci("minFreeSpace = 7"),
            [UNSET, UNSET, DiskSpace::Bytes(7)],
        ),
        (
            &[],
            oci(
                "reservedSpace = \"1%\"\nmaxUsedSpace = \"2%\"\nminFreeSpace = \"3%\"\ngckeepstorage = \"4%\"",
            ),
            [
                DiskSpace::Percent(1),
                DiskSpace::Percent(2),
                DiskSpace::Percent(3),
            ],
        ),
        (
            &["--oci-worker-gc-keepstorage=100"],
            String::new(),
            [mb(100), UNSET, UNSET],
        ),
        (
            &["--oci-worker-gc-keepstorage=100,20%,300"],
            String::new(),
            [mb(100), mb(300), DiskSpace::Percent(20)],
        ),
        (
            &["--oci-worker-gc-keepstorage=,,300"],
            String::new(),
            [UNSET, mb(300), UNSET],
        ),
        (
            &["--oci-worker-gc-keepstorage=1"],
            oci("reservedSpace = \"9%\"\nminFreeSpace = \"9%\""),
            [mb(1), UNSET, UNSET],
        ),
    ];
    for (args, text, want) in cases {
        let rules = resolve(args, &text).worker.gc_policies;
        let what = format!("{args:?} {text}");
        assert_eq!(rules.len(), 4, "{what}");
        let shape: Vec<_> = rules
            .iter()
            .map(|r| (r.all, r.keep_duration.as_secs() / 3600))
            .collect();
        assert_eq!(
            shape,
            [(false, 48), (false, 24 * 60), (false, 0), (true, 0)],
            "{what}"
        );
        assert_eq!(
            rules[0].filters,
            [
                "type==source.local",
                "type==exec.cachemount",
                "type==source.git.checkout"
            ]
        );
        assert_eq!(
            space(&rules[0]),
            [UNSET, mb(512), UNSET],
            "{what}: what is cheap to have again"
        );
        for rule in &rules[1..] {
            assert_eq!(space(rule), want, "{what}");
            assert_eq!(rule.filters, Vec::<String>::new());
        }
    }
}

#[test]
fn written_rules_replace_all_the_others() {
    let text = "[worker.oci]\nreservedSpace = \"9%\"\n[[worker.oci.gcpolicy]]\nall = true\nkeepDuration = 90\n\
        [[worker.oci.gcpolicy]]\nkeepBytes = \"1KB\"\nmaxUsedSpace = \"2KB\"\nminFreeSpace = \"3KB\"\nfilters = [\"a\", \"b\"]\n";
    let rules = resolve(&["--oci-worker-gc-keepstorage=1"], text)
        .worker
        .gc_policies;
    let kb = |n: u64| DiskSpace::Bytes(n << 10);
    assert_eq!(
        rules,
        [
            GcPolicy {
                all: true,
                filters: vec![],
                keep_duration: Duration::from_secs(90),
                reserved: UNSET,
                max_used: UNSET,
                min_free: UNSET,
            },
            GcPolicy {
                all: false,
                filters: vec!["a".into(), "b".into()],
                keep_duration: Duration::ZERO,
                reserved: kb(1),
                max_used: kb(2),
                min_free: kb(3),
            },
        ]
    );
    let both = "[[worker.oci.gcpolicy]]\nkeepBytes = 1\nreservedSpace = 2\n";
    let rules = resolve(&[], both).worker.gc_policies;
    assert_eq!(
        rules[0].reserved,
        DiskSpace::Bytes(2),
        "the newer name counts"
    );
}

#[test]
fn what_nothing_is_said_about_has_its_default() {
    let s = resolve(&[], "");
    assert_eq!(s.addresses, ["unix:///run/buildkit/buildkitd.sock"]);
    assert_eq!((s.log_level.as_str(), s.log_json), ("info", false));
    assert_eq!(
        (s.history.max_age.as_secs(), s.history.max_entries),
        (48 * 3600, 50)
    );
    assert_eq!(
        s.provenance_env,
        PathBuf::from("/etc/buildkit/provenance.d")
    );
    assert!(s.tls.is_none() && s.debug_address.is_none() && s.otel_socket.is_none());
    assert!(s.dockerfile_enabled && s.gateway_enabled && s.builtin_syntax);
    assert!(s.worker.enabled && s.worker.gc && s.worker.binary.is_none());
    assert_eq!(s.worker.max_parallelism, 0);
    assert_eq!(
        (s.worker.snapshotter.as_str(), s.worker.network.as_deref()),
        ("auto", None)
    );
    let bridge = &s.worker.bridge;
    assert!(bridge.name.is_none() && bridge.subnet.is_none() && !bridge.reveal_metadata);
    assert_eq!(bridge.pool_size, 2);
    let cni = "CniSettings { config: \"/etc/buildkit/cni.json\", folders: [\"/opt/cni/bin\", \"/usr/lib/cni\", \"/usr/libexec/cni\"] }";
    assert_eq!(format!("{:?}", s.worker.cni), cni);
    assert_eq!(s.entitlements, ["device"]);
    assert!(!s.allow_insecure_loopback && !s.worker.no_process_sandbox);
    assert!(s.warnings.is_empty());
}

/// What a case looks at, as words.
type Look = fn(&Settings) -> String;

#[test]
fn each_flag_lies_over_its_key() {
    let cases: &[(&str, &[&str], Look, [&str; 2])] = &[
        (
            "root = \"/file\"",
            &["--root=/flag"],
            |s| s.root.display().to_string(),
            ["/file", "/flag"],
        ),
        (
            "[grpc]\naddress = [\"unix:///f\"]",
            &["--addr=tcp://a", "--addr=fd://"],
            |s| s.addresses.join(" "),
            ["unix:///f", "tcp://a fd://"],
        ),
        (
            "[grpc]\ndebugAddress = \"f:1\"",
            &["--debugaddr=g:1"],
            |s| s.debug_address.clone().unwrap(),
            ["f:1", "g:1"],
        ),
        (
            "[grpc]\nallowInsecureDebugAddress = true",
            &["--allow-insecure-debugaddr"],
            |s| s.allow_insecure_debug_address.to_string(),
            ["true", "true"],
        ),
        (
            "[drain]\ntimeout = \"1m\"",
            &["--drain-timeout=1500ms"],
            |s| format!("{:?}", s.drain_timeout),
            ["60s", "1.5s"],
        ),
        (
            "[grpc]\nallowInsecureLoopback = true",
            &["--allow-insecure-loopback"],
            |s| s.allow_insecure_loopback.to_string(),
            ["true", "true"],
        ),
        (
            "[grpc]\ngid = 5",
            &["--group=7"],
            |s| format!("{:?}", s.socket_owner),
            ["(None, Some(5))", "(None, Some(7))"],
        ),
        (
            "[log]\nlevel = \"warn\"",
            &["--log-level=error"],
            |s| s.log_level.clone(),
            ["warn", "error"],
        ),
        (
            "[log]\nformat = \"text\"",
            &["--log-format=json"],
            |s| s.log_json.to_string(),
            ["false", "true"],
        ),
        (
            "[otel]\nsocketPath = \"/f\"",
            &["--otel-socket-path=/g"],
            |s| s.otel_socket.clone().unwrap().display().to_string(),
            ["/f", "/g"],
        ),
        (
            "insecure-entitlements = [\"network.host\"]",
            &["--allow-insecure-entitlement=security.insecure"],
            |s| s.entitlements.join(" "),
            ["network.host device", "security.insecure device"],
        ),
        (
            "[cdi]\nspecDirs = [\"/f\"]",
            &["--cdi-spec-dir=/g"],
            |s| format!("{:?}", s.cdi.as_ref().unwrap().spec_dirs),
            ["[\"/f\"]", "[\"/g\"]"],
        ),
        (
            "[cdi]\ndisabled = true",
            &["--cdi-disabled=false"],
            |s| s.cdi.is_some().to_string(),
            ["false", "true"],
        ),
        (
            "[worker.oci]\ngc = false",
            &["--oci-worker-gc"],
            |s| s.worker.gc.to_string(),
            ["false", "true"],
        ),
        (
            "[worker.oci]\nenabled = false",
            &["--oci-worker=true"],
            |s| s.worker.enabled.to_string(),
            ["false", "true"],
        ),
        (
            "[worker.oci]\nenabled = true",
            &["--oci-worker=0"],
            |s| s.worker.enabled.to_string(),
            ["true", "false"],
        ),
        (
            "[worker.oci]\nsnapshotter = \"native\"",
            &["--oci-worker-snapshotter=overlayfs"],
            |s| s.worker.snapshotter.clone(),
            ["native", "overlayfs"],
        ),
        (
            "[worker.oci]\nplatforms = [\"linux/a\"]",
            &["--oci-worker-platform=linux/b"],
            |s| s.worker.platforms.join(" "),
            ["linux/a", "linux/b"],
        ),
        (
            "[worker.oci]\nnetworkMode = \"host\"",
            &["--oci-worker-net=none"],
            |s| s.worker.network.clone().unwrap(),
            ["host", "none"],
        ),
        (
            "[worker.oci]\nnetworkMode = \"bridge\"\nbridgeName = \"b0\"\nbridgeSubnet = \"10.9.0.0/16\"\nbridgeMetadata = true\ncniPoolSize = 7",
            &["--oci-worker-net=bridge"],
            |s| {
                format!(
                    "{} {:?}",
                    s.worker.network.as_deref().unwrap(),
                    s.worker.bridge
                )
            },
            [
                "bridge BridgeSettings { name: Some(\"b0\"), subnet: Some(\"10.9.0.0/16\"), pool_size: 7, reveal_metadata: true, uplink: Auto }",
                "bridge BridgeSettings { name: Some(\"b0\"), subnet: Some(\"10.9.0.0/16\"), pool_size: 7, reveal_metadata: true, uplink: Auto }",
            ],
        ),
        (
            "[worker.oci]\ncniConfigPath = \"/a\"\ncniBinaryPath = \"/b\"\ncniPoolSize = 7",
            &[
                "--oci-cni-config-path=/c",
                "--oci-cni-binary-dir=/d",
                "--oci-cni-pool-size=8",
            ],
            |s| format!("{:?} {}", s.worker.cni, s.worker.bridge.pool_size),
            [
                "CniSettings { config: \"/a\", folders: [\"/b\"] } 7",
                "CniSettings { config: \"/c\", folders: [\"/d\"] } 8",
            ],
        ),
        (
            "[worker.oci]\nbinary = \"runc\"",
            &["--oci-worker-binary=crun"],
            |s| s.worker.binary.clone().unwrap(),
            ["runc", "crun"],
        ),
        (
            "[worker.oci]\nmax-parallelism = 3",
            &["--oci-max-parallelism=4"],
            |s| s.worker.max_parallelism.to_string(),
            ["3", "4"],
        ),
        (
            "[worker.oci]\nnoProcessSandbox = true",
            &["--oci-worker-no-process-sandbox"],
            |s| s.worker.no_process_sandbox.to_string(),
            ["true", "true"],
        ),
        (
            "[worker.oci.labels]\na = \"file\"\nb = \"file\"",
            &["--oci-worker-labels=a=flag", "--oci-worker-labels=c=x=y"],
            |s| format!("{:?}", s.worker.labels.values().collect::<Vec<_>>()),
            ["[\"file\", \"file\"]", "[\"flag\", \"file\", \"x=y\"]"],
        ),
    ];
    for (text, flags, look, [from_file, from_flag]) in cases {
        assert_eq!(look(&resolve(&[], text)), *from_file, "{text}");
        assert_eq!(look(&resolve(flags, text)), *from_flag, "{text} {flags:?}");
    }
}

#[test]
fn keys_without_a_flag_are_read() {
    let cases: &[(&str, Look, &str)] = &[
        (
            "provenanceEnvDir = \"/p\"",
            |s| s.provenance_env.display().to_string(),
            "/p",
        ),
        (
            "[history]\nmaxAge = \"1h\"",
            |s| s.history.max_age.as_secs().to_string(),
            "3600",
        ),
        (
            "[history]\nmaxEntries = 3",
            |s| s.history.max_entries.to_string(),
            "3",
        ),
        (
            "[frontend.\"dockerfile.v0\"]\nenabled = false",
            |s| s.dockerfile_enabled.to_string(),
            "false",
        ),
        (
            "[frontend.\"dockerfile.v0\"]\nbuiltinSyntax = false",
            |s| s.builtin_syntax.to_string(),
            "false",
        ),
        (
            "[frontend.\"gateway.v0\"]\nenabled = false",
            |s| s.gateway_enabled.to_string(),
            "false",
        ),
        (
            "[frontend.\"gateway.v0\"]\nallowedRepositories = [\"a\", \"b\"]",
            |s| s.gateway_repositories.join(" "),
            "a b",
        ),
        (
            "[system]\nmaxRegistryConcurrency = 9",
            |s| format!("{:?}", s.max_registry_concurrency),
            "Some(9)",
        ),
        (
            "[grpc]\nuid = 4",
            |s| format!("{:?}", s.socket_owner),
            "(Some(4), None)",
        ),
        (
            "[worker.oci]\ndefaultCgroupParent = \"/x\"",
            |s| s.worker.cgroup_parent.clone(),
            "/x",
        ),
        (
            "[worker.oci]\nacceptedBinaryVersions = [\"1.0\"]",
            |s| s.worker.accepted_binary_versions.join(" "),
            "1.0",
        ),
        (
            "[worker.oci]\nbinary = \"\"",
            |s| format!("{:?}", s.worker.binary),
            "None",
        ),
        (
            "[grpc]\ndebugAddress = \"\"",
            |s| format!("{:?}", s.debug_address),
            "None",
        ),
        ("debug = true", |s| s.log_level.clone(), "debug"),
        (
            "trace = true\ndebug = true",
            |s| s.log_level.clone(),
            "trace",
        ),
        (
            "[dns]\nnameservers = [\"1.1.1.1\"]",
            |s| s.dns.as_ref().unwrap().nameservers.join(" "),
            "1.1.1.1",
        ),
    ];
    for (text, look, want) in cases {
        assert_eq!(look(&resolve(&[], text)), *want, "{text}");
    }
    assert_eq!(
        resolve(&["--log-level=warn"], "debug = true").log_level,
        "warn"
    );
    assert_eq!(
        resolve(&["--log-level=warn", "--debug"], "").log_level,
        "debug"
    );
}

#[test]
fn settings_that_make_no_sense_are_refused_with_their_name() {
    let cases: &[(&[&str], &str, &str)] = &[
        (&["--log-level=loud"], "", "unsupported log level \"loud\""),
        (&["--log-format=xml"], "", "unsupported log type \"xml\""),
        (
            &["--oci-worker-labels=novalue"],
            "",
            "--oci-worker-labels: expected key=value",
        ),
        (
            &["--tlscert=c"],
            "",
            "--tlskey: a certificate needs its key",
        ),
        (
            &["--tlskey=k"],
            "",
            "--tlscert: a key needs its certificate",
        ),
        (
            &[],
            "[grpc.tls]\ncert = \"c\"",
            "--tlskey: a certificate needs its key",
        ),
        (
            &["--oci-worker-gc-keepstorage=many"],
            "",
            "--oci-worker-gc-keepstorage:",
        ),
        (&["--oci-worker-user-namespaces=perhaps"], "", "perhaps"),
        (&["--isolation=all"], "", "all"),
        (&["--group=no such group"], "", "no such group"),
        (
            &[],
            "[worker.oci]\nmax-parallelism = \"many\"",
            "max-parallelism",
        ),
        (
            &[],
            "[worker.oci]\nreservedSpace = \"many\"",
            "reservedSpace",
        ),
        (&[], "[history]\nmaxAge = \"3 apples\"", "maxAge"),
        (&[], "root = ", "root"),
    ];
    for (args, text, want) in cases {
        let error = try_resolve(args, text).unwrap_err();
        assert!(error.contains(want), "{args:?} {text}: {error}");
    }
    let both = "[grpc.tls]\ncert = \"c\"\nkey = \"k\"\nca = \"\"";
    assert!(resolve(&[], both).tls.unwrap().ca.is_none());
}

#[test]
fn keys_that_mean_nothing_here_are_named_and_do_not_stop_the_daemon() {
    let unsupported = |key: &str| {
        format!(
            "configuration key {key} (line 2) is known to buildkitd but not supported here, ignored"
        )
    };
    let unknown = |key: &str, near: &str| {
        format!("unknown configuration key {key} (line 2), did you mean {near}?")
    };
    for (text, want) in [
        ("", vec![]),
        (
            "[worker.oci]\nrootless = true",
            vec![unsupported("worker.oci.rootless")],
        ),
        (
            "[worker.containerd]\naddress = \"x\"",
            vec![unsupported("worker.containerd.address")],
        ),
        (
            "[worker.containerdx]\naddress = \"x\"",
            vec![unknown("worker.containerdx.address", "worker.oci.labels.*")],
        ),
        ("\nrot = \"/x\"", vec![unknown("rot", "root")]),
        (
            "[grpc]\nadress = \"x\"",
            vec![unknown("grpc.adress", "grpc.address")],
        ),
        (
            "[registry.\"a.b\"]\nhtp = true",
            vec![unknown("registry.*.htp", "registry.*.http")],
        ),
        (
            "[[worker.oci.gcpolicy]]\nal = true",
            vec![unknown("worker.oci.gcpolicy.al", "worker.oci.gcpolicy.all")],
        ),
        ("[worker.oci.labels]\n\"any thing\" = \"x\"", vec![]),
    ] {
        let (_, warnings) = File::parse(text).unwrap();
        if text.contains("containerdx") {
            assert!(
                warnings[0].starts_with("unknown configuration key worker.containerdx.address"),
                "{warnings:?}"
            );
            continue;
        }
        assert_eq!(warnings, want, "{text}");
    }
    let on = resolve(&[], "[worker.containerd]\nenabled = true");
    assert_eq!(on.warnings.len(), 1, "{:?}", on.warnings);
}

#[test]
fn every_key_is_listed_once() {
    let keys = keys();
    let supported = keys.iter().map(|key| key.path.as_str());
    let mut names: Vec<&str> = supported.chain(UNSUPPORTED.iter().copied()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(keys.iter().all(|key| !key.meaning.is_empty()));
}

#[test]
fn the_name_of_the_program_chooses_the_paths() {
    for (program, root, config) in [
        (
            "buildkitd",
            "/var/lib/buildkit",
            "/etc/buildkit/buildkitd.toml",
        ),
        (
            "/usr/bin/buildkitd",
            "/var/lib/buildkit",
            "/etc/buildkit/buildkitd.toml",
        ),
        ("rbuildd", "/var/lib/rbuild", "/etc/rbuild/rbuildd.toml"),
        ("anything", "/var/lib/rbuild", "/etc/rbuild/rbuildd.toml"),
    ] {
        let defaults = Defaults::of(program);
        assert_eq!(defaults.root, PathBuf::from(root), "{program}");
        assert_eq!(defaults.config, PathBuf::from(config), "{program}");
        assert_eq!(defaults.cdi.len(), 3);
    }
}

#[test]
fn a_file_that_is_named_must_be_there_and_the_default_one_need_not() {
    let dir = tempfile::tempdir().unwrap();
    let defaults = Defaults {
        config: dir.path().join("none.toml"),
        ..Defaults::of("buildkitd")
    };
    let load = |args: &[&str]| {
        let args = Args::parse_from(std::iter::once("buildkitd").chain(args.iter().copied()));
        Settings::load(&args, &defaults).map_err(|e| e.to_string())
    };
    assert_eq!(load(&[]).unwrap().root, PathBuf::from("/var/lib/buildkit"));
    let missing = dir.path().join("missing.toml").display().to_string();
    let error = load(&["--config", &missing]).unwrap_err();
    assert!(
        error.contains("cannot read the configuration") && error.contains(&missing),
        "{error}"
    );
    let there = dir.path().join("there.toml");
    std::fs::write(&there, "root = \"/x\"").unwrap();
    let there = there.display().to_string();
    assert_eq!(
        load(&["--config", &there]).unwrap().root,
        PathBuf::from("/x")
    );
    std::fs::write(&there, "root = 3").unwrap();
    let error = load(&["--config", &there]).unwrap_err();
    assert!(error.contains(&there) && error.contains("root"), "{error}");
}
