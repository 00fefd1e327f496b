//! Every state that BuildKit's client wrote (`tests/data/states.json`, written by `integration/tools/buildkit`) has the same digest here,
//! built under the same name for linux/amd64.

use std::collections::BTreeMap;

use llb::build::exec::{Mount, MountContent, Run, Secret, Sharing, Ssh};
use llb::build::{
    Chmod, Chown, Constraints, CopyInfo, FileChain, GitOpts, HttpOpts, ImageOpts, LocalOpts,
    MarshalOptions, MissingPath, OciLayoutOpts, ResolveMode, RmPath, State, diff, git, http, image,
    local, marshal, merge, oci_layout,
};
use llb::{Graph, pb};
use oci::{Digest, Platform};
use serde_json::{Value, json};

const SUM: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn plain() -> Constraints {
    Constraints::new()
}

fn from(reference: &str) -> State {
    image(reference, &ImageOpts::default(), plain()).unwrap()
}

fn base() -> State {
    from("docker.io/library/alpine:latest")
}

fn other() -> State {
    from("docker.io/library/busybox:1")
}

fn context(change: impl FnOnce(&mut LocalOpts)) -> State {
    let mut opts = LocalOpts::default();
    change(&mut opts);
    local("context", &opts, plain())
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn pulled(resolve_mode: ResolveMode, record_type: &str) -> State {
    let opts = ImageOpts {
        resolve_mode,
        record_type: record_type.to_owned(),
        checksum: None,
    };
    image("alpine", &opts, plain()).unwrap()
}

fn repository(remote: &str, reference: &str, change: impl FnOnce(&mut GitOpts)) -> State {
    let mut opts = GitOpts {
        reference: reference.to_owned(),
        ..GitOpts::default()
    };
    change(&mut opts);
    git(remote, &opts, plain())
}

fn process() -> Run {
    Run::new(&base(), texts(&["/bin/true"]), plain())
}

/// What a process with a change leaves of its root.
fn run(change: impl FnOnce(Run) -> Run) -> State {
    change(process()).root_of(&base())
}

/// What a process in a changed state leaves of its root.
fn run_in(change: impl FnOnce(&State) -> State) -> State {
    run(|run| run.with(change))
}

fn mounted(target: &str, source: &State, change: impl FnOnce(&mut Mount)) -> Mount {
    let mut mount = Mount::new(target, source);
    change(&mut mount);
    mount
}

fn run_with(target: &str, source: &State, change: impl FnOnce(&mut Mount)) -> State {
    run(|run| run.mount(mounted(target, source, change)))
}

fn cache(sharing: Sharing) -> MountContent {
    MountContent::Cache {
        id: "id".into(),
        sharing,
    }
}

fn secret(mode: u32, uid: u32, gid: u32) -> Secret {
    Secret {
        id: "id".into(),
        target: Some("/s".into()),
        mode,
        uid,
        gid,
        ..Secret::default()
    }
}

fn file(chain: FileChain) -> State {
    chain.on(&base(), plain())
}

fn mkdir(path: &str, mode: u32, parents: bool, owner: Option<Chown>) -> State {
    file(FileChain::new().mkdir(path, mode, parents, owner, None))
}

fn copy(change: impl FnOnce(&mut CopyInfo)) -> State {
    let mut info = CopyInfo::default();
    change(&mut info);
    file(FileChain::new().copy(&other(), "/a", "/b", info))
}

/// The states by the names that the recording has.
#[expect(clippy::too_many_lines, reason = "a table")]
fn states() -> BTreeMap<&'static str, State> {
    let scratch = State::scratch();
    let github = "https://github.com/a/b.git";
    let sources = [
        ("image", base()),
        ("image pull", pulled(ResolveMode::ForcePull, "")),
        ("image local", pulled(ResolveMode::PreferLocal, "")),
        (
            "image arm",
            image(
                "alpine",
                &ImageOpts::default(),
                plain().platform(&Platform::new("linux", "arm", "v7")),
            )
            .unwrap(),
        ),
        ("image internal", pulled(ResolveMode::Default, "internal")),
        ("local", context(|_| {})),
        (
            "local include",
            context(|opts| opts.include = texts(&["a", "<b>"])),
        ),
        (
            "local exclude",
            context(|opts| opts.exclude = texts(&["*.log", "!x"])),
        ),
        (
            "local follow",
            context(|opts| opts.follow_paths = texts(&["b", "a"])),
        ),
        (
            "local hint",
            context(|opts| {
                opts.shared_key_hint = "hint".into();
                opts.session_id = "session".into();
            }),
        ),
        ("local differ", context(|opts| opts.differ_none = true)),
        ("http", http("https://h/x", &HttpOpts::default(), plain())),
        (
            "http named",
            http(
                "https://h/x",
                &HttpOpts {
                    checksum: Some(Digest::parse(SUM).unwrap()),
                    filename: "y".into(),
                },
                plain(),
            ),
        ),
        ("git", repository(github, "main", |_| {})),
        (
            "git dir",
            repository(github, "main", |opts| opts.keep_git_dir = true),
        ),
        (
            "git ssh",
            repository("git@github.com:a/b.git", "v1", |opts| {
                // Each key has a line of its own.
                opts.known_ssh_hosts = "hosts\n".into();
            }),
        ),
        (
            "git checksum",
            repository(github, "", |opts| opts.checksum = "abc".into()),
        ),
        (
            "git subdir",
            repository(github, "main", |opts| opts.subdir = "sub".into()),
        ),
        (
            "git modules",
            repository(github, "main", |opts| opts.skip_submodules = true),
        ),
        (
            "oci layout",
            oci_layout(
                &format!("docker.io/library/x@{SUM}"),
                &OciLayoutOpts {
                    session_id: "session".into(),
                    store_id: "store".into(),
                    layer_limit: Some(3),
                },
                plain(),
            ),
        ),
    ];
    let processes = [
        ("run", run(|run| run)),
        (
            "run args",
            Run::new(&base(), texts(&["sh", "-c", "echo é <b>"]), plain()).root_of(&base()),
        ),
        (
            "run env",
            run_in(|state| state.add_env("A", "b").add_env("PATH", "/x")),
        ),
        ("run dir", run_in(|state| state.dir("/w"))),
        ("run user", run_in(|state| state.user("u:g"))),
        ("run hostname", run_in(|state| state.hostname("h"))),
        (
            "run network",
            run_in(|state| state.network(pb::NetMode::Host)),
        ),
        (
            "run no network",
            run_in(|state| state.network(pb::NetMode::None)),
        ),
        (
            "run security",
            run_in(|state| state.security(pb::SecurityMode::Insecure)),
        ),
        (
            "run hosts",
            run_in(|state| {
                state
                    .extra_host("a", "1.2.3.4".parse().unwrap())
                    .extra_host("b", "::1".parse().unwrap())
            }),
        ),
        (
            "run ulimit",
            run_in(|state| {
                state.ulimit(pb::Ulimit {
                    name: "nofile".into(),
                    soft: 10,
                    hard: 20,
                })
            }),
        ),
        ("run cgroup", run_in(|state| state.cgroup_parent("/c"))),
        ("run readonly", {
            let (_, mounts) = process()
                .readonly_root()
                .mount(Mount::new("/out", &scratch))
                .outputs();
            // The root is read only: what was mounted is what the process leaves.
            base().with_output(mounts.into_iter().next())
        }),
        (
            "run proxy",
            run(|run| {
                run.proxy(Some(pb::ProxyEnv {
                    http_proxy: "http://p".into(),
                    no_proxy: "x".into(),
                    ..pb::ProxyEnv::default()
                }))
            }),
        ),
        (
            "run exit codes",
            run(|run| run.valid_exit_codes(vec![0, 3])),
        ),
        ("run device", run(|run| run.device("v.com/c=n", true))),
        ("run bind", run_with("/m", &other(), |_| {})),
        (
            "run bind ro",
            run_with("/m", &other(), |mount| {
                mount.readonly = true;
                mount.selector = "/sub".into();
            }),
        ),
        (
            "run bind no output",
            run_with("/m", &other(), |mount| mount.no_output = true),
        ),
        (
            "run bind same",
            run(|run| {
                run.mount(Mount::new("/m", &base()))
                    .mount(Mount::new("/l", &other()))
                    .mount(Mount::new("/k", &other()))
            }),
        ),
        (
            "run cache",
            run_with("/c", &scratch, |mount| {
                mount.content = cache(Sharing::Shared);
            }),
        ),
        (
            "run cache locked",
            run_with("/c", &other(), |mount| {
                mount.content = cache(Sharing::Locked);
            }),
        ),
        (
            "run cache private",
            run_with("/c", &scratch, |mount| {
                mount.content = cache(Sharing::Private);
                mount.readonly = true;
            }),
        ),
        (
            "run tmpfs",
            run_with("/t", &scratch, |mount| {
                mount.content = MountContent::Tmpfs { size: 0 };
            }),
        ),
        (
            "run tmpfs size",
            run_with("/t", &scratch, |mount| {
                mount.content = MountContent::Tmpfs { size: 1024 };
            }),
        ),
        ("run secret", run(|run| run.secret(secret(0o440, 1, 2)))),
        (
            "run secret optional",
            run(|run| {
                run.secret(Secret {
                    optional: true,
                    ..secret(0o400, 0, 0)
                })
            }),
        ),
        (
            "run secret env",
            run(|run| {
                run.secret(Secret {
                    target: None,
                    env: Some("E".into()),
                    ..secret(0o400, 0, 0)
                })
            }),
        ),
        (
            "run ssh",
            run(|run| {
                run.ssh(Ssh {
                    id: "k".into(),
                    target: "/s".into(),
                    mode: 0o600,
                    uid: 1,
                    gid: 2,
                    optional: false,
                })
            }),
        ),
        ("run mount output", {
            let (_, mounts) = process().mount(Mount::new("/out", &other())).outputs();
            base().with_output(mounts.into_iter().next())
        }),
    ];
    let owner_of = |text| Some(Chown::parse(text));
    let when = Some(1_000_000_005);
    let files = [
        ("mkdir", mkdir("/d", 0o755, false, None)),
        (
            "mkdir parents",
            mkdir("/d/e", 0o700, true, Some(Chown::ids(1, 2))),
        ),
        (
            "mkdir time",
            file(FileChain::new().mkdir("/d", 0o755, false, None, when)),
        ),
        ("mkdir user", mkdir("/d", 0o755, false, owner_of("u:g"))),
        (
            "mkdir relative",
            FileChain::new()
                .mkdir("d", 0o755, false, None, None)
                .on(&base().dir("/w"), plain()),
        ),
        ("mkfile", file(FileChain::new().mkfile("/f", 0o644, "data"))),
        (
            "mkfile scratch",
            FileChain::new()
                .mkfile("/f", 0o600, "")
                .on(&scratch, plain()),
        ),
        (
            "rm",
            file(FileChain::new().rm("/f", RmPath::Literal, MissingPath::Fails)),
        ),
        (
            "rm wild",
            file(FileChain::new().rm("/f*", RmPath::Wildcard, MissingPath::Succeeds)),
        ),
        ("symlink", file(FileChain::new().symlink("/a", "/b"))),
        (
            "chain",
            file(
                FileChain::new()
                    .mkdir("/d", 0o755, false, None, None)
                    .mkfile("/d/f", 0o644, "x")
                    .rm("/d/f", RmPath::Literal, MissingPath::Fails),
            ),
        ),
        ("copy", copy(|_| {})),
        (
            "copy flags",
            copy(|info| {
                info.follow_symlinks = true;
                info.dir_contents_only = true;
                info.unpack = true;
                info.create_dest = true;
                info.allow_wildcard = true;
                info.allow_empty_wildcard = true;
            }),
        ),
        (
            "copy patterns",
            copy(|info| {
                info.include = texts(&["a"]);
                info.exclude = texts(&["b"]);
            }),
        ),
        ("copy required", copy(|info| info.required = texts(&["/r"]))),
        (
            "copy mode",
            copy(|info| info.mode = Some(Chmod::Bits(0o755))),
        ),
        (
            "copy symbolic mode",
            copy(|info| info.mode = Some(Chmod::Symbolic("u+x".into()))),
        ),
        ("copy owner", copy(|info| info.owner = owner_of("u:5"))),
        ("copy replace", copy(|info| info.always_replace = true)),
        ("copy time", copy(|info| info.created = when)),
        (
            "copy scratch",
            FileChain::new()
                .copy(&other(), "a", "b", CopyInfo::default())
                .on(&scratch, plain()),
        ),
        (
            "copy itself",
            file(FileChain::new().copy(&base(), "a", "b", CopyInfo::default())),
        ),
        (
            "copy twice",
            file(
                FileChain::new()
                    .copy(&other(), "a", "b", CopyInfo::default())
                    .copy(&context(|_| {}), "c", "d", CopyInfo::default())
                    .copy(&other(), "e", "f", CopyInfo::default()),
            ),
        ),
    ];
    let combined = [
        ("merge", merge(&[&base(), &other()], plain())),
        ("merge of one", merge(&[&base()], plain())),
        (
            "merge with scratch",
            merge(&[&base(), &scratch, &other()], plain()),
        ),
        ("diff", diff(&base(), &run(|run| run), plain())),
        ("diff of nothing", diff(&scratch, &other(), plain())),
        ("diff to nothing", diff(&base(), &scratch, plain())),
    ];
    sources
        .into_iter()
        .chain(processes)
        .chain(files)
        .chain(combined)
        .collect()
}

