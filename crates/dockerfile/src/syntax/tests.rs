use proptest::prelude::*;

use super::directive::{DirectiveName, LocatedDirective, detect_syntax, find_directive};
use super::{MAX_LINE, Range, chomp, parse, parse_heredoc, words};

fn dump(text: &str) -> String {
    parse(text.as_bytes())
        .expect("the file is well formed")
        .root
        .dump()
}

fn error(text: &str) -> (String, Vec<usize>) {
    let error = parse(text.as_bytes()).expect_err("the file is malformed");
    (
        error.to_string(),
        error.ranges.iter().map(|range| range.start.line).collect(),
    )
}

fn located(word: &str, value: &str, line: usize) -> Option<LocatedDirective> {
    Some(LocatedDirective {
        word: word.to_owned(),
        value: value.to_owned(),
        ranges: vec![Range::line(line)],
    })
}

#[test]
fn instructions_become_lists_of_words() {
    let cases = [
        ("FROM busybox AS base", r#"(from "busybox" "AS" "base")"#),
        (
            "from --platform=$X \"--odd flag\" a",
            r#"(from ["--platform=$X"] "\"--odd" "flag\"" "a")"#,
        ),
        (
            "RUN --mount=type=bind,from=x -- --y z",
            r#"(run ["--mount=type=bind,from=x"] "--y z")"#,
        ),
        (r#"RUN ["a", "b\n☃"]"#, r#"(run "a" "b\n☃")"#),
        (r#"RUN ["a", "b" "#, r#"(run "[\"a\", \"b\"")"#),
        ("RUN ['single']", r#"(run "['single']")"#),
        (
            "ENV a=1 b=\"x y\" c='$d'",
            r#"(env "a" "1" "=" "b" "\"x y\"" "=" "c" "'$d'" "=")"#,
        ),
        ("ENV old way here", r#"(env "old" "way here" "")"#),
        (r"LABEL a=b\ c d=", r#"(label "a" "b\\ c" "=" "d" "" "=")"#),
        ("ARG a b=1 c=", r#"(arg "a" "b=1" "c=")"#),
        ("COPY a\tb  c", r#"(copy "a" "b" "c")"#),
        (r#"VOLUME ["/a b", "/c"]"#, r#"(volume "/a b" "/c")"#),
        (
            "HEALTHCHECK --interval=5s CMD curl  -f x",
            r#"(healthcheck ["--interval=5s"] "CMD" "curl  -f x")"#,
        ),
        (
            r#"HEALTHCHECK CMD ["a", "b"]"#,
            r#"(healthcheck "CMD" "a" "b")"#,
        ),
        (
            "ONBUILD COPY --from=x a b",
            r#"(onbuild (copy ["--from=x"] "a" "b"))"#,
        ),
        ("CMD []", "(cmd)"),
        ("WORKDIR  /a b ", r#"(workdir "/a b")"#),
        ("USER", "(user)"),
        ("NOSUCH thing", r#"(nosuch "")"#),
        ("COPY --chown=é a b", r#"(copy ["--chown=é"] "a" "b")"#),
    ];
    for (text, want) in cases {
        assert_eq!(dump(text), want, "{text}");
    }
}

#[test]
fn quotes_and_escapes_hold_words_together() {
    let cases: [(&str, &[&str]); 8] = [
        ("foo", &["foo"]),
        ("foo bar", &["foo", "bar"]),
        (r"foo\ bar", &[r"foo\ bar"]),
        ("foo bar 'abc xyz'", &["foo", "bar", "'abc xyz'"]),
        (r#"föo bàr "âbc xÿz""#, &["föo", "bàr", "\"âbc xÿz\""]),
        (r#"a"b\" c"d e"#, &[r#"a"b\" c"d"#, "e"]),
        (r"'a\' b", &[r"'a\'", "b"]),
        (r"a\", &["a"]),
    ];
    for (text, want) in cases {
        assert_eq!(words::words(text, '\\'), want, "{text}");
    }
}

#[test]
fn continued_lines_are_joined() {
    let tree = parse(
        b"# top\n\nFROM a\n\nRUN a \\  \n  b \\\n# inside\n\n c\\\\\n  # doc\n  LABEL x=1 \\\n",
    )
    .expect("the file is well formed");
    assert_eq!(
        tree.root.dump(),
        "(from \"a\")\n(run \"a   b  c\\\\\\\\\")\n(label \"x\" \"1\" \"=\")"
    );
    let lines: Vec<_> = tree
        .root
        .children
        .iter()
        .map(|node| (node.start_line, node.end_line))
        .collect();
    assert_eq!(lines, [(3, 3), (5, 9), (11, 11)]);
    assert_eq!((tree.root.start_line, tree.root.end_line), (3, 11));
    let comments: Vec<_> = tree
        .root
        .children
        .iter()
        .map(|node| node.comments.join("|"))
        .collect();
    assert_eq!(comments, ["top", "", "# doc"]);
    let warnings: Vec<_> = tree
        .warnings
        .iter()
        .map(|warning| (warning.short(), warning.range))
        .collect();
    assert_eq!(
        warnings,
        [(
            "Empty continuation line found in: RUN a   b  c\\\\".to_owned(),
            Range::line(9)
        )]
    );
}

#[test]
fn the_escape_directive_changes_the_escape() {
    assert_eq!(
        dump("# escape=`\nFROM a\nRUN dir c:\\ `\n b"),
        "(from \"a\")\n(run \"dir c:\\\\  b\")"
    );
    assert_eq!(
        dump("# comment\n# escape=`\nRUN a \\\n b"),
        r#"(run "a  b")"#
    );
    assert_eq!(dump("\u{feff}# EsCape = `\nRUN a `\nb"), r#"(run "a b")"#);
    assert_eq!(
        error("# escape=x\nFROM a").0,
        "invalid escape token 'x' does not match ` or \\"
    );
    assert_eq!(
        error("# escape=`\n# escape=`\nFROM a"),
        (
            "only one escape parser directive can be used".to_owned(),
            vec![1]
        )
    );
}

#[test]
fn heredocs_follow_their_line() {
    let tree = parse(b"FROM a\nRUN 3<<-A cat <<\"B C\" && x\n\t$x\n\tA\nb\nB C\nCOPY <<A <<'D' /dst\nA\nd\r\nD\nONBUILD RUN <<E\ne\nE\nENV x=<<F").expect("the file is well formed");
    let heredocs = |index: usize| {
        tree.root
            .children
            .get(index)
            .map(|node| node.heredocs.clone())
            .unwrap_or_default()
    };
    let brief = |index| {
        heredocs(index)
            .into_iter()
            .map(|doc| {
                (
                    doc.name,
                    doc.file_descriptor,
                    doc.expand,
                    doc.chomp,
                    doc.content,
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        brief(1),
        [
            ("A".into(), 3, true, true, "\t$x\n".into()),
            ("B C".into(), 0, false, false, "b\n".into())
        ]
    );
    assert_eq!(
        brief(2),
        [
            ("A".into(), 0, true, false, String::new()),
            ("D".into(), 0, false, false, "d\r\n".into())
        ]
    );
    assert_eq!(brief(3), [("E".into(), 0, true, false, "e\n".into())]);
    assert_eq!(brief(4), []);
    let lines: Vec<_> = tree
        .root
        .children
        .iter()
        .map(|node| (node.start_line, node.end_line))
        .collect();
    assert_eq!(lines, [(1, 1), (2, 6), (7, 10), (11, 13), (14, 14)]);
    assert_eq!(
        error("FROM a\nRUN <<EOF\nx\n"),
        ("unterminated heredoc".to_owned(), vec![2, 3])
    );
    assert!(
        parse(b"RUN [\"<<EOF\"]").is_ok(),
        "exec form has no heredocs"
    );
    assert_eq!(chomp("\t\ta\n b\tc\n\td"), "a\n b\tc\nd");
}

#[test]
fn heredoc_words_are_recognized() {
    for word in [
        "<<EOF",
        "<<'EOF'",
        "<<\"EOF\"",
        "<<-EOF",
        "<<E'O'F",
        "4<<EOF",
        "<< EOF",
    ] {
        let doc = parse_heredoc(word)
            .expect("the word lexes")
            .expect("the word is a heredoc");
        assert_eq!(
            (doc.name.as_str(), doc.expand, doc.chomp),
            ("EOF", !word.contains(['\'', '"']), word.contains('-')),
            "{word}"
        );
    }
    for word in ["<", "<<", "<<<EOF", "EOF", "x<<EOF", "<<EOF<", "<<a b"] {
        assert_eq!(parse_heredoc(word), Ok(None), "{word}");
    }
    assert!(parse_heredoc("<<'a").is_err());
}

#[test]
fn malformed_files_are_errors_with_their_place() {
    let cases = [
        ("", "file with no instructions", vec![0]),
        ("# only\n# comments\n", "file with no instructions", vec![2]),
        (
            "FROM a\nENV novalue",
            "ENV must have two arguments",
            vec![2],
        ),
        (
            "LABEL a=1 \\\n b",
            r#"Syntax error - can't find = in "b". Must be of the form: name=value"#,
            vec![1, 2],
        ),
        (
            r#"CMD ["a", ["b"]]"#,
            "when using JSON array syntax, arrays must be comprised of strings only",
            vec![1],
        ),
        (
            "COPY [1]",
            "when using JSON array syntax, arrays must be comprised of strings only",
            vec![1],
        ),
    ];
    for (text, message, lines) in cases {
        assert_eq!(error(text), (message.to_owned(), lines), "{text}");
    }
}

#[test]
fn a_line_may_have_65535_bytes() {
    let file = |length: usize| format!("FROM a\nRUN {}\nRUN b", "x".repeat(length - 4));
    assert!(parse(file(MAX_LINE).as_bytes()).is_ok());
    assert_eq!(
        error(&file(MAX_LINE + 1)).0,
        "dockerfile line greater than max allowed size of 65535"
    );
}

#[test]
fn the_syntax_is_detected_in_comments_and_in_json() {
    let cases = [
        (
            "# syntax = dockerfile:experimental // opts\nFROM x",
            located(
                "dockerfile:experimental",
                "dockerfile:experimental // opts",
                1,
            ),
        ),
        ("#!/bin/sh\n# syntax=a\nFROM x", located("a", "a", 2)),
        ("#!/bin/sh\n\n# syntax=a", None),
        ("# check=skip=all\n# SYNTAX=a", located("a", "a", 2)),
        ("# other=1\n# syntax=a", None),
        ("FROM x", None),
        ("//syntax=foo\n//key=value", located("foo", "foo", 1)),
        ("#!/bin/sh\n//syntax=x", located("x", "x", 2)),
        (
            r#"{"syntax": "foo", "bar": ["abc"]}"#,
            located("foo", "foo", 0),
        ),
        (r#"{"syntax": "foo""#, None),
        (r#"{"syntax": 1}"#, None),
        ("{\"syntax\": \"foo\"}\n# syntax=bar", None),
        (
            "\u{feff}# syntax = myfrontend\nFROM x",
            located("myfrontend", "myfrontend", 1),
        ),
    ];
    for (text, want) in cases {
        assert_eq!(detect_syntax(text.as_bytes()), want, "{text}");
    }
    assert_eq!(
        find_directive(
            DirectiveName::Check,
            b"# syntax=a\n#check = skip=all // x\nFROM a"
        ),
        located("skip=all", "skip=all // x", 2)
    );
    assert_eq!(
        find_directive(DirectiveName::Check, b"//check=skip=all"),
        None
    );
}

#[test]
fn huge_files_stay_small() {
    let text = format!("FROM a\nCOPY <<E /x\n{}E\n", "\n".repeat(1 << 20));
    let tree = parse(text.as_bytes()).expect("the file is well formed");
    assert_eq!(
        tree.root.children.get(1).map(|node| node.ranges().len()),
        Some(1)
    );
    let deep = format!("{}RUN x", "ONBUILD ".repeat(8000));
    assert!(parse(deep.as_bytes()).is_ok());
    let json = format!("CMD {}", "[".repeat(60_000));
    assert!(parse(json.as_bytes()).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(parse(&data));
        drop(detect_syntax(&data));
    }

    #[test]
    fn any_mix_of_fragments_gives_an_answer(parts in proptest::collection::vec(prop::sample::select(vec![
        "FROM a", "\n", "RUN", " ", "\\\n", "<<E", "E\n", "# x\n", "# escape=`\n", "`\n", "\"", "'", "[\"a\"", "]", "--f", "=", "ONBUILD ", "HEALTHCHECK ", "ENV ", "é", "\r", "\t", "COPY ",
    ]), 0..30)) {
        let text: String = parts.concat();
        if let Ok(tree) = parse(text.as_bytes()) {
            let lines = text.lines().count();
            prop_assert!(tree.root.children.iter().all(|node| 1 <= node.start_line && node.start_line <= node.end_line && node.end_line <= lines));
            drop(crate::instruction::parse(&tree.root, &crate::lint::Linter::silent()));
        }
    }
}
