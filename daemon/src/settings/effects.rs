//! Every declared key and flag changes a setting, or stands in a list of those that are only read.

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _};

use super::file::{File, keys};
use super::*;

fn settings(args: &[&str], text: &str) -> Settings {
    let args = Args::try_parse_from(std::iter::once("buildkitd").chain(args.iter().copied()))
        .unwrap_or_else(|error| panic!("{args:?}: {error}"));
    let (file, warnings) = File::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Settings::resolve(&args, file, warnings, &Defaults::of("buildkitd"))
        .unwrap_or_else(|error| panic!("{args:?} {text}: {error}"))
}

/// A file with each key set to something that is not its default; `*` is called `x`.
const SET: &[(&str, &str)] = &[
    ("debug", "debug = true"),
    ("trace", "trace = true"),
    ("root", "root = '/x'"),
    ("isolation", "isolation = 'client'"),
    (
        "insecure-entitlements",
        "insecure-entitlements = ['network.host']",
    ),
    ("provenanceEnvDir", "provenanceEnvDir = '/x'"),
    ("proxyNetwork", "proxyNetwork = true"),
    ("proxyNetworkAllow", "proxyNetworkAllow = ['x']"),
    ("log.format", "log.format = 'json'"),
    ("log.level", "log.level = 'warn'"),
    ("grpc.address", "grpc.address = ['unix:///x']"),
    ("grpc.debugAddress", "grpc.debugAddress = 'x:1'"),
    (
        "grpc.allowInsecureDebugAddress",
        "grpc.allowInsecureDebugAddress = true",
    ),
    ("drain.timeout", "drain.timeout = '1m'"),
    ("grpc.uid", "grpc.uid = 7"),
    ("grpc.gid", "grpc.gid = 7"),
    (
        "grpc.allowInsecureLoopback",
        "grpc.allowInsecureLoopback = true",
    ),
    ("grpc.tls.cert", "grpc.tls = { cert = '/c', key = '/k' }"),
    ("grpc.tls.key", "grpc.tls = { cert = '/c', key = '/k' }"),
    (
        "grpc.tls.ca",
        "grpc.tls = { cert = '/c', key = '/k', ca = '/a' }",
    ),
    ("otel.socketPath", "otel.socketPath = '/x'"),
    ("cdi.disabled", "cdi.disabled = true"),
    ("cdi.specDirs", "cdi.specDirs = ['/x']"),
    ("cdi.autoAllowed", "cdi.autoAllowed = ['x']"),
    ("history.maxAge", "history.maxAge = '1h'"),
    ("history.maxEntries", "history.maxEntries = 7"),
    ("context.compare", "context.compare = 'contents'"),
    ("context.maxSize", "context.maxSize = '1GB'"),
    ("context.idleTimeout", "context.idleTimeout = 7"),
    ("worker.oci.enabled", "worker.oci.enabled = false"),
    ("worker.oci.labels.*", "worker.oci.labels.x = 'y'"),
    (
        "worker.oci.platforms",
        "worker.oci.platforms = ['linux/riscv64']",
    ),
    (
        "worker.oci.snapshotter",
        "worker.oci.snapshotter = 'overlayfs'",
    ),
    ("worker.oci.layers", "worker.oci.layers = 'folder'"),
    (
        "worker.oci.noProcessSandbox",
        "worker.oci.noProcessSandbox = true",
    ),
    ("worker.oci.gc", "worker.oci.gc = false"),
    ("worker.oci.gckeepstorage", "worker.oci.gckeepstorage = 7"),
    ("worker.oci.reservedSpace", "worker.oci.reservedSpace = 7"),
    ("worker.oci.maxUsedSpace", "worker.oci.maxUsedSpace = 7"),
    ("worker.oci.minFreeSpace", "worker.oci.minFreeSpace = 7"),
    (
        "worker.oci.gcpolicy.all",
        "worker.oci.gcpolicy = [{ all = true }]",
    ),
    (
        "worker.oci.gcpolicy.filters",
        "worker.oci.gcpolicy = [{ filters = ['x'] }]",
    ),
    (
        "worker.oci.gcpolicy.keepDuration",
        "worker.oci.gcpolicy = [{ keepDuration = 7 }]",
    ),
    (
        "worker.oci.gcpolicy.keepBytes",
        "worker.oci.gcpolicy = [{ keepBytes = 7 }]",
    ),
    (
        "worker.oci.gcpolicy.reservedSpace",
        "worker.oci.gcpolicy = [{ reservedSpace = 7 }]",
    ),
    (
        "worker.oci.gcpolicy.maxUsedSpace",
        "worker.oci.gcpolicy = [{ maxUsedSpace = 7 }]",
    ),
    (
        "worker.oci.gcpolicy.minFreeSpace",
        "worker.oci.gcpolicy = [{ minFreeSpace = 7 }]",
    ),
    ("worker.oci.networkMode", "worker.oci.networkMode = 'none'"),
    ("worker.oci.bridgeName", "worker.oci.bridgeName = 'b0'"),
    (
        "worker.oci.bridgeSubnet",
        "worker.oci.bridgeSubnet = '10.9.0.0/16'",
    ),
    (
        "worker.oci.bridgeMetadata",
        "worker.oci.bridgeMetadata = true",
    ),
    (
        "worker.oci.bridgeUplink",
        "worker.oci.bridgeUplink = 'pasta'",
    ),
    (
        "worker.oci.cniConfigPath",
        "worker.oci.cniConfigPath = '/x'",
    ),
    (
        "worker.oci.cniBinaryPath",
        "worker.oci.cniBinaryPath = '/x'",
    ),
    ("worker.oci.cniPoolSize", "worker.oci.cniPoolSize = 7"),
    ("worker.oci.binary", "worker.oci.binary = 'runc'"),
    (
        "worker.oci.acceptedBinaryVersions",
        "worker.oci.acceptedBinaryVersions = ['1.0']",
    ),
    (
        "worker.oci.userNamespaces",
        "worker.oci.userNamespaces = 'off'",
    ),
    (
        "worker.oci.userNamespaceIds",
        "worker.oci.userNamespaceIds = '100000:65536'",
    ),
    (
        "worker.oci.defaultCgroupParent",
        "worker.oci.defaultCgroupParent = '/x'",
    ),
    (
        "worker.oci.max-parallelism",
        "worker.oci.max-parallelism = 7",
    ),
    ("worker.oci.steps.memory", "worker.oci.steps.memory = '50%'"),
    ("worker.oci.steps.cpus", "worker.oci.steps.cpus = 1.5"),
    ("worker.oci.steps.pids", "worker.oci.steps.pids = 7"),
    (
        "worker.oci.steps.readRate",
        "worker.oci.steps.readRate = '1MB'",
    ),
    (
        "worker.oci.steps.writeRate",
        "worker.oci.steps.writeRate = '1MB'",
    ),
    (
        "worker.oci.steps.memoryBudget",
        "worker.oci.steps.memoryBudget = 0",
    ),
    (
        "worker.containerd.enabled",
        "worker.containerd.enabled = true",
    ),
    ("registry.*.mirrors", "registry.x.mirrors = ['y']"),
    ("registry.*.http", "registry.x.http = true"),
    ("registry.*.insecure", "registry.x.insecure = true"),
    ("registry.*.ca", "registry.x.ca = ['/y']"),
    (
        "registry.*.keypair.key",
        "registry.x.keypair = [{ key = '/k', cert = '/c' }]",
    ),
    (
        "registry.*.keypair.cert",
        "registry.x.keypair = [{ key = '/k', cert = '/c' }]",
    ),
    (
        "registry.*.tlsconfigdir",
        "registry.x.tlsconfigdir = ['/y']",
    ),
    ("dns.nameservers", "dns.nameservers = ['1.1.1.1']"),
    ("dns.options", "dns.options = ['x']"),
    ("dns.searchDomains", "dns.searchDomains = ['x']"),
    (
        "frontend.dockerfile.v0.enabled",
        "frontend.'dockerfile.v0'.enabled = false",
    ),
    (
        "frontend.dockerfile.v0.builtinSyntax",
        "frontend.'dockerfile.v0'.builtinSyntax = false",
    ),
    (
        "frontend.gateway.v0.enabled",
        "frontend.'gateway.v0'.enabled = false",
    ),
    (
        "frontend.gateway.v0.allowedRepositories",
        "frontend.'gateway.v0'.allowedRepositories = ['x']",
    ),
    (
        "system.maxRegistryConcurrency",
        "system.maxRegistryConcurrency = 7",
    ),
];

