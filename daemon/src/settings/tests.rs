use clap::Parser as _;

use super::*;

fn resolve(args: &[&str], text: &str) -> Settings {
    let args = Args::parse_from(std::iter::once("buildkitd").chain(args.iter().copied()));
    let (file, warnings) = File::parse(text).unwrap();
    Settings::resolve(&args, file, warnings, &Defaults::of("buildkitd")).unwrap()
}

#[test]
fn flags_lie_over_the_file_and_both_over_the_defaults() {
    let none = resolve(&[], "");
    assert_eq!(none.root, PathBuf::from("/var/lib/buildkit"));
    assert!(none.worker.gc && none.worker.enabled && none.builtin_syntax);
    let file = "root = \"/a\"\n[worker.oci]\n  gc = true\n  max-parallelism = 3\n";
    let both = resolve(
        &[
            "--oci-worker-gc=false",
            "--root",
            "/b",
            "--oci-worker=true",
            "--containerd-worker=false",
            "--debug",
        ],
        file,
    );
    assert_eq!(both.root, PathBuf::from("/b"));
    assert_eq!(
        (
            both.worker.gc,
            both.worker.max_parallelism,
            both.log_level.as_str()
        ),
        (false, 3, "debug")
    );
}

#[test]
fn keys_of_the_file_are_those_that_are_documented() {
    let keys = file::keys();
    for path in [
        "debug",
        "grpc.tls.ca",
        "worker.oci.labels.*",
        "worker.oci.gcpolicy.keepDuration",
        "registry.*.keypair.cert",
        "dns.searchDomains",
        "frontend.gateway.v0.allowedRepositories",
    ] {
        assert!(keys.iter().any(|key| key.path == path), "{path}: {keys:?}");
    }
    let undocumented: Vec<_> = keys.iter().filter(|k| k.meaning.is_empty()).collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
    let doubled: Vec<_> = file::UNSUPPORTED
        .iter()
        .filter(|path| keys.iter().any(|key| key.path == **path))
        .collect();
    assert!(doubled.is_empty(), "{doubled:?}");
}

#[test]
fn keys_that_only_buildkitd_has_are_warned_about() {
    let settings = resolve(
        &[],
        "worker.oci.selinux = true\n[worker.containerd]\n  enabled = true\n  address = \"x\"\n",
    );
    for words in [
        "key worker.oci.selinux (line 1) is known to buildkitd",
        "key worker.containerd.address (line 4) is known to buildkitd",
        "worker.containerd is not supported: rbuildd runs steps by itself",
    ] {
        let is_said = settings.warnings.iter().any(|w| w.contains(words));
        assert!(is_said, "{words}: {:?}", settings.warnings);
    }
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    let settings = resolve(&[], "[worker.oci]\n  max-paralelism = 3\n");
    assert_eq!(
        settings.warnings,
        [
            "unknown configuration key worker.oci.max-paralelism (line 2), did you mean worker.oci.max-parallelism?"
        ]
    );
}

#[test]
fn a_configuration_of_the_conformance_suite_is_understood() {
    let text = r#"
insecure-entitlements = ["network.host"]
[registry."docker.io"]
  mirrors = ["localhost:4444"]
[registry."localhost:4444"]
  http = true
[otel]
  socketPath = "/tmp/x.sock"
[cdi]
  specDirs = ["/tmp/cdi"]
[[worker.oci.gcpolicy]]
  keepBytes = "10GB"
  keepDuration = "1h30m"
  filters = ["type==source.local"]
"#;
    let settings = resolve(&[], text);
    assert_eq!(settings.registries["docker.io"].mirrors, ["localhost:4444"]);
    assert_eq!(settings.registries["localhost:4444"].http, Some(true));
    assert_eq!(
        settings.worker.gc_policies[0].reserved,
        DiskSpace::Bytes(10 << 30)
    );
    assert_eq!(
        settings.worker.gc_policies[0].keep_duration,
        Duration::from_secs(5400)
    );
    let cdi = settings.cdi.unwrap();
    assert_eq!(cdi.spec_dirs, [PathBuf::from("/tmp/cdi")]);
    assert_eq!(settings.entitlements, ["network.host", "device"]);
    assert!(resolve(&["--cdi-disabled"], text).cdi.is_none());
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
}