fn options() -> MarshalOptions {
    MarshalOptions {
        platform: Platform::new("linux", "amd64", ""),
        sets_default_path: true,
        local_unique_id: "unique".into(),
    }
}

/// What a state comes to in the form of the recording.
fn answer(state: &State) -> Value {
    let definition = marshal(state.output(), &options()).unwrap();
    if definition.def.is_empty() {
        return json!({ "ops": 0 });
    }
    let graph = Graph::load(&definition).unwrap();
    let root = &graph.nodes[graph.root.node];
    // A client that does not know the daemon leaves `PATH` to it without asking for that.
    let caps = root.metadata.caps.keys();
    let caps = caps.filter(|cap| *cap != "exec.meta.setsdefaultpath");
    json!({
        "ops": graph.nodes.len(),
        "digest": root.digest.as_str(),
        "index": graph.root.output,
        "caps": caps.collect::<Vec<_>>(),
    })
}

#[test]
fn every_state_has_the_digest_that_buildkits_client_gives_it() {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../data/states.json")).expect("the vectors are JSON");
    let mut states = states();
    let mut differences = Vec::new();
    for vector in &vectors {
        let name = vector["in"].as_str().expect("a text");
        let Some(state) = states.remove(name) else {
            differences.push(format!("{name} is not built"));
            continue;
        };
        let actual = answer(&state);
        if actual != vector["out"] {
            let want = &vector["out"];
            differences.push(format!("{name}:\n  {actual}\n  BuildKit says\n  {want}"));
        }
    }
    differences.extend(states.keys().map(|name| format!("{name} is not recorded")));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_definition_that_becomes_a_state_again_is_the_same() {
    for (name, state) in states() {
        let definition = marshal(state.output(), &options()).unwrap();
        let again = llb::build::state_from_definition(&definition).unwrap();
        let again = marshal(again.output(), &options()).unwrap();
        assert_eq!(again.def, definition.def, "{name}");
        assert_eq!(again.metadata, definition.metadata, "{name}");
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let refused = |state: &State| marshal(state.output(), &options()).unwrap_err().to_string();
    let no_args = Run::new(&base(), Vec::new(), plain()).root_of(&base());
    assert_eq!(refused(&no_args), "arguments are required");
    assert_eq!(refused(&file(FileChain::new())), "action is required");
    let tmpfs = run_with("/t", &other(), |mount| {
        mount.content = MountContent::Tmpfs { size: 0 };
    });
    assert_eq!(refused(&tmpfs), "tmpfs mounts must use scratch");
    let (_, mounts) = process()
        .mount(mounted("/c", &State::scratch(), |mount| {
            mount.content = cache(Sharing::Shared);
        }))
        .outputs();
    let cached = base().with_output(mounts.into_iter().next());
    assert_eq!(refused(&cached), "mount /c can't be used as a parent");
    let late = llb::build::Late::new();
    let unset = State::new(Some(llb::build::Output::late(&late)));
    assert_eq!(
        refused(&unset),
        "an output was not set before the definition was marshaled"
    );
    late.set(&base());
    assert_eq!(answer(&unset), answer(&base()));
}

#[test]
fn an_image_that_is_none_is_refused() {
    for text in ["", "A/B", "a b", "docker.io/", "x@sha256:00"] {
        let error = image(text, &ImageOpts::default(), plain()).unwrap_err();
        assert_eq!(error.kind(), oci::ErrorKind::Invalid, "{text}");
        assert!(std::error::Error::source(&error).is_some(), "{text}");
    }
}

#[test]
fn each_option_changes_what_a_result_is_or_says_that_it_does_not() {
    // What differs only in names, groups and the cache is the same step.
    let same = [
        Constraints::named("x"),
        plain().describe("key", "value"),
        plain().ignore_cache(true),
        plain().progress_group("id", "name", false),
        plain().resources(Some(pb::LinuxResources {
            memory: 1,
            ..pb::LinuxResources::default()
        })),
    ];
    let root_digest = |state: &State| answer(state)["digest"].clone();
    let chain = |constraints| {
        FileChain::new()
            .mkdir("/d", 0o755, false, None, None)
            .on(&base(), constraints)
    };
    let plainly = root_digest(&chain(plain()));
    for constraints in same {
        assert_eq!(
            root_digest(&chain(constraints.clone())),
            plainly,
            "{constraints:?}"
        );
    }
    let mut digests: Vec<(String, &str)> = states()
        .into_iter()
        .map(|(name, state)| (answer(&state)["digest"].to_string(), name))
        .collect();
    digests.sort();
    let equal: Vec<(&str, &str)> = digests
        .windows(2)
        .filter(|pair| pair[0].0 == pair[1].0)
        .map(|pair| (pair[0].1, pair[1].1))
        .collect();
    // A merge of one thing is that thing; a mount's output is one of its process.
    let expected = [
        ("image", "merge of one"),
        ("merge", "merge with scratch"),
        ("run bind", "run bind no output"),
    ];
    assert!(
        equal.iter().all(|pair| expected.contains(pair)),
        "{equal:?}"
    );
}

#[test]
fn metadata_of_steps_is_written_beside_them() {
    let constraints = Constraints::named("a name")
        .describe("key", "value")
        .ignore_cache(true)
        .progress_group("id", "group", true)
        .resources(Some(pb::LinuxResources {
            memory: 5,
            ..pb::LinuxResources::default()
        }));
    let state = FileChain::new()
        .rm("/x", RmPath::Literal, MissingPath::Fails)
        .on(&base(), constraints);
    let definition = marshal(state.output(), &options()).unwrap();
    let graph = Graph::load(&definition).unwrap();
    let node = &graph.nodes[graph.root.node];
    assert_eq!(node.display_name(), "a name");
    assert_eq!(node.metadata.description["key"], "value");
    assert!(node.metadata.ignore_cache);
    let group = node.metadata.progress_group.as_ref().unwrap();
    assert_eq!(
        (group.id.as_str(), group.name.as_str(), group.weak),
        ("id", "group", true)
    );
    assert_eq!(
        node.metadata.linux_resources.as_ref().map(|r| r.memory),
        Some(5)
    );
}

#[test]
fn places_of_steps_are_written_once_for_each_file() {
    let map = std::sync::Arc::new(llb::build::SourceMap {
        filename: "Dockerfile".into(),
        language: "Dockerfile".into(),
        data: "FROM x".into(),
        definition: None,
    });
    let range = |line| pb::Range {
        start: Some(pb::Position { line, character: 0 }),
        end: Some(pb::Position { line, character: 4 }),
    };
    let step = |state: &State, line| {
        let constraints = plain().at(Some(&map), vec![range(line)]);
        FileChain::new()
            .rm(&format!("/{line}"), RmPath::Literal, MissingPath::Fails)
            .on(state, constraints)
    };
    let state = step(&step(&base(), 1), 2);
    let definition = marshal(state.output(), &options()).unwrap();
    let source = definition.source.clone().unwrap();
    assert_eq!(source.infos.len(), 1);
    assert_eq!(source.infos[0].filename, "Dockerfile");
    let with_places = source.locations.values();
    let with_places = with_places.filter(|places| !places.locations.is_empty());
    assert_eq!(with_places.count(), 2);
    let graph = Graph::load(&definition).unwrap();
    let lines: Vec<i32> = graph
        .nodes
        .iter()
        .flat_map(|node| &node.locations)
        .flat_map(|location| &location.ranges)
        .filter_map(|range| range.start.map(|start| start.line))
        .collect();
    assert_eq!(lines, [1, 2]);
}