#[test]
fn every_key_that_is_declared_changes_a_setting() {
    let declared: BTreeSet<String> = keys().into_iter().map(|key| key.path).collect();
    let set: BTreeSet<String> = SET.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(declared, set, "a key has no case, or a case has no key");
    let default = format!("{:?}", settings(&[], ""));
    for (path, text) in SET {
        let set = settings(&[], text);
        assert_ne!(format!("{set:?}"), default, "{path} changes nothing");
        let unknown: Vec<_> = set
            .warnings
            .iter()
            .filter(|warning| warning.contains("configuration key"))
            .collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
}

#[test]
fn keys_of_one_section_do_not_change_each_other() {
    // All keys at once are what they are one by one, wherever a field holds one key.
    let all = "root = '/x'\nhistory = { maxAge = '1h', maxEntries = 7 }\n\
               context = { compare = 'contents', maxSize = '1GB', idleTimeout = 7 }\n\
               dns = { nameservers = ['n'], options = ['o'], searchDomains = ['s'] }\n\
               [registry.one]\nhttp = true\nmirrors = ['m']\n[registry.two]\ninsecure = true\n";
    let settings = settings(&[], all);
    assert_eq!(settings.history.max_age.as_secs(), 3600);
    assert_eq!(settings.history.max_entries, 7);
    assert_eq!(settings.context.idle, Some(Duration::from_secs(7)));
    assert_eq!(settings.context.max_size, DiskSpace::Bytes(1 << 30));
    let dns = settings.dns.unwrap();
    assert_eq!(
        (dns.nameservers, dns.options),
        (vec!["n".into()], vec!["o".into()])
    );
    assert_eq!(dns.search_domains, ["s"]);
    let (one, two) = (&settings.registries["one"], &settings.registries["two"]);
    assert_eq!((one.http, one.insecure), (Some(true), None));
    assert_eq!((two.http, two.insecure), (None, Some(true)));
    assert_eq!(one.mirrors, ["m"]);
}

/// Each flag with something that is not its default.
const FLAGS: &[(&str, &[&str])] = &[
    ("root", &["--root=/x"]),
    ("addr", &["--addr=unix:///x"]),
    ("debug", &["--debug"]),
    ("trace", &["--trace"]),
    ("log-format", &["--log-format=json"]),
    ("log-level", &["--log-level=error"]),
    ("group", &["--group=7"]),
    ("debugaddr", &["--debugaddr=x:1"]),
    ("tlscert", &["--tlscert=/c", "--tlskey=/k"]),
    ("tlskey", &["--tlskey=/k", "--tlscert=/c"]),
    (
        "tlscacert",
        &["--tlscert=/c", "--tlskey=/k", "--tlscacert=/a"],
    ),
    ("isolation", &["--isolation=client"]),
    ("allow-insecure-loopback", &["--allow-insecure-loopback"]),
    ("allow-insecure-debugaddr", &["--allow-insecure-debugaddr"]),
    ("drain-timeout", &["--drain-timeout=7s"]),
    (
        "allow-insecure-entitlement",
        &["--allow-insecure-entitlement=network.host"],
    ),
    ("proxy-network", &["--proxy-network"]),
    ("otel-socket-path", &["--otel-socket-path=/x"]),
    ("cdi-disabled", &["--cdi-disabled"]),
    ("cdi-spec-dir", &["--cdi-spec-dir=/x"]),
    ("oci-worker", &["--oci-worker=false"]),
    ("oci-worker-labels", &["--oci-worker-labels=a=b"]),
    (
        "oci-worker-snapshotter",
        &["--oci-worker-snapshotter=overlayfs"],
    ),
    (
        "oci-worker-platform",
        &["--oci-worker-platform=linux/riscv64"],
    ),
    ("oci-worker-net", &["--oci-worker-net=none"]),
    ("oci-cni-config-path", &["--oci-cni-config-path=/x"]),
    ("oci-cni-binary-dir", &["--oci-cni-binary-dir=/x"]),
    ("oci-cni-pool-size", &["--oci-cni-pool-size=7"]),
    ("oci-worker-binary", &["--oci-worker-binary=runc"]),
    (
        "oci-worker-user-namespaces",
        &["--oci-worker-user-namespaces=off"],
    ),
    (
        "oci-worker-no-process-sandbox",
        &["--oci-worker-no-process-sandbox"],
    ),
    ("oci-max-parallelism", &["--oci-max-parallelism=7"]),
    ("oci-worker-gc", &["--oci-worker-gc=false"]),
    (
        "oci-worker-gc-keepstorage",
        &["--oci-worker-gc-keepstorage=7"],
    ),
];
/// Flags that settings do not follow from: the place of the file, and what is taken for buildkitd's sake.
const WITHOUT_A_SETTING: &[&str] = &[
    "config",
    "save-cache-debug",
    "rootless",
    "containerd-worker",
    "help",
    "version",
];

#[test]
fn every_flag_that_is_declared_changes_a_setting_or_is_listed() {
    let mut program = Args::command();
    program.build();
    let declared: BTreeSet<&str> = program
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .collect();
    let listed: BTreeSet<&str> = FLAGS
        .iter()
        .map(|(name, _)| *name)
        .chain(WITHOUT_A_SETTING.iter().copied())
        .collect();
    let unlisted: Vec<_> = declared.difference(&listed).collect();
    assert!(unlisted.is_empty(), "flags without a case: {unlisted:?}");
    let default = format!("{:?}", settings(&[], ""));
    for (name, flags) in FLAGS {
        assert!(declared.contains(name), "{name} is no flag");
        let set = format!("{:?}", settings(flags, ""));
        assert_ne!(set, default, "{name} changes nothing");
    }
    for accepted in [
        "--save-cache-debug",
        "--rootless=false",
        "--containerd-worker=false",
    ] {
        assert_eq!(
            format!("{:?}", settings(&[accepted], "")),
            default,
            "{accepted}"
        );
    }
}

#[test]
fn environment_is_read_for_the_flags_that_say_so_and_no_others() {
    let mut program = Args::command();
    program.build();
    let read: Vec<(String, String)> = program
        .get_arguments()
        .filter_map(|arg| {
            let name = arg.get_env()?.to_string_lossy().into_owned();
            Some((arg.get_long()?.to_owned(), name))
        })
        .collect();
    let read: Vec<_> = read
        .iter()
        .map(|(flag, name)| (flag.as_str(), name.as_str()))
        .collect();
    assert_eq!(
        read,
        [
            ("config", "BUILDKITD_CONFIG"),
            ("log-level", "BUILDKITD_LOG_LEVEL"),
            ("debugaddr", "BUILDKITD_DEBUGADDR"),
        ]
    );
}

#[test]
fn booleans_are_said_with_and_without_a_value_and_nothing_else_is_one() {
    for (flag, gc) in [
        ("--oci-worker-gc", true),
        ("--oci-worker-gc=true", true),
        ("--oci-worker-gc=false", false),
    ] {
        assert_eq!(settings(&[flag], "").worker.gc, gc, "{flag}");
    }
    for bad in [
        "--oci-worker-gc=perhaps",
        "--cdi-disabled=2",
        "--oci-max-parallelism=-1",
    ] {
        assert!(Args::try_parse_from(["buildkitd", bad]).is_err(), "{bad}");
    }
    // Without `=` the next word is another argument, and there are none.
    assert!(Args::try_parse_from(["buildkitd", "--oci-worker-gc", "false"]).is_err());
}

#[test]
fn kept_space_is_reserved_free_and_most_in_this_order() {
    let mb = |n: u64| DiskSpace::Bytes(n * 1_000_000);
    for (text, [reserved, max, free]) in [
        ("7", [mb(7), DiskSpace::Unset, DiskSpace::Unset]),
        ("7,8", [mb(7), DiskSpace::Unset, mb(8)]),
        ("7,8,9", [mb(7), mb(9), mb(8)]),
        (",,9", [DiskSpace::Unset, mb(9), DiskSpace::Unset]),
        (
            "10%,20%,30%",
            [
                DiskSpace::Percent(10),
                DiskSpace::Percent(30),
                DiskSpace::Percent(20),
            ],
        ),
    ] {
        let flag = format!("--oci-worker-gc-keepstorage={text}");
        let rule = settings(&[&flag], "[worker.oci]\nreservedSpace = 1")
            .worker
            .gc_policies[2]
            .clone();
        assert_eq!(
            [rule.reserved, rule.max_used, rule.min_free],
            [reserved, max, free],
            "{text}"
        );
    }
}

#[test]
fn a_key_that_nobody_knows_is_named_with_its_line() {
    for (text, line) in [
        ("rot = '/x'", 1),
        ("root = '/x'\n\n# a remark\n[grpc]\nadress = ['x']", 5),
        (
            "[grpc]\naddress = ['x']\n[worker.oci]\nlabels = { a = 'b' }\nmax-paralelism = 3",
            5,
        ),
        (
            "[[worker.oci.gcpolicy]]\nall = true\n[[worker.oci.gcpolicy]]\nal = true",
            4,
        ),
        ("worker.oci.selinux = true", 1),
        ("root = '/x'\nworker.containerd = { address = 'x' }", 2),
    ] {
        let (_, warnings) = File::parse(text).unwrap();
        let [warning] = warnings.as_slice() else {
            panic!("{text}: {warnings:?}");
        };
        assert!(
            warning.contains(&format!(" (line {line})")),
            "{text}: {warning}"
        );
    }
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rbuildd.toml");
    let load = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let args = Args::parse_from(["rbuildd", "--config", file.to_str().unwrap()]);
        Settings::load(&args, &Defaults::of("rbuildd")).unwrap_err()
    };
    for (text, line, words) in [
        ("root = 3", 1, "root"),
        ("[grpc]\naddress = 'x'", 2, "address"),
        ("[worker.oci]\nmax-parallelism = -1", 2, "max-parallelism"),
        (
            "[history]\nmaxAge = 'for ever'",
            2,
            "invalid duration for ever",
        ),
        (
            "[worker.oci]\nreservedSpace = 'much'",
            2,
            "invalid disk space much",
        ),
        ("root = '/a'\nroot = '/b'", 2, "duplicate key"),
        ("root", 1, "root"),
    ] {
        let error = load(text);
        let sentence = error.to_string();
        assert!(
            sentence.starts_with(&format!("configuration {}: ", file.display())),
            "{sentence}"
        );
        assert!(
            sentence.contains(&format!("line {line}")),
            "{text}: {sentence}"
        );
        assert!(sentence.contains(words), "{text}: {sentence}");
        assert_eq!(error.kind(), oci::ErrorKind::Invalid);
        assert!(std::error::Error::source(&error).is_some(), "{text}");
    }
    std::fs::remove_file(&file).unwrap();
    let args = Args::parse_from(["rbuildd", "--config", file.to_str().unwrap()]);
    let missing = Settings::load(&args, &Defaults::of("rbuildd")).unwrap_err();
    assert_eq!(missing.kind(), oci::ErrorKind::NotFound);
}

