//! Every flag of `rbuild build`, and what of the request it changes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::{CommandFactory as _, Parser as _};
use client::{FileTarget, SecretSource, Target};

use super::request::{PreparedBuild, WrittenLayout, prepare};
use crate::args::{Build, Cli, Command};
use crate::build::call::FrontendCall;
use crate::failure::CliError;

/// A context that nothing is read of here.
const REMOTE: &str = "https://example.com/x.git";

fn parsed(argv: &[&str]) -> Build {
    let all = ["rbuild", "build"].iter().chain(argv);
    match Cli::try_parse_from(all) {
        Ok(Cli {
            command: Command::Build(flags),
            ..
        }) => flags,
        Ok(_) => panic!("{argv:?} is no build"),
        Err(error) => panic!("{argv:?}: {error}"),
    }
}

async fn prepared(argv: &[&str]) -> Result<PreparedBuild, CliError> {
    let flags = parsed(argv);
    let question = flags.question()?;
    prepare(&flags, question).await
}

/// A request as lines, without what is random.
fn lines(prepared: &PreparedBuild) -> BTreeSet<String> {
    let request = &prepared.request;
    let mut lines = BTreeSet::new();
    let joined = |attrs: &std::collections::BTreeMap<String, String>| -> String {
        let pairs: Vec<_> = attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pairs.join(",")
    };
    lines.extend(request.attrs.iter().map(|(k, v)| format!("attr {k}={v}")));
    for exporter in &request.exporters {
        lines.insert(format!(
            "exporter {} {}",
            exporter.kind,
            joined(&exporter.attrs)
        ));
    }
    for cache in &request.cache_from {
        lines.insert(format!(
            "cache from {} {}",
            cache.kind,
            joined(&cache.attrs)
        ));
    }
    for cache in &request.cache_to {
        lines.insert(format!("cache to {} {}", cache.kind, joined(&cache.attrs)));
    }
    lines.extend(
        request
            .entitlements
            .iter()
            .map(|name| format!("entitlement {name}")),
    );
    if request.internal {
        lines.insert("internal".into());
    }
    let offer = &request.attachables;
    for (name, folder) in &offer.folders {
        lines.insert(format!("folder {name} {:?}", folder.only));
    }
    for (index, target) in &offer.targets {
        lines.insert(match target {
            Target::Folder(folder) => format!(
                "target {index} folder {} mirror={} special={}",
                folder.path.display(),
                folder.mirror,
                folder.special
            ),
            Target::Bytes(FileTarget::File(path)) => {
                format!("target {index} file {}", path.display())
            }
            Target::Bytes(FileTarget::Stdout) => format!("target {index} standard output"),
            Target::Bytes(FileTarget::Program(argv)) => format!("target {index} program {argv:?}"),
        });
    }
    for (id, source) in &offer.secrets {
        lines.insert(match source {
            SecretSource::File(path) => format!("secret {id} {}", path.display()),
            SecretSource::Value(value) => format!("secret {id} of {} bytes", value.len()),
        });
    }
    lines.extend(
        offer
            .ssh
            .iter()
            .map(|(id, path)| format!("ssh {id} {}", path.display())),
    );
    lines.extend(
        offer
            .stores
            .values()
            .map(|path| format!("store {}", path.display())),
    );
    for layout in &prepared.layouts {
        lines.insert(match layout {
            WrittenLayout::Image(path) => format!("layout of the image {}", path.display()),
            WrittenLayout::Cache(path, tag) => {
                format!("layout of the cache {} {tag}", path.display())
            }
        });
    }
    lines
}

/// The lines that flags add to the request of a build without any.
async fn added(argv: &[&str]) -> Vec<String> {
    let plain = lines(&prepared(&[REMOTE]).await.unwrap());
    let with = prepared(&[argv, &[REMOTE]].concat()).await;
    let with = lines(&with.unwrap_or_else(|error| panic!("{argv:?}: {error}")));
    with.difference(&plain).cloned().collect()
}

