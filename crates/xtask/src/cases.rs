//! The checks, run over small made-up workspaces: each fault is made once, and has to be found with its name.

mod workspace;

use self::workspace::{TABLE, Workspace};
use crate::{dead, deps, docs, errors, proto, test_lines};

/// A change to the workspace that keeps all rules, and what `deps` says then; nothing if it still keeps them.
type Change<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

const B_USES_A: &str = "[package]\nname = \"rbuild-b\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\nname = \"b\"\n\
    [dependencies]\na = { path = \"../a\", package = \"rbuild-a\" }\n";

#[test]
fn a_workspace_that_keeps_the_rules_passes_all_checks() {
    let workspace = Workspace::new();
    assert!(workspace.is_sound());
    deps::run(workspace.root()).unwrap();
    deps::show(workspace.root(), "b").unwrap();
    test_lines::run(workspace.root()).unwrap();
    dead::run(workspace.root()).unwrap();
}

#[test]
fn every_rule_of_layers_toml_is_checked() {
    let long = "// a line\n".repeat(701);
    let no_edge = TABLE.replace("b = [\"a\"]", "b = []");
    let circle = TABLE.replace("a = []", "a = [\"b\"]");
    let unlisted = TABLE.replace("b = [\"a\"]\n", "");
    let reached = format!("{TABLE}[reached-by]\na = []\n");
    let reached_by_b = format!("{TABLE}[reached-by]\na = [\"b\"]\n");
    let reached_by_nobody = format!("{TABLE}[reached-by]\nzlib = []\n");
    let external = format!("{TABLE}[external]\nrbuild-a = []\n");
    let excepted = format!("{TABLE}[long-files]\n\"crates/a/src/long.rs\" = \"data\"\n");
    let listed_circle = format!("{TABLE}[circles]\na = [[\"x\", \"y\"]]\n");
    let unsafe_in = format!("unsafe-in = [\"a\"]\n{TABLE}");
    // Written with a gap, or this file would find itself.
    let opens_unsafe = "pub fn f() {\n    un-safe {}\n}\n".replace("un-safe", "unsafe");
    let modules = "mod x;\nmod y;\npub fn f() {}\n";
    let (x, y) = (
        "use crate::y::Y;\npub struct X(Y);\n",
        "use crate::x::X;\npub struct Y(Box<X>);\n",
    );
    let one_way = "pub struct Y;\n";
    let dev = format!("{B_USES_A}[dev-dependencies]\n");
    let cases: &[Change<'_>] = &[
        ("nothing", &[], &[]),
        (
            "an edge",
            &[("layers.toml", &no_edge)],
            &["b may not depend on a"],
        ),
        (
            "a member without a line",
            &[("layers.toml", &unlisted)],
            &["b has no line under [layers]"],
        ),
        (
            "a circle of the table",
            &[("layers.toml", &circle)],
            &["[layers] has a circle among"],
        ),
        (
            "a layer that is reached",
            &[("layers.toml", &reached)],
            &["b may not reach a: b → a"],
        ),
        (
            "a layer that may be reached",
            &[("layers.toml", &reached_by_b)],
            &[],
        ),
        (
            "a row for what nobody has",
            &[("layers.toml", &reached_by_nobody)],
            &["[reached-by] names zlib, which nothing depends on"],
        ),
        (
            "a library of others",
            &[("layers.toml", &external)],
            &["b may not use rbuild-a: only {} may"],
        ),
        (
            "a dependency that is not used",
            &[("crates/b/src/lib.rs", "pub fn g() {}\n")],
            &["b depends on rbuild-a and does not use it"],
        ),
        (
            "a dependency that a comment uses",
            &[("crates/b/src/lib.rs", "// a::f()\npub fn g() {}\n")],
            &["b depends on rbuild-a and does not use it"],
        ),
        (
            "a circle of modules",
            &[
                ("crates/a/src/lib.rs", modules),
                ("crates/a/src/x.rs", x),
                ("crates/a/src/y.rs", y),
            ],
            &["modules of a depend on each other in a circle: {\"x\", \"y\"}"],
        ),
        (
            "a circle that is listed",
            &[
                ("layers.toml", &listed_circle),
                ("crates/a/src/lib.rs", modules),
                ("crates/a/src/x.rs", x),
                ("crates/a/src/y.rs", y),
            ],
            &[],
        ),
        (
            "a circle that is listed and gone",
            &[
                ("layers.toml", &listed_circle),
                ("crates/a/src/lib.rs", modules),
                ("crates/a/src/x.rs", x),
                ("crates/a/src/y.rs", one_way),
            ],
            &["modules of a are no circle any more: remove {\"x\", \"y\"} from [circles]"],
        ),
        (
            "a long file",
            &[("crates/a/src/long.rs", &long)],
            &["crates/a/src/long.rs has 701 lines, 700 are allowed"],
        ),
        (
            "a long file that is generated",
            &[("crates/a/src/gen/long.rs", &long)],
            &[],
        ),
        (
            "a long file that is excepted",
            &[("layers.toml", &excepted), ("crates/a/src/long.rs", &long)],
            &[],
        ),
        (
            "an exception for no file",
            &[("layers.toml", &excepted)],
            &["layers.toml excepts crates/a/src/long.rs, which is not there"],
        ),
        (
            "an unsafe block",
            &[("crates/a/src/lib.rs", &opens_unsafe)],
            &["crates/a/src/lib.rs:2 is unsafe, which belongs into {}"],
        ),
        (
            "an unsafe block where it may be",
            &[
                ("layers.toml", &unsafe_in),
                ("crates/a/src/lib.rs", &opens_unsafe),
            ],
            &[],
        ),
        (
            "a table of dependencies of tests",
            &[("crates/b/Cargo.toml", &dev)],
            &[],
        ),
    ];
    for (what, files, faults) in cases {
        let workspace = Workspace::new();
        for (name, text) in *files {
            workspace.write(name, text);
        }
        match deps::run(workspace.root()) {
            Ok(()) => assert!(faults.is_empty(), "{what} is taken"),
            Err(report) => {
                assert!(!faults.is_empty(), "{what}: {report}");
                for fault in *faults {
                    assert!(
                        report.contains(fault),
                        "{what}: {fault:?} is not in {report}"
                    );
                }
                let count = report.lines().count() - 1;
                assert_eq!(count, faults.len(), "{what}: {report}");
            }
        }
    }
}