/// The default that the meaning of a key states: `(default 50)`, or the word before `(default)`.
fn stated_default(meaning: &str) -> Option<&str> {
    let (before, after) = meaning.split_once("(default")?;
    let Some(after) = after.strip_prefix(' ') else {
        return before.trim_end().trim_end_matches('`').rsplit('`').next();
    };
    match after.strip_prefix('`') {
        Some(quoted) => quoted.split('`').next(),
        None => after.split([')', ';', ',', ':', ' ']).next(),
    }
}

#[test]
fn a_default_that_the_documentation_states_is_the_one_that_holds() {
    let default = format!("{:?}", settings(&[], ""));
    let mut checked = Vec::new();
    for key in keys() {
        let Some(stated) = stated_default(key.meaning) else {
            continue;
        };
        // No text of one value: a folder beside the file, every record, every repository, a field of a rule that has no default.
        if matches!(stated, "provenance.d" | "all") || key.path.contains("gcpolicy") {
            continue;
        }
        let is_bare = stated.parse::<u64>().is_ok() || matches!(stated, "true" | "false");
        let value = if is_bare {
            stated.to_owned()
        } else {
            format!("'{stated}'")
        };
        let path = key
            .path
            .replace("dockerfile.v0", "'dockerfile.v0'")
            .replace("gateway.v0", "'gateway.v0'");
        let with_stated_default = settings(&[], &format!("{path} = {value}"));
        assert_eq!(
            format!("{with_stated_default:?}"),
            default,
            "{} is said to default to {stated}",
            key.path
        );
        checked.push(key.path);
    }
    assert!(checked.len() >= 17, "{checked:?}");
}