#[tokio::test]
async fn every_flag_of_build_changes_the_request_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().display().to_string();
    fs::write(dir.path().join("tok"), "secret").unwrap();
    fs::write(dir.path().join("Dockerfile"), "FROM scratch").unwrap();
    let socket = dir.path().join("agent.sock");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let file = format!("--file={here}/Dockerfile");
    let secret = format!("--secret=id=tok,src={here}/tok");
    let (secret_line, ssh_line) = (
        format!("secret tok {here}/tok"),
        format!("ssh k {here}/agent.sock"),
    );
    let ssh = format!("--ssh=k={here}/agent.sock");
    let only = "folder dockerfile [\"Dockerfile\", \"Dockerfile.dockerignore\", \".dockerignore\"]";
    let caps = "attr frontend.caps=moby.buildkit.frontend.contexts+forward";
    let asks = "attr frontend.caps=moby.buildkit.frontend.subrequests";
    let lint = "attr requestid=frontend.lint";
    let cases: Vec<(&str, Vec<&str>, Vec<&str>)> = vec![
        (
            "file",
            vec![&file],
            vec!["attr dockerfilekey=dockerfile", only],
        ),
        ("target", vec!["--target=t"], vec!["attr target=t"]),
        (
            "tag",
            vec!["--tag=a:1", "-t", "b", "-o", "type=image"],
            vec!["exporter image name=a:1,b"],
        ),
        (
            "build-arg",
            vec!["--build-arg=K=V=1"],
            vec!["attr build-arg:K=V=1"],
        ),
        (
            "build-arg",
            vec!["--build-arg=K="],
            vec!["attr build-arg:K="],
        ),
        (
            "build-arg",
            vec!["--build-arg=NO_SUCH_VARIABLE_OF_TESTS"],
            vec![],
        ),
        (
            "build-context",
            vec!["--build-context=base=docker-image://x"],
            vec!["attr context:base=docker-image://x", caps],
        ),
        (
            "build-context",
            vec!["--build-context=stage=target:other"],
            vec!["attr context:stage=target:other", caps],
        ),
        (
            "platform",
            vec!["--platform=linux/amd64,linux/arm64"],
            vec!["attr platform=linux/amd64,linux/arm64"],
        ),
        ("no-cache", vec!["--no-cache"], vec!["attr no-cache="]),
        (
            "no-cache",
            vec!["--no-cache", "--no-cache-filter=a"],
            vec!["attr no-cache="],
        ),
        (
            "no-cache-filter",
            vec!["--no-cache-filter=a,b"],
            vec!["attr no-cache=a,b"],
        ),
        (
            "cache-from",
            vec!["--cache-from=r.example/c"],
            vec!["cache from registry ref=r.example/c"],
        ),
        (
            "cache-from",
            vec!["--cache-from=type=gha,scope=s"],
            vec!["cache from gha scope=s"],
        ),
        (
            "cache-to",
            vec!["--cache-to=type=inline"],
            vec!["cache to inline "],
        ),
        (
            "cache-to",
            vec!["--cache-to=type=local,dest=/c,tag=t,mode=max"],
            vec![
                "cache to local dest=/c,mode=max,tag=t",
                "layout of the cache /c t",
                "store /c",
            ],
        ),
        ("secret", vec![&secret], vec![&secret_line]),
        ("ssh", vec![&ssh], vec![&ssh_line]),
        (
            "output",
            vec!["--output=out"],
            vec![
                "exporter local ",
                "target 0 folder out mirror=false special=false",
            ],
        ),
        ("progress", vec!["--progress=plain"], vec![]),
        ("quiet", vec!["--quiet"], vec![]),
        ("metadata-file", vec!["--metadata-file=/m"], vec![]),
        ("iidfile", vec!["--iidfile=/i"], vec![]),
        (
            "push",
            vec!["--push", "-t", "a"],
            vec!["exporter image name=a,push=true"],
        ),
        (
            "push",
            vec!["--push", "-o", "type=image,name=b"],
            vec!["exporter image name=b,push=true"],
        ),
        (
            "load",
            vec!["--load", "-o", "type=docker,dest=x.tar"],
            vec!["exporter docker ", "target 0 file x.tar"],
        ),
        (
            "label",
            vec!["--label=k=v", "--label=e"],
            vec!["attr label:e=", "attr label:k=v"],
        ),
        (
            "annotation",
            vec!["--annotation=k=v", "-o", "type=image"],
            vec!["exporter image annotation.k=v"],
        ),
        (
            "network",
            vec!["--network=host"],
            vec!["attr force-network-mode=host", "entitlement network.host"],
        ),
        (
            "network",
            vec!["--network=none"],
            vec!["attr force-network-mode=none"],
        ),
        ("network", vec!["--network=default"], vec![]),
        (
            "allow",
            vec!["--allow=network.host,security.insecure", "--network=host"],
            vec![
                "attr force-network-mode=host",
                "entitlement network.host",
                "entitlement security.insecure",
            ],
        ),
        (
            "service",
            vec!["--service=db=postgres,env=A=b"],
            vec!["attr service:db=postgres,env=A=b"],
        ),
        (
            "add-host",
            vec!["--add-host=h:1.2.3.4", "--add-host=i=[::1]"],
            vec!["attr add-hosts=h=1.2.3.4,i=::1"],
        ),
        (
            "shm-size",
            vec!["--shm-size=2g"],
            vec!["attr shm-size=2147483648"],
        ),
        (
            "ulimit",
            vec!["--ulimit=nofile=5", "--ulimit=core=-1"],
            vec!["attr ulimit=nofile=5:5,core=-1:-1"],
        ),
        (
            "cgroup-parent",
            vec!["--cgroup-parent=/p"],
            vec!["attr cgroup-parent=/p"],
        ),
        ("pull", vec!["--pull"], vec!["attr image-resolve-mode=pull"]),
        (
            "provenance",
            vec!["--provenance"],
            vec!["attr attest:provenance="],
        ),
        (
            "provenance",
            vec!["--provenance=mode=max"],
            vec!["attr attest:provenance=mode=max"],
        ),
        ("provenance", vec!["--provenance=false"], vec![]),
        (
            "sbom",
            vec!["--sbom=generator=g"],
            vec!["attr attest:sbom=generator=g"],
        ),
        ("sbom", vec!["--sbom=true"], vec!["attr attest:sbom="]),
        (
            "call",
            vec!["--call=outline"],
            vec![asks, "attr requestid=frontend.outline", "internal"],
        ),
        ("call", vec!["--call=build"], vec![]),
        ("check", vec!["--check"], vec![asks, lint, "internal"]),
        // A question has no result, so that nothing is done with it.
        (
            "check",
            vec!["--check", "-o", "out"],
            vec![asks, lint, "internal"],
        ),
        ("opt", vec!["--opt=k=v=w"], vec!["attr k=v=w"]),
        ("builder", vec!["--builder=x"], vec![]),
        ("rm", vec!["--rm=false"], vec![]),
        ("force-rm", vec!["--force-rm"], vec![]),
    ];
    let mut program = Cli::command();
    program.build();
    let build = program.find_subcommand("build").unwrap();
    let of_connection = [
        "addr",
        "tlscacert",
        "tlscert",
        "tlskey",
        "tlsdir",
        "tlsservername",
        "debug",
        "help",
    ];
    let declared: BTreeSet<&str> = build
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .collect();
    let tried: BTreeSet<&str> = cases
        .iter()
        .map(|case| case.0)
        .chain(of_connection)
        .collect();
    assert_eq!(declared, tried, "a flag has no case, or a case has no flag");
    for (_, argv, expected) in cases {
        assert_eq!(added(&argv).await, expected, "{argv:?}");
    }
}