#[test]
fn an_edge_of_tests_is_none_of_the_program() {
    let workspace = Workspace::new();
    let allowed = TABLE.replace("b = [\"a\"]", "b = []");
    let in_tests = B_USES_A.replace("[dependencies]", "[dev-dependencies]");
    workspace.write("crates/b/Cargo.toml", &in_tests);
    workspace.write("layers.toml", &allowed);
    let refused = deps::run(workspace.root()).unwrap_err();
    assert!(refused.contains("b may not depend on a"), "{refused}");
    workspace.write(
        "layers.toml",
        &format!("{allowed}[dev]\nb = [\"a\"]\n[reached-by]\na = []\n"),
    );
    deps::run(workspace.root()).unwrap();
    // What only tests use may stand in the tests alone.
    workspace.write("crates/b/src/lib.rs", "pub fn g() {}\n");
    workspace.write(
        "crates/b/tests/suite.rs",
        "#[test]\nfn t() {\n    a::f();\n}\n",
    );
    deps::run(workspace.root()).unwrap();
}

#[test]
fn a_table_that_cannot_be_read_is_named_with_the_place() {
    for (text, words) in [
        ("[layers", "layers.toml: "),
        ("", "missing field `layers`"),
        ("[layers]\n[layer]\n", "unknown field `layer`"),
        ("[layers]\na = 1\n", "line 2"),
    ] {
        let workspace = Workspace::new();
        workspace.write("layers.toml", text);
        let refused = deps::run(workspace.root()).unwrap_err();
        assert!(refused.contains(words), "{text:?}: {refused}");
    }
    let workspace = Workspace::new();
    std::fs::remove_file(workspace.root().join("layers.toml")).unwrap();
    let refused = deps::run(workspace.root()).unwrap_err();
    assert!(
        refused.starts_with("cannot read layers.toml: "),
        "{refused}"
    );
    workspace.write("Cargo.toml", "[workspace");
    workspace.write("layers.toml", TABLE);
    let refused = deps::run(workspace.root()).unwrap_err();
    assert!(refused.starts_with("cargo metadata: "), "{refused}");
    let none = deps::show(&Workspace::new().root().join("none"), "a").unwrap_err();
    assert!(none.contains("none"), "{none}");
    let unknown = deps::show(Workspace::new().root(), "c").unwrap_err();
    assert_eq!(unknown, "c is no member");
}

