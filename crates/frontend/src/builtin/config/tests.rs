//! Every option that a client may give, with its parsed form or its error.

use super::*;

fn request<const N: usize>(opts: [(&str, &str); N]) -> FrontendRequest {
    FrontendRequest {
        opts: opts.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        session_id: "own".into(),
        ..FrontendRequest::default()
    }
}

fn parse<const N: usize>(opts: [(&str, &str); N]) -> Result<Config, String> {
    Config::parse(&request(opts), &[]).map_err(|error| error.to_string())
}

/// The error for one option with this value.
fn refused(key: &str, value: &str) -> String {
    match parse([(key, value)]) {
        Ok(_) => panic!("{key}={value} is accepted"),
        Err(error) => error,
    }
}

#[test]
fn without_options_the_worker_s_own_platform_is_built_without_limits() {
    let worker = WorkerInfo {
        platforms: vec![Platform::new("linux", "riscv64", "")],
        ..WorkerInfo::default()
    };
    let config = Config::parse(&request([]), &[worker]).unwrap();
    assert_eq!(config.target_platforms, []);
    assert!(!config.multi_platform && config.no_cache.is_none());
    assert_eq!(
        config.lower.build_platforms,
        [Platform::new("linux", "riscv64", "")]
    );
    let lower = &config.lower;
    assert_eq!(
        (lower.shm_size, lower.network, lower.resources.is_none()),
        (0, pb::NetMode::Unset, true)
    );
    assert!(lower.ulimits.is_empty() && lower.extra_hosts.is_empty());
    // Without a worker the host's platform builds.
    let config = parse([]).unwrap();
    assert_eq!(config.lower.build_platforms, [Platform::host()]);
}

#[test]
fn build_arguments_and_labels_are_handed_on_as_they_are() {
    let config = parse([
        ("build-arg:A", "1"),
        ("build-arg:", "no name"),
        ("build-arg:HTTP_PROXY", "http://p"),
        ("label:x.y", "a=b"),
        ("target", "Release"),
        ("cgroup-parent", "/slice"),
        ("build-arg:BUILDKIT_CACHE_MOUNT_NS", "ns"),
    ])
    .unwrap();
    let lower = &config.lower;
    let pairs = |map: &BTreeMap<String, String>| -> Vec<String> {
        map.iter().map(|(k, v)| format!("{k}={v}")).collect()
    };
    assert_eq!(
        pairs(&lower.build_args),
        [
            "=no name",
            "A=1",
            "BUILDKIT_CACHE_MOUNT_NS=ns",
            "HTTP_PROXY=http://p"
        ]
    );
    assert_eq!(pairs(&lower.labels), ["x.y=a=b"]);
    assert_eq!(
        (
            lower.target.as_str(),
            lower.cgroup_parent.as_str(),
            lower.cache_id_namespace.as_str()
        ),
        ("Release", "/slice", "ns")
    );
}