#[tokio::test]
async fn outputs_go_where_they_say_by_their_place_in_the_list() {
    let cases: [(&[&str], &[&str]); 12] = [
        (&["type=cacheonly"], &[]),
        (
            &["type=registry,name=r.example/a"],
            &["exporter image name=r.example/a,push=true"],
        ),
        (&["type=image,name=a"], &["exporter image name=a"]),
        (
            &["type=tar,dest=f.tar"],
            &["exporter tar ", "target 0 file f.tar"],
        ),
        (
            &["type=tar,output=f.tar"],
            &["exporter tar ", "target 0 file f.tar"],
        ),
        (
            &["type=local,dest=d,mode=delete,special=1"],
            &[
                "exporter local mode=delete",
                "target 0 folder d mirror=true special=true",
            ],
        ),
        (
            &["type=oci,dest=d,tar=false"],
            &["exporter oci tar=false", "layout of the image d", "store d"],
        ),
        (
            &["type=oci,dest=a.tar,compression=zstd", "out"],
            &[
                "exporter local ",
                "exporter oci compression=zstd",
                "target 0 file a.tar",
                "target 1 folder out mirror=false special=false",
            ],
        ),
        // What is not exported has no place in the list.
        (
            &["type=cacheonly", "out"],
            &[
                "exporter local ",
                "target 0 folder out mirror=false special=false",
            ],
        ),
        (
            &["type=docker,dest=-"],
            &["exporter docker ", "target 0 standard output"],
        ),
        (&["-"], &["exporter tar ", "target 0 standard output"]),
        (
            &["\"type=image\",\"name=a,b\""],
            &["exporter image name=a,b"],
        ),
    ];
    for (specs, expected) in cases {
        let argv: Vec<&str> = specs.iter().flat_map(|spec| ["-o", *spec]).collect();
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        if is_terminal && expected.iter().any(|line| line.contains("standard output")) {
            // A terminal takes no archive: the case is for pipes.
            continue;
        }
        assert_eq!(added(&argv).await, expected, "{specs:?}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_flag_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().display().to_string();
    fs::write(dir.path().join("file"), "").unwrap();
    let at = |text: &str| text.replace("HERE", &here);
    let cases = [
        ("-o=type=local", "dest is required for local output"),
        (
            "-o=dest=x",
            "invalid value \"dest=x\" of --output: type is required",
        ),
        ("-o=", "no destination"),
        ("-o=a,b", "no destination"),
        (
            "-o=type=local,dest=x,mode=odd",
            "invalid mode \"odd\" of -o type=local",
        ),
        (
            "-o=type=local,dest=x,special=2",
            "invalid special \"2\" of -o type=local",
        ),
        ("-o=type=oci,tar=false", "tar=false wants dest=FOLDER"),
        (
            "-o=type=oci,dest=-,tar=false",
            "tar=false wants dest=FOLDER",
        ),
        ("-o=type=oci,dest=x,word", "\"word\" is no key=value pair"),
        (
            "-o=type=image,push=true",
            "tag is needed when pushing to registry: add -t NAME",
        ),
        ("-t=Not:A:Name", "invalid tag \"Not:A:Name\": "),
        ("--annotation==v", ""),
        (
            "--cache-from=type=local",
            "local cache importer requires src",
        ),
        (
            "--cache-from=ref=x",
            "invalid value \"ref=x\" of --cache-from: type is required",
        ),
        (
            "--cache-to=type=local",
            "local cache exporter requires dest",
        ),
        ("--cache-to=mode=max", "of --cache-to: type is required"),
        ("--secret=src=/x", "id is required"),
        ("--secret=id=,src=/x", "id is required"),
        ("--secret=id=x,type=word", "type is file or env"),
        ("--secret=id=x,src=/x,mode=1", "unexpected key \"mode\""),
        (
            "--secret=id=x,env=NO_SUCH_VARIABLE_OF_TESTS",
            "environment variable NO_SUCH_VARIABLE_OF_TESTS is not set",
        ),
        (
            "--secret=id=x,type=env,src=NO_SUCH_VARIABLE_OF_TESTS",
            "environment variable NO_SUCH_VARIABLE_OF_TESTS is not set",
        ),
        (
            "--secret=id=x,src=/no/such/file",
            "secret x: /no/such/file: No such file",
        ),
        ("--secret=word", "\"word\" is no key=value pair"),
        (
            "--ssh=k=/no/such/socket",
            "ssh /no/such/socket: No such file",
        ),
        ("--ssh=k=HERE/file", "key files are not built yet"),
        ("--build-context=x", "expected name=source"),
        ("--service=db", "expected name=image"),
        ("--build-context==x", "expected name=source"),
        ("--build-context=x=/no/such/folder", "no such folder"),
        (
            "--build-context=x=oci-layout://HERE",
            "could not find \"latest\" in the image layout",
        ),
        (
            "--build-context=x=oci-layout://HERE:t",
            "could not find \"t\" in the image layout",
        ),
        (
            "--build-context=x=oci-layout://HERE@sha256:zz",
            "invalid value \"HERE@sha256:zz\" of --build-context: ",
        ),
        (
            "--build-arg==v",
            "invalid value \"=v\" of --build-arg: expected key=value",
        ),
        ("--label==v", "of --label: expected key=value"),
        ("--opt==v", "of --opt: expected key=value"),
        (
            "--network=bridge",
            "network mode \"bridge\" not supported by buildkit",
        ),
        ("--add-host=h", "expected host:ip"),
        ("--add-host=h:here", "invalid IP address"),
        ("--shm-size=much", "unknown unit"),
        ("--shm-size=-1", "not a number of bytes"),
        ("--shm-size=1q", "unknown unit"),
        ("--shm-size=99999999999t", "not a number of bytes"),
        ("--ulimit=nofile", "expected name=soft[:hard]"),
        ("--ulimit=nofile=x", "limits are numbers"),
        (
            "--ulimit=nofile=2:1",
            "the soft limit is above the hard one",
        ),
        (
            "--ulimit=nofile=-1:1",
            "the soft limit is above the hard one",
        ),
        ("--call=outlines", "unknown method \"outlines\" of --call"),
        ("--call=check,targets", "invalid print value"),
        ("--call=check,color=red", "invalid print field"),
        (
            "--call=check,ignorestatus=maybe",
            "invalid ignorestatus print value: maybe",
        ),
    ];
    for (flag, words) in cases {
        let (flag, words) = (at(flag), at(words));
        let argv = [flag.as_str(), "-o", "type=image", REMOTE];
        // An output beside would be exported as well.
        let argv = if flag.starts_with("-o") || words.is_empty() {
            vec![flag.as_str(), REMOTE]
        } else {
            argv.to_vec()
        };
        match prepared(&argv).await {
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !words.is_empty() && error.contains(&words),
                    "{flag}: {error}"
                );
            }
            // Annotations are of images: where there is none, they are not looked at.
            Ok(_) => assert!(words.is_empty(), "{flag} is taken"),
        }
    }
}