#[test]
fn a_member_below_its_floor_is_named_with_its_figure() {
    let workspace = Workspace::new();
    let floors = |text: &str| {
        let tests = format!("[layers]\na = []\nb = [\"a\"]\n[tests]\n{text}");
        workspace.write("layers.toml", &tests);
        test_lines::run(workspace.root())
    };
    workspace.write(
        "crates/a/src/lib.rs",
        "pub fn f() {}\npub fn g() {}\n#[cfg(test)]\nmod tests;\n",
    );
    workspace.write("crates/a/src/tests.rs", "#[test]\nfn t() {}\n");
    let lists = "without-floor = []\nnot-counted = []\n";
    floors(&format!("overall = 0.0\neach = 0.0\n{lists}")).unwrap();
    let low = floors(&format!("overall = 0.9\neach = 0.1\n{lists}")).unwrap_err();
    // `a` has four lines of tests (two of them say that there are some) for two of code, `b` none for three.
    assert!(
        low.contains("all members together have 0.800 test lines per code line"),
        "{low}"
    );
    assert!(
        low.contains("b has 0.000 test lines per code line, its floor is 0.1"),
        "{low}"
    );
    assert!(!low.contains("a has"), "{low}");
    floors("overall = 0.0\neach = 0.1\nwithout-floor = [\"b\"]\nnot-counted = []\n").unwrap();
    // Members that are not counted are left out of the total, too.
    floors("overall = 2.0\neach = 0.1\nwithout-floor = []\nnot-counted = [\"b\"]\n").unwrap();
    let gone = floors("overall = 0.0\neach = 0.0\nwithout-floor = [\"c\"]\nnot-counted = []\n");
    assert!(
        gone.unwrap_err()
            .contains("[tests] names c, which is not a member")
    );
    let unknown = floors(&format!("overall = 0.0\neach = 0.0\nleast = 1\n{lists}")).unwrap_err();
    assert!(unknown.contains("unknown field `least`"), "{unknown}");
}

#[test]
fn an_error_without_its_cause_is_found_in_any_member() {
    let workspace = Workspace::new();
    for folder in ["daemon", "cli", "integration", "proto", "fuzz"] {
        std::fs::create_dir_all(workspace.root().join(folder)).unwrap();
    }
    errors::run(workspace.root()).unwrap();
    let lost = "#[derive(Debug, thiserror::Error)]\npub enum E {\n    #[error(\"cannot read\")]\n    Read { source: std::io::Error },\n}\n";
    for member in [
        "crates/a/src/error.rs",
        "daemon/src/deep/er/error.rs",
        "cli/src/lib.rs",
    ] {
        workspace.write(member, lost);
        let report = errors::run(workspace.root()).unwrap_err();
        assert!(
            report.contains(&format!(
                "{member}: E::Read: the message does not print its cause"
            )),
            "{report}"
        );
        workspace.write(
            member,
            &lost.replace("cannot read", "cannot read: {source}"),
        );
        errors::run(workspace.root()).unwrap();
    }
    // Generated code is as its generator writes it.
    workspace.write("crates/a/src/gen/error.rs", lost);
    errors::run(workspace.root()).unwrap();
}

const PAGE: &str = "before\n<!-- table: flags -->\n| old |\n<!-- end of table -->\nafter\n";
const REFERENCE: &str = "table: flags\n| new |\n";

#[test]
fn pages_that_are_out_of_date_are_named_and_brought_up_to_date() {
    let workspace = Workspace::new();
    workspace.write("docs/configuration.md", PAGE);
    workspace.write("docs/operating.md", "no table here\n");
    workspace.write("docs/using.md", "no table here\n");
    let fill = |reference: &str, check| docs::fill(workspace.root(), reference, check);
    let stale = fill(REFERENCE, true).unwrap_err();
    assert!(
        stale.contains("[\"docs/configuration.md\"] are not those of the code"),
        "{stale}"
    );
    assert_eq!(
        workspace.read("docs/configuration.md"),
        PAGE,
        "a check writes nothing"
    );
    fill(REFERENCE, false).unwrap();
    let fresh = workspace.read("docs/configuration.md");
    assert_eq!(fresh, PAGE.replace("old", "new"));
    fill(REFERENCE, true).unwrap();
    let no_page = fill(&format!("{REFERENCE}table: more\n| x |\n"), true).unwrap_err();
    assert_eq!(no_page, "no page has the table \"more\"");
    let undeclared = fill("table: other\n| x |\n", true).unwrap_err();
    assert!(
        undeclared.contains("docs/configuration.md: nothing declares the table \"flags\""),
        "{undeclared}"
    );
    std::fs::remove_file(workspace.root().join("docs/using.md")).unwrap();
    let missing = fill(REFERENCE, true).unwrap_err();
    assert!(
        missing.starts_with("cannot read docs/using.md: "),
        "{missing}"
    );
}