#[test]
fn the_name_of_the_sandbox_comes_from_the_argument_before_the_option() {
    for (opts, want) in [
        (vec![], ""),
        (vec![("hostname", "option")], "option"),
        (
            vec![("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "argument")],
            "argument",
        ),
        (
            vec![
                ("hostname", "option"),
                ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "argument"),
            ],
            "argument",
        ),
        (
            vec![
                ("hostname", "option"),
                ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", ""),
            ],
            "option",
        ),
    ] {
        let mut request = request([]);
        request.opts = opts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let config = Config::parse(&request, &[]).unwrap();
        assert_eq!(config.lower.hostname, want, "{opts:?}");
    }
}

#[test]
fn several_platforms_make_a_map_and_one_does_if_requested() {
    const MULTI: &str = "multi-platform";
    const ARG: &str = "build-arg:BUILDKIT_MULTI_PLATFORM";
    let two = "linux/amd64,linux/arm64";
    for (opts, count, multi) in [
        (vec![("platform", "linux/amd64")], 1, false),
        (vec![("platform", two)], 2, true),
        (vec![("platform", "linux/amd64"), (MULTI, "true")], 1, true),
        (vec![("platform", "linux/amd64"), (ARG, "1")], 1, true),
        (vec![(ARG, "T")], 0, true),
        (vec![(MULTI, "")], 0, false),
        (vec![("platform", two), (MULTI, "1")], 2, true),
        // The argument takes precedence over the option.
        (
            vec![("platform", "linux/amd64"), (ARG, "0"), (MULTI, "1")],
            1,
            false,
        ),
        (
            vec![("platform", "linux/amd64"), (ARG, ""), (MULTI, "1")],
            1,
            true,
        ),
    ] {
        let mut request = request([]);
        request.opts = opts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let config = Config::parse(&request, &[]).unwrap();
        assert_eq!(
            (config.target_platforms.len(), config.multi_platform),
            (count, multi),
            "{opts:?}"
        );
        assert_eq!(config.lower.multi_platform, multi, "{opts:?}");
    }
    assert_eq!(
        parse([("platform", two), (MULTI, "false")]).unwrap_err(),
        "conflicting config: returning multiple target platforms is not allowed"
    );
    for (key, value) in [(MULTI, "yes"), (ARG, "2")] {
        assert_eq!(
            refused(key, value),
            format!("invalid boolean value for multi-platform: {value}")
        );
    }
    let config = parse([("platform", "linux/ARM64/v8,windows/amd64")]).unwrap();
    let names: Vec<String> = config
        .target_platforms
        .iter()
        .map(Platform::format)
        .collect();
    assert_eq!(names, ["linux/arm64", "windows/amd64"]);
    for bad in [
        "",
        ",",
        "linux/amd64,",
        "a/b/c/d",
        "linux/amd64, linux/arm64",
        "lin ux/amd64",
    ] {
        if !bad.is_empty() {
            let error = refused("platform", bad);
            assert!(
                error.starts_with("failed to parse target platform "),
                "{error}"
            );
        }
    }
}

#[test]
fn stages_without_cache_are_named_ones_or_all() {
    let stages = |value: Option<&str>| {
        let mut request = request([]);
        if let Some(value) = value {
            request.opts.insert("no-cache".into(), value.into());
        }
        let config = Config::parse(&request, &[]).unwrap();
        ["base", "Release", "other"].map(|stage| config.is_no_cache(stage))
    };
    for (value, want) in [
        (None, [false; 3]),
        (Some(""), [true; 3]),
        (Some("base"), [true, false, false]),
        (Some("BASE,release"), [true, true, false]),
        (Some("base,"), [true, false, false]),
        (Some(" base"), [false; 3]),
    ] {
        assert_eq!(stages(value), want, "{value:?}");
    }
}

#[test]
fn only_known_modes_are_accepted() {
    for (value, want) in [
        ("", ResolveMode::Default),
        ("default", ResolveMode::Default),
        ("pull", ResolveMode::ForcePull),
        ("local", ResolveMode::PreferLocal),
    ] {
        let config = parse([("image-resolve-mode", value)]).unwrap();
        assert_eq!(config.lower.resolve_mode, want, "{value}");
    }
    for (value, want) in [
        ("", pb::NetMode::Unset),
        ("sandbox", pb::NetMode::Unset),
        ("none", pb::NetMode::None),
        ("host", pb::NetMode::Host),
    ] {
        let config = parse([("force-network-mode", value)]).unwrap();
        assert_eq!(config.lower.network, want, "{value}");
    }
    for (key, value, want) in [
        (
            "image-resolve-mode",
            "Pull",
            "invalid image-resolve-mode: Pull",
        ),
        ("force-network-mode", "bridge", "invalid netmode bridge"),
        ("force-network-mode", "HOST", "invalid netmode HOST"),
    ] {
        assert_eq!(refused(key, value), want);
    }
}

#[test]
fn extra_hosts_are_a_line_of_csv_each_with_an_address() {
    let hosts = |value: &str| {
        let hosts = parse([("add-hosts", value)])?.lower.extra_hosts;
        Ok::<_, String>(
            hosts
                .into_iter()
                .map(|(host, ip)| format!("{host}={ip}"))
                .collect::<Vec<_>>(),
        )
    };
    for (value, want) in [
        ("", vec![]),
        ("a=1.2.3.4", vec!["a=1.2.3.4"]),
        (
            "A.Example=1.2.3.4,b=::1",
            vec!["a.example=1.2.3.4", "b=::1"],
        ),
        (
            "\"a=1.2.3.4\",b=2001:DB8::1",
            vec!["a=1.2.3.4", "b=2001:db8::1"],
        ),
    ] {
        assert_eq!(hosts(value).unwrap(), want, "{value}");
    }
    const CONTEXT: &str = "failed to parse additional hosts";
    for (value, want) in [
        ("a", format!("{CONTEXT}: invalid key-value pair a")),
        (
            "a=host-gateway",
            format!("{CONTEXT}: failed to parse IP host-gateway"),
        ),
        ("a=1.2.3", format!("{CONTEXT}: failed to parse IP 1.2.3")),
        ("a=1.2.3.4,", format!("{CONTEXT}: invalid key-value pair ")),
        (
            "\"a=1.2.3.4",
            format!("{CONTEXT}: invalid csv value \"\\\"a=1.2.3.4\""),
        ),
    ] {
        assert_eq!(hosts(value).unwrap_err(), want, "{value}");
    }
}

#[test]
fn ulimits_are_checked_with_the_messages_of_docker() {
    let shm = |value| parse([("shm-size", value)]).map(|config| config.lower.shm_size);
    assert_eq!(shm("67108864"), Ok(67_108_864));
    assert_eq!(shm("-1"), Ok(-1));
    assert_eq!(
        shm("64m").unwrap_err(),
        "failed to parse shm size: strconv.ParseInt: parsing \"64m\": invalid syntax"
    );

    let ulimits = |value| parse([("ulimit", value)]).map(|config| config.lower.ulimits);
    let limit = |name: &str, soft, hard| pb::Ulimit {
        name: name.into(),
        soft,
        hard,
    };
    assert_eq!(
        ulimits("nofile=1024:2048,core=-1,\"cpu=5\""),
        Ok(vec![
            limit("nofile", 1024, 2048),
            limit("core", -1, -1),
            limit("cpu", 5, 5)
        ])
    );
    assert_eq!(ulimits("nproc=5:-1"), Ok(vec![limit("nproc", 5, -1)]));
    const MUST: &str = "ulimit soft limit must be less than or equal to hard limit";
    for (value, want) in [
        ("nofile", "invalid ulimit argument: nofile".to_owned()),
        ("NOFILE=1", "invalid ulimit type: NOFILE".to_owned()),
        (
            "nofile=1:2:3",
            "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`"
                .to_owned(),
        ),
        ("nofile=2:1", format!("{MUST}: 2 > 1")),
        (
            "nofile=-1:1",
            format!("{MUST}: soft: -1 (unlimited), hard: 1"),
        ),
        (
            "nofile=x",
            "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned(),
        ),
        (
            "nofile=1:",
            "strconv.ParseInt: parsing \"\": invalid syntax".to_owned(),
        ),
    ] {
        assert_eq!(
            ulimits(value).unwrap_err(),
            format!("failed to parse ulimit: {want}")
        );
    }
}

#[test]
fn resources_of_steps_are_checked_one_by_one() {
    let resources = |key: &str, value: &str| {
        parse([(key, value)]).map(|config| config.lower.resources.unwrap_or_default())
    };
    let want = |change: fn(&mut pb::LinuxResources)| {
        let mut resources = pb::LinuxResources::default();
        change(&mut resources);
        Ok(resources)
    };
    for (key, value, want) in [
        ("memory", "4096", want(|r| r.memory = 4096)),
        ("memswap", "-1", want(|r| r.memory_swap = -1)),
        ("memswap", "8192", want(|r| r.memory_swap = 8192)),
        ("cpushares", "2", want(|r| r.cpu_shares = 2)),
        ("cpuperiod", "100000", want(|r| r.cpu_period = 100_000)),
        ("cpuquota", "50000", want(|r| r.cpu_quota = 50_000)),
        (
            "cpusetcpus",
            "0-3,7",
            want(|r| r.cpuset_cpus = "0-3,7".into()),
        ),
        ("cpusetmems", "0", want(|r| r.cpuset_mems = "0".into())),
        ("memory", "", want(|_| {})),
    ] {
        assert_eq!(resources(key, value), want, "{key}={value}");
    }
    for (key, value, why) in [
        ("memory", "0", "must be > 0"),
        ("memory", "-1", "must be > 0"),
        ("memswap", "-2", "must be -1 (unlimited) or > 0"),
        ("memswap", "0", "must be -1 (unlimited) or > 0"),
        ("cpuquota", "-5", "must be > 0"),
        (
            "cpushares",
            "1.5",
            "strconv.ParseInt: parsing \"1.5\": invalid syntax",
        ),
        ("cpusetcpus", "3-1", "invalid cpuset range \"3-1\""),
        ("cpusetcpus", "x", "invalid cpuset element \"x\""),
        (
            "cpusetmems",
            "0-8193",
            "cpuset range \"0-8193\" exceeds maximum 8192",
        ),
        (
            "cpusetmems",
            "9999",
            "cpuset element \"9999\" exceeds maximum 8192",
        ),
        ("cpusetcpus", "-1", "invalid cpuset range \"-1\""),
    ] {
        assert_eq!(
            refused(key, value),
            format!("failed to parse resource limits: invalid {key} value: {value}: {why}")
        );
    }
}

#[test]
fn cache_imports_come_from_the_document_before_the_list() {
    let imports = |opts: Vec<(&str, &str)>| {
        let mut request = request([]);
        request.opts = opts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Config::parse(&request, &[])
            .map(|config| {
                config
                    .cache_imports
                    .iter()
                    .map(|import| format!("{} {:?}", import.kind, import.attrs))
                    .collect::<Vec<_>>()
            })
            .map_err(|error| error.to_string())
    };
    let json = r#"[{"Type":"local","Attrs":{"src":"/c"}},{"type":"gha"}]"#;
    assert_eq!(
        imports(vec![("cache-imports", json), ("cache-from", "a,b")]).unwrap(),
        [
            "local {\"src\": \"/c\"}",
            "gha {}",
            "registry {\"ref\": \"a\"}",
            "registry {\"ref\": \"b\"}"
        ]
    );
    assert_eq!(imports(vec![("cache-from", "")]).unwrap(), [""; 0]);
    for bad in ["{}", "[1]", "[", "[{\"Attrs\":{\"a\":1}}]"] {
        let error = imports(vec![("cache-imports", bad)]).unwrap_err();
        assert!(
            error.starts_with(&format!("failed to unmarshal cache-imports ({bad:?}): ")),
            "{error}"
        );
    }
}

#[test]
fn removed_and_unknown_options_are_refused_by_name() {
    for (key, value, want) in [
        (
            "override-copy-image",
            "x",
            "support for \"override-copy-image\" was removed in BuildKit 0.11",
        ),
        (
            "build-arg:BUILDKIT_DISABLE_FILEOP",
            "true",
            "support for \"BUILDKIT_DISABLE_FILEOP\" build-arg was removed in BuildKit 0.11",
        ),
        ("attest:vuln", "", "unknown attestation type \"vuln\""),
        (
            "build-arg:BUILDKIT_ATTEST_X",
            "",
            "unknown attestation type \"x\"",
        ),
        (
            "build-arg:BUILDKIT_GIT_ADVICE",
            "maybe",
            "failed to parse build-arg:BUILDKIT_GIT_ADVICE: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
    ] {
        assert_eq!(refused(key, value), want);
    }
    let lint = refused("build-arg:BUILDKIT_DOCKERFILE_CHECK", "x=y");
    assert!(
        lint.starts_with("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: "),
        "{lint}"
    );
    // Empty values are accepted.
    let config = parse([
        ("override-copy-image", ""),
        ("build-arg:BUILDKIT_DISABLE_FILEOP", "0"),
        ("attest:SBOM", ""),
        ("build-arg:BUILDKIT_ATTEST_PROVENANCE", "mode=max"),
        ("build-arg:BUILDKIT_GIT_ADVICE", "1"),
        ("unknown", "option"),
    ]);
    assert!(config.unwrap().lower.git_advice);
}

#[test]
fn a_local_directory_is_read_from_its_own_session() {
    let config = parse([("local-sessionid:context", "other")]).unwrap();
    let request = request([]);
    assert_eq!(config.session_of("context", &request).as_str(), "other");
    assert_eq!(config.session_of("dockerfile", &request).as_str(), "own");
}

#[test]
fn platforms_are_bounded() {
    let list = |count: usize| vec!["linux/amd64"; count].join(",");
    assert_eq!(platforms(&list(64)).map(|list| list.len()).ok(), Some(64));
    assert_eq!(
        platforms(&list(65)).unwrap_err().to_string(),
        "65 target platforms are more than the 64 that one build may have"
    );
    assert!(platforms(&list(1 << 20)).is_err());
}