#[tokio::test]
async fn a_secret_is_a_file_a_variable_or_what_the_id_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tok");
    fs::write(&file, "secret").unwrap();
    let path = file.display().to_string();
    let home = std::env::var_os("PATH").unwrap().len();
    for (spec, line) in [
        (format!("id=x,src={path}"), format!("secret x {path}")),
        (format!("id=x,source={path}"), format!("secret x {path}")),
        (
            format!("type=file,id=x,src={path}"),
            format!("secret x {path}"),
        ),
        (format!("id={path}"), format!("secret {path} {path}")),
        ("id=x,env=PATH".into(), format!("secret x of {home} bytes")),
        (
            "id=x,type=env,src=PATH".into(),
            format!("secret x of {home} bytes"),
        ),
        // An id that is the name of a variable is that variable.
        ("id=PATH".into(), format!("secret PATH of {home} bytes")),
        (format!("ID=x,SRC={path}"), format!("secret x {path}")),
    ] {
        assert_eq!(added(&["--secret", &spec]).await, [line], "{spec}");
    }
}

fn folder_with(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(dir.path().join(file), "FROM scratch").unwrap();
    }
    dir
}

async fn name_of_dockerfile(
    context: &Path,
    file: Option<&str>,
) -> Result<(String, String), String> {
    let context = context.display().to_string();
    let mut argv = vec![context.as_str()];
    argv.extend(file.iter().flat_map(|file| ["-f", *file]));
    match prepared(&argv).await {
        Ok(prepared) => {
            let shown = prepared.dockerfile.replace(&context, "CONTEXT");
            Ok((prepared.request.attrs["filename"].clone(), shown))
        }
        Err(error) => Err(error.to_string().replace(&context, "CONTEXT")),
    }
}

