use super::number::size;
use super::{
    Command, Device, Instruction, Mount, MountType, NetworkMode, SecurityMode, ShareMode, Stage,
    find_stage, parse,
};
use crate::lint::Linter;
use crate::syntax;

fn stages(text: &str) -> Result<Vec<Stage>, String> {
    let tree = syntax::parse(text.as_bytes()).map_err(|error| error.to_string())?;
    parse(&tree.root, &Linter::silent())
        .map(|(stages, _)| stages)
        .map_err(|error| error.to_string())
}

fn instruction(line: &str) -> Instruction {
    let stages = stages(&format!("FROM x\n{line}")).expect("the instruction is well formed");
    stages
        .into_iter()
        .next()
        .and_then(|stage| stage.commands.into_iter().next())
        .expect("the stage has a command")
}

fn command(line: &str) -> Command {
    instruction(line).command
}

/// Parses one instruction in a stage and returns what is wrong with it.
fn refusal(line: &str) -> String {
    let error = stages(&format!("FROM x\n{line}")).map_err(|error| {
        error
            .strip_prefix("dockerfile parse error on line 2: ")
            .unwrap_or(&error)
            .to_owned()
    });
    error.err().unwrap_or_else(|| "accepted".to_owned())
}

#[test]
fn wrong_instructions_are_refused_in_known_words() {
    let cases = [
        ("FOOBARBAZ x", "unknown instruction: FOOBARBAZ"),
        ("RNU x", "unknown instruction: RNU (did you mean RUN?)"),
        ("form x", "unknown instruction: form (did you mean from?)"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("USER", "USER requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("ENV", "ENV requires at least one argument"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ENV =v", "ENV names can not be blank"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =v", "ARG names can not be blank"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        (
            "VOLUME [\" \"]",
            "VOLUME specified can not be an empty string",
        ),
        ("SHELL []", "SHELL requires at least one argument"),
        (
            "SHELL bash -c",
            "SHELL requires the arguments to be in JSON form",
        ),
        (
            "ADD a",
            "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "COPY\n",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "COPY a <<EOF\nEOF",
            "COPY cannot accept a heredoc as a destination",
        ),
        (
            "ONBUILD FROM scratch",
            "FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "ONBUILD maintainer x",
            "MAINTAINER isn't allowed as an ONBUILD trigger",
        ),
        (
            "ONBUILD ONBUILD RUN x",
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("FROM a b", "FROM requires either one or three arguments"),
        (
            "FROM a AS 1x",
            "invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        (
            "FROM --plaform=x a",
            "unknown flag: --plaform (did you mean platform?)",
        ),
        ("MAINTAINER --boo joe@example.com", "unknown flag: --boo"),
        (
            "COPY --from=a --from=b x y",
            "duplicate flag specified: --from",
        ),
        ("COPY --from x y", "missing a value on flag: --from"),
        ("COPY --link= x y", "missing a value on flag: --link"),
        (
            "COPY --link=maybe x y",
            "expecting boolean value for flag --link, not: maybe",
        ),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        (
            "HEALTHCHECK RUN x",
            "Unknown type \"RUN\" in HEALTHCHECK (try CMD)",
        ),
        (
            "HEALTHCHECK --interval=50ns CMD x",
            "Interval \"interval\" cannot be less than 1ms",
        ),
        (
            "HEALTHCHECK --timeout=5 CMD x",
            "time: missing unit in duration \"5\"",
        ),
        (
            "HEALTHCHECK --retries=-1 CMD x",
            "--retries cannot be negative (-1)",
        ),
        (
            "HEALTHCHECK --retries=a CMD x",
            "strconv.ParseInt: parsing \"a\": invalid syntax",
        ),
        (
            "HEALTHCHECK --retries=9999999999 CMD x",
            "strconv.ParseInt: parsing \"9999999999\": value out of range",
        ),
        ("RUN --network=wlan x", "invalid network mode \"wlan\""),
        ("RUN --security=none x", "security \"none\" is not valid"),
        (
            "RUN --mount=from=$x,target=/a x",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("RUN --mount= x", "failed to parse csv mounts: EOF"),
        (
            "RUN --mount=a,b\\\"c x",
            "failed to parse csv mounts: parse error on line 1, column 4: bare \" in non-quoted-field",
        ),
        (
            "RUN --device=a,nam=b x",
            "unexpected key 'nam' in 'nam=b' (did you mean name?)",
        ),
    ];
    for (line, want) in cases {
        assert_eq!(refusal(line), want, "{line}");
    }
    assert_eq!(
        stages("RUN x"),
        Err("no build stage in current context".to_owned())
    );
    assert_eq!(
        stages("FROM a\n\n\nSOMETHING"),
        Err("dockerfile parse error on line 4: unknown instruction: SOMETHING".to_owned())
    );
}

#[test]
fn stages_and_arguments_keep_their_comments() {
    let text = "# foo sets foo\nARG foo=bar\n\n# base defines first stage\nFROM busybox AS Base\n# this is irrelevant\nARG foo\n# bar defines bar\n# baz is something else\nARG bar baz=123\nFROM --platform=$P base\n";
    let tree = syntax::parse(text.as_bytes()).expect("the file is well formed");
    let (stages, meta) = parse(&tree.root, &Linter::silent()).expect("the file is well formed");
    let docs = |args: &[super::ArgPair]| {
        args.iter()
            .map(|arg| (arg.key.clone(), arg.value.clone(), arg.doc_comment.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        meta.iter()
            .flat_map(|arg| docs(&arg.args))
            .collect::<Vec<_>>(),
        [("foo".into(), Some("bar".into()), "sets foo".into())]
    );
    let brief: Vec<_> = stages
        .iter()
        .map(|stage| {
            (
                stage.name.as_str(),
                stage.base_name.as_str(),
                stage.platform.as_str(),
                stage.doc_comment.as_str(),
            )
        })
        .collect();
    assert_eq!(
        brief,
        [
            ("base", "busybox", "", "defines first stage"),
            ("", "base", "$P", "")
        ]
    );
    let args: Vec<_> = stages
        .iter()
        .flat_map(|stage| &stage.commands)
        .flat_map(|command| {
            if let Command::Arg(arg) = &command.command {
                docs(&arg.args)
            } else {
                Vec::new()
            }
        })
        .collect();
    assert_eq!(
        args,
        [
            ("foo".into(), None, String::new()),
            ("bar".into(), None, "defines bar".into()),
            ("baz".into(), Some("123".into()), "is something else".into())
        ]
    );
    assert_eq!(find_stage(&stages, "BASE"), Some(0));
    assert_eq!(
        stages
            .first()
            .map(|stage| (stage.origin.code.as_str(), stage.origin.ranges.len())),
        Some(("FROM busybox AS Base", 1))
    );
}

#[test]
fn copies_carry_flags_and_heredocs() {
    let Command::Copy(copy) = command(
        "COPY --from=s --chown=1:2 --chmod=u+x --link --parents --exclude=a --exclude=*.b x <<-'F' <<G /dst/\n\t$f\nF\n$g\nG",
    ) else {
        panic!("not a copy")
    };
    assert_eq!(
        (
            copy.from.as_str(),
            copy.chown.as_str(),
            copy.chmod.as_str(),
            copy.link,
            copy.parents
        ),
        ("s", "1:2", "u+x", true, true)
    );
    assert_eq!(copy.exclude, ["a", "*.b"]);
    assert_eq!(
        (copy.files.paths.as_slice(), copy.files.dest.as_str()),
        (["x".to_owned()].as_slice(), "/dst/")
    );
    let contents: Vec<_> = copy
        .files
        .contents
        .iter()
        .map(|content| (content.path.as_str(), content.data.as_str(), content.expand))
        .collect();
    assert_eq!(contents, [("F", "$f\n", false), ("G", "$g\n", true)]);

    let Command::Add(add) =
        command("ADD --checksum=sha256:x --keep-git-dir=false --unpack https://a /b")
    else {
        panic!("not an add")
    };
    assert_eq!(
        (
            add.checksum.as_str(),
            add.keep_git_dir,
            add.unpack,
            add.link
        ),
        ("sha256:x", Some(false), Some(true), false)
    );
}

#[test]
fn command_lines_remember_their_form() {
    let Command::Run(run) =
        command("RUN --network=none --security=insecure --device=v.com/c=n,required a   b")
    else {
        panic!("not a run")
    };
    assert_eq!(
        (run.line.args.as_slice(), run.line.prepend_shell),
        (["a   b".to_owned()].as_slice(), true)
    );
    assert_eq!(
        (run.network, run.security),
        (NetworkMode::None, SecurityMode::Insecure)
    );
    assert_eq!(
        run.devices,
        [Device {
            name: "v.com/c=n".into(),
            required: true
        }]
    );
    assert_eq!(run.flags_used, ["device", "network", "security"]);
    let Command::Cmd(cmd) = command(r#"CMD ["a", "b c"]"#) else {
        panic!("not a cmd")
    };
    assert_eq!(
        (cmd.args.as_slice(), cmd.prepend_shell),
        (["a".to_owned(), "b c".to_owned()].as_slice(), false)
    );
    let Command::Healthcheck(check) = command(
        "HEALTHCHECK --interval=1m30s --timeout=5s --start-period=1h --start-interval=0.5s --retries=3 cmd curl x",
    ) else {
        panic!("not a check")
    };
    let config = check.config;
    assert_eq!(config.test, ["CMD-SHELL", "curl x"]);
    assert_eq!(
        (
            config.interval,
            config.timeout,
            config.start_period,
            config.start_interval,
            config.retries
        ),
        (
            90_000_000_000,
            5_000_000_000,
            3_600_000_000_000,
            500_000_000,
            3
        )
    );
    let Command::Expose(expose) = command("EXPOSE 90 80/tcp $X") else {
        panic!("not an expose")
    };
    assert_eq!(expose.ports, ["$X", "80/tcp", "90"]);
    let Command::Onbuild(onbuild) = command("onbuild  RUN <<E\nx\nE") else {
        panic!("not an onbuild")
    };
    assert_eq!(onbuild.expression, "RUN <<E\nx\nE");
}

fn mount(words: &str) -> Result<Mount, String> {
    let Command::Run(mut run) = command(&format!("RUN --mount={words} x")) else {
        panic!("not a run")
    };
    run.expand(&mut |word| Ok(word.replace("$V", "/v")))
        .map_err(|error| error.to_string())?;
    Ok(run.mounts.remove(0))
}

#[test]
fn mounts_are_read_when_variables_are_known() {
    let secret = Mount {
        kind: MountType::Secret,
        id: "t".into(),
        env: Some("T".into()),
        required: true,
        mode: Some(0o400),
        uid: Some(5),
        read_only: true,
        ..Mount::default()
    };
    assert_eq!(
        mount("type=secret,id=t,env=T,required,mode=0400,uid=5"),
        Ok(secret)
    );
    let cache = Mount {
        kind: MountType::Cache,
        target: "/v/c".into(),
        sharing: Some(ShareMode::Locked),
        ..Mount::default()
    };
    assert_eq!(mount("Type=CACHE,dst=$V/c,sharing=locked"), Ok(cache));
    let bind = Mount {
        from: "s".into(),
        source: "/a,b".into(),
        target: "/t".into(),
        ..Mount::default()
    };
    assert_eq!(mount("from=s,\\\"source=/a,b\\\",target=/t,rw"), Ok(bind));
    assert_eq!(
        mount("type=tmpfs,target=/t,size=1.5k").map(|mount| (mount.size_limit, mount.read_only)),
        Ok((1536, false))
    );
    assert_eq!(
        mount("target=/t,readonly=false").map(|mount| mount.read_only),
        Ok(false)
    );
    let refused = [
        (
            "type=bnd",
            "unsupported mount type \"bnd\" (did you mean bind?)",
        ),
        (
            "type=cache,sharing=lock",
            "unsupported sharing value \"lock\" (did you mean locked?)",
        ),
        (
            "tyep=cache",
            "unexpected key 'tyep' in 'tyep=cache' (did you mean type?)",
        ),
        (
            "type=cache,target",
            "invalid field 'target' must be a key=value pair",
        ),
        (
            "required,target=/x",
            "unexpected key 'required' for mount type 'bind'",
        ),
        (
            "type=secret,id=x,required=maybe",
            "invalid value for required: maybe",
        ),
        (
            "type=cache,size=5",
            "unexpected key 'size' for mount type 'cache'",
        ),
        ("type=tmpfs,size=5x", "invalid value for size: 5x"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        (
            "target=/x,uid=1",
            "uid not allowed for \"bind\" type mounts",
        ),
        (
            "type=secret",
            "invalid secret mount. one of source, target required",
        ),
        ("type=secret,src=a,id=b", "both source and id can't be set"),
        (
            "type=secret,id=a,from=b",
            "secret mount should not have a from",
        ),
        (
            "sharing=locked,target=/x",
            "invalid cache sharing set for bind mount",
        ),
    ];
    for (words, want) in refused {
        assert_eq!(mount(words), Err(want.to_owned()), "{words}");
    }
    let Command::Run(run) = command("RUN --mount=type=$T,from=s,target=$V x") else {
        panic!("not a run")
    };
    assert_eq!(
        run.mounts,
        [Mount {
            from: "s".into(),
            read_only: true,
            ..Mount::default()
        }],
        "only `from` is known at first"
    );
}

#[test]
fn expansion_reaches_the_words_it_should() {
    let expanded = |line: &str| {
        let mut command = command(line);
        command
            .expand(&mut |word| Ok(word.replace("$x", "1")))
            .expect("the expander accepts all");
        format!("{command:?}")
    };
    for line in [
        "ENV a$x=$x",
        "LABEL a=$x",
        "ADD --chown=$x --chmod=$x --checksum=$x $x $x",
        "COPY --chown=$x --chmod=$x $x $x",
        "USER $x",
        "VOLUME $x",
        "WORKDIR $x",
        "STOPSIGNAL $x",
    ] {
        assert!(!expanded(line).contains("$x\""), "{line}");
    }
    for line in [
        "CMD $x",
        "ENTRYPOINT $x",
        "RUN $x",
        "EXPOSE $x",
        "COPY --from=$x a b",
        "HEALTHCHECK CMD $x",
        "ONBUILD RUN $x",
        "SHELL [\"$x\"]",
        "COPY --exclude=$x a b",
    ] {
        assert!(expanded(line).contains("$x"), "{line}");
    }
    let mut arg = command("ARG a$x=$x");
    arg.expand(&mut |word| Ok(word.replace("$x", "1")))
        .expect("the expander accepts all");
    let Command::Arg(arg) = arg else {
        panic!("not an arg")
    };
    assert_eq!(
        arg.args
            .first()
            .map(|arg| (arg.key.as_str(), arg.value.as_deref())),
        Some(("a1", Some("1")))
    );
    let mut copy = command("COPY <<A <<'B' /\n$x\nA\n$x\nB");
    copy.expand_raw(&mut |word| Ok(word.replace("$x", "1")))
        .expect("the expander accepts all");
    let Command::Copy(copy) = copy else {
        panic!("not a copy")
    };
    assert_eq!(
        copy.files
            .contents
            .iter()
            .map(|content| content.data.as_str())
            .collect::<Vec<_>>(),
        ["1\n", "$x\n"]
    );
}

#[test]
fn sizes_and_times_are_read_as_go_reads_them() {
    for (text, want) in [
        ("32", Some(32)),
        ("32b", Some(32)),
        ("32kb", Some(32768)),
        ("1.5 GiB", Some(1_610_612_736)),
        (".5k", Some(512)),
        ("-1", None),
        ("", None),
        ("5 mbb", None),
        ("x", None),
    ] {
        assert_eq!(size(text), want, "{text}");
    }
    for (text, want) in [
        ("1h2m3.5s", Some(3_723_500_000_000)),
        ("-.5m", Some(-30_000_000_000)),
        ("0", Some(0)),
        ("100\u{b5}s", Some(100_000)),
        ("1d", None),
        ("", None),
        (".s", None),
        ("9999999h", None),
    ] {
        assert_eq!(gostd::time::parse_duration(text).ok(), want, "{text}");
    }
}