const ONE: &str = "syntax = \"proto3\";\npackage one.v1;\nimport \"two.proto\";\n\
    message Ask {\n  string name = 1;\n  two.v1.Thing thing = 2;\n  map<string, bytes> blobs = 3;\n  repeated int32 sizes = 4;\n}\n\
    service Asking {\n  rpc Put(Ask) returns (two.v1.Thing);\n}\n";
const TWO: &str = "syntax = \"proto3\";\npackage two.v1;\nmessage Thing {\n  uint64 size = 1;\n}\n";

fn protos() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("proto/protos/one.proto", ONE);
    workspace.write("proto/protos/two.proto", TWO);
    for folder in ["proto/src/gen", "crates/services/src/gen"] {
        std::fs::create_dir_all(workspace.root().join(folder)).unwrap();
    }
    workspace
}

#[test]
fn messages_services_and_shapes_are_generated_compared_and_cleared_away() {
    let workspace = protos();
    let root = workspace.root();
    let missing = proto::run(root, true).unwrap_err();
    assert!(
        missing.contains("proto/src/gen/one.rs") && missing.contains("shapes.rs"),
        "{missing}"
    );
    workspace.write("proto/src/gen/gone.rs", "// of a file that is gone\n");
    proto::run(root, false).unwrap();
    proto::run(root, true).unwrap();
    assert!(!root.join("proto/src/gen/gone.rs").exists());
    let messages = workspace.read("proto/src/gen/one.rs");
    assert!(
        messages.contains("pub struct Ask") && messages.contains("crate::two::Thing"),
        "{messages}"
    );
    assert!(!messages.contains("asking_client"), "messages know no gRPC");
    let services = workspace.read("crates/services/src/gen/one.rs");
    assert!(
        services.contains("asking_client") && services.contains("::proto::one::Ask"),
        "{services}"
    );
    assert!(
        !root.join("crates/services/src/gen/two.rs").exists(),
        "two has no service"
    );
    let shapes = workspace.read("proto/src/gen/shapes.rs");
    for line in [
        "Field { number: 1, name: \"name\", many: false, holds: Holds::Bytes },",
        "Field { number: 2, name: \"thing\", many: false, holds: Holds::Message(&TWO_V1_THING) },",
        "Field { number: 3, name: \"blobs\", many: true, holds: Holds::Message(&ONE_V1_ASK_BLOBSENTRY) },",
        "Field { number: 4, name: \"sizes\", many: true, holds: Holds::Number },",
        "size: ::core::mem::size_of::<(::std::string::String, ::std::string::String)>(),",
        "impl Shaped for crate::one::Ask {",
        "(&TWO_V1_THING, crate::weigh::decode_as::<crate::two::Thing>),",
    ] {
        assert!(shapes.contains(line), "{line} is not in {shapes}");
    }
    workspace.write(
        "proto/src/gen/one.rs",
        &messages.replace("pub struct", "pub  struct"),
    );
    let edited = proto::run(root, true).unwrap_err();
    assert!(edited.contains("[\"proto/src/gen/one.rs\"]"), "{edited}");
}

#[test]
fn a_proto_file_that_is_wrong_or_has_no_shape_is_refused() {
    for (text, words) in [
        (
            "syntax = \"proto3\";\nmessage {",
            "expected an identifier, but found '{'",
        ),
        (
            "syntax = \"proto3\";\nimport \"none.proto\";\n",
            "none.proto",
        ),
        (
            "syntax = \"proto3\";\npackage one.v1;\nmessage Outer {\n  message Inner {}\n  Inner inner = 1;\n}\n",
            "one.v1.Outer.Inner: nested messages have no shape",
        ),
    ] {
        let workspace = protos();
        workspace.write("proto/protos/one.proto", text);
        let refused = proto::run(workspace.root(), false).unwrap_err();
        assert!(refused.contains(words), "{text}: {refused}");
    }
}