#[tokio::test]
async fn the_dockerfile_is_found_beside_the_context_or_named() {
    let both = folder_with(&["Dockerfile", "dockerfile", "app.Dockerfile"]);
    let lower = folder_with(&["dockerfile"]);
    let none = folder_with(&[]);
    let app = both.path().join("app.Dockerfile").display().to_string();
    let ok = |name: &str, shown: &str| Ok((name.to_owned(), shown.to_owned()));
    assert_eq!(
        name_of_dockerfile(both.path(), None).await,
        ok("Dockerfile", "CONTEXT/Dockerfile")
    );
    assert_eq!(
        name_of_dockerfile(lower.path(), None).await,
        ok("dockerfile", "CONTEXT/Dockerfile")
    );
    assert_eq!(
        name_of_dockerfile(both.path(), Some(&app)).await,
        ok("app.Dockerfile", "CONTEXT/app.Dockerfile")
    );
    let missing = "failed to read dockerfile: open CONTEXT/Dockerfile: no such file or directory";
    assert_eq!(
        name_of_dockerfile(none.path(), None).await,
        Err(missing.into())
    );
    let error = name_of_dockerfile(both.path(), Some("/"))
        .await
        .unwrap_err();
    assert_eq!(error, "\"/\" is no file");
    let twice = prepared(&["-f", "-", "-"]).await.unwrap_err().to_string();
    assert!(twice.contains("can't use stdin for both"), "{twice}");
}

#[test]
fn calls_have_short_and_long_names() {
    for (text, name) in [
        ("check", "frontend.lint"),
        ("lint", "frontend.lint"),
        ("outline,format=json", "frontend.outline"),
        ("targets", "frontend.targets"),
        ("describe", "frontend.subrequests.describe"),
        ("subrequests.describe", "frontend.subrequests.describe"),
    ] {
        assert_eq!(FrontendCall::parse(text).unwrap().unwrap().name, name);
    }
    for text in ["", "build", "format=json"] {
        assert!(FrontendCall::parse(text).unwrap().is_none(), "{text}");
    }
}

#[test]
fn a_command_line_that_is_wrong_is_refused_before_anything_runs() {
    for argv in [
        &["--check", "--call=outline"][..],
        &["--progress=loud"],
        &["one", "two"],
        &["--no-such-flag"],
        &["--tlsdir=/d", "--tlscert=/c"],
        &["--provenance", "mode=max", REMOTE],
    ] {
        let all = ["rbuild", "build"].iter().chain(argv);
        assert!(Cli::try_parse_from(all).is_err(), "{argv:?}");
    }
    let others = ["rbuild", "rbuild debug", "rbuild debug fsck"];
    let with_values = ["rbuild prune --reserved-space=much", "rbuild du extra"];
    for line in others.into_iter().chain(with_values) {
        let argv = line.split(' ');
        assert!(Cli::try_parse_from(argv).is_err(), "{line}");
    }
}
