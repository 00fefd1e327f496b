//! Windows' line ends and byte order marks.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dockerfile::instruction::{self, Command};
use dockerfile::lint::{LintConfig, Linter};
use dockerfile::{ignore, syntax};
use parking_lot::Mutex;

use crate::host::{Host, lowered};

/// Forms that span lines, beside those of the fuzzer's corpus.
const FORMS: &[&str] = &[
    "FROM a\nRUN one \\\n  && two \\\n# comment\n\n  && three\n",
    "# escape=`\n# check=skip=all\nFROM a\nRUN one `\n  && two\n",
    "# syntax=docker/dockerfile:1\nFROM a\nENV A=b \\\n  C=\"d e\"\nLABEL x=y\nARG F=g\nWORKDIR /w\nUSER u\n",
    "FROM a\nRUN <<EOF\necho one\n\necho two\nEOF\n",
    "FROM a\nRUN <<-EOF\n\t\techo one\n\tEOF\nRUN true\n",
    "FROM a\nRUN <<EOF python3 && <<F sh\none\nEOF\ntwo\nF\n",
    "FROM a\nRUN <<EOF\n#!/bin/python\nprint(1)\nEOF\n",
    "FROM a\nRUN cat > /x <<'EOF'\n$HOME\nEOF\n",
    "FROM a\nCOPY <<one <<\"two\" /x/\n1 $PATH\none\n2 $PATH\ntwo\n",
    "FROM a\nCOPY --chmod=755 <<EOF /x\n#!/bin/sh\nexit 1\nEOF\nCMD [\"/x\", \\\n  \"y\"]\n",
    "FROM a\nADD <<-EOF /x\n\ttext\n\tEOF\n",
    "FROM a\nONBUILD RUN <<EOF\necho\nEOF\nONBUILD COPY <<EOF /y\ntext\nEOF\n",
    "FROM a AS one\nONBUILD RUN echo \\\n  two\nONBUILD ENV A=b\nFROM one\n",
    "FROM a\nENTRYPOINT [\"a\", \"b\"]\nSHELL [\"/bin/sh\", \"-c\"]\nHEALTHCHECK --interval=1s \\\n  CMD one \\\n  two\n",
    "FROM a\nVOLUME [\"/a\", \"/b\"]\nEXPOSE 80 \\\n  443\nSTOPSIGNAL 9\nMAINTAINER me\n",
    "FROM a\nRUN --mount=type=cache,target=/c \\\n    --mount=type=secret,id=s \\\n    make\n",
    "FROM a\nRUN <<EOF\n",
    "FROM a\nCOPY one \\\n  two\nNONSENSE\n",
];

fn corpus() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite");
    let files = fs::read_dir(root.join("fuzz")).expect("the corpus is readable");
    let trees = fs::read_dir(root.join("trees")).expect("the corpus is readable");
    files
        .map(|entry| entry.expect("it is readable").path())
        .chain(trees.map(|entry| entry.expect("it is readable").path().join("Dockerfile")))
        .map(|path| fs::read_to_string(path).expect("the file is text"))
        .chain(FORMS.iter().map(|text| (*text).to_owned()))
        .map(|text| text.trim_start_matches('\u{feff}').replace('\r', ""))
        .collect()
}

fn utf16(text: &str, units: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let with_mark = std::iter::once(0xfeff).chain(text.encode_utf16());
    with_mark.flat_map(units).collect()
}

/// What a Dockerfile builds, or why it builds nothing.
fn built(text: &[u8]) -> String {
    match lowered(&Host::default(), text, "") {
        Ok(lowered) => format!("{:?} {:?}", lowered.definition(), lowered.image),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_file_with_windows_line_ends_builds_what_it_builds_without() {
    let corpus = corpus();
    assert!(corpus.len() > 40);
    for text in &corpus {
        let expected = built(text.as_bytes());
        assert!(!expected.contains("\\r"), "{text}");
        let crlf = text.replace('\n', "\r\n");
        for (encoding, bytes) in [
            ("carriage returns", crlf.clone().into_bytes()),
            (
                "a mark and carriage returns",
                format!("\u{feff}{crlf}").into_bytes(),
            ),
            ("UTF-16, low bytes first", utf16(&crlf, u16::to_le_bytes)),
            ("UTF-16, high bytes first", utf16(&crlf, u16::to_be_bytes)),
        ] {
            let bytes = syntax::to_utf8(&bytes);
            assert_eq!(built(&bytes), expected, "with {encoding}:\n{text}");
        }
    }
}

#[test]
fn an_ignore_file_with_windows_line_ends_says_what_it_says_without() {
    let text = "# words\n*.log\n!keep.log\n\n/target\n  spaced  \n!\n";
    let expected = ignore::patterns(text.as_bytes());
    assert_eq!(expected, ["*.log", "!keep.log", "target", "spaced", "!"]);
    let crlf = text.replace('\n', "\r\n");
    for bytes in [
        crlf.clone().into_bytes(),
        text.replace('\n', "\r\r\n").into_bytes(),
        format!("\u{feff}{crlf}").into_bytes(),
        utf16(&crlf, u16::to_le_bytes),
        utf16(&crlf, u16::to_be_bytes),
    ] {
        assert_eq!(ignore::patterns(&bytes), expected, "{bytes:?}");
    }
}

/// What the instructions after `FROM a` have: scripts and inline files, other words, and what was found about carriage returns.
fn instructions_of(text: &str) -> String {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&warnings);
    let linter = Linter::new(LintConfig::default(), move |warning| {
        sink.lock().push(warning);
    });
    let tree =
        syntax::parse(format!("FROM a\n{text}").as_bytes()).expect("the file is well formed");
    let (stages, _) = instruction::parse(&tree.root, &linter).expect("the file is well formed");
    let mut out = Vec::new();
    for command in &stages[0].commands {
        if let Command::Run(run) = &command.command {
            out.extend(run.line.files.iter().map(|file| file.data.clone()));
            if run.line.files.is_empty() {
                out.extend(run.line.args.iter().cloned());
            }
        } else if let Command::Copy(copy) = &command.command {
            out.extend(copy.files.contents.iter().map(|file| file.data.clone()));
        } else if let Command::Onbuild(onbuild) = &command.command {
            out.push(onbuild.expression.clone());
        }
    }
    for warning in warnings.lock().iter() {
        assert_eq!(warning.rule.name, "CarriageReturn", "{warning:?}");
        let lines: Vec<usize> = warning
            .ranges
            .iter()
            .map(|range| range.start.line)
            .collect();
        out.push(format!("{} {lines:?}", warning.message));
    }
    out.join("|")
}

#[test]
fn carriage_returns_stay_only_where_a_heredoc_has_them_on_purpose_and_are_told() {
    const TOLD: &str = "Lines of heredoc \"E\" have carriage returns, which become part of it";
    const INSIDE: &str = "Carriage return inside of a line, which becomes part of the instruction";
    for (text, expected) in [
        // The line that starts the heredoc ends in a line feed alone: those of the heredoc are its own.
        (
            "COPY <<E /x\n1\r\n2\r\nE\n",
            format!("1\r\n2\r\n|{TOLD} [3, 4]"),
        ),
        (
            "COPY <<E /x\n1\n2\r\n3\nE\n",
            format!("1\n2\r\n3\n|{TOLD} [4]"),
        ),
        (
            "COPY <<E /x\n1\r\n2\n3\r\nE\r\n",
            format!("1\r\n2\n3\r\n|{TOLD} [3, 4, 5]"),
        ),
        ("RUN cat > /x <<E\n1\r\nE\n", format!("1\r\n|{TOLD} [3]")),
        (
            "ONBUILD COPY <<E /x\n1\r\nE\n",
            format!("COPY <<E /x\n1\r\nE|{TOLD} [3]"),
        ),
        // In a file with Windows' line ends one of two is the heredoc's own.
        ("COPY <<E /x\r\n1\r\n2\r\nE\r\n", "1\n2\n".to_owned()),
        (
            "COPY <<E /x\r\n1\r\r\n2\r\nE\r\n",
            format!("1\r\n2\n|{TOLD} [3]"),
        ),
        ("COPY \\\r\n<<E /x\r\n1\r\nE\r\n", "1\n".to_owned()),
        ("COPY \\\r\n<<E /x\n1\r\nE\r\n", format!("1\r\n|{TOLD} [4]")),
        (
            "COPY <<E <<F /x\r\n1\r\nE\r\n2\r\nF\r\n",
            "1\n|2\n".to_owned(),
        ),
        ("RUN cat > /x <<E\r\n1\r\nE\r\n", "1\n".to_owned()),
        (
            "ONBUILD COPY <<E /x\r\n1\r\nE\r\n",
            "COPY <<E /x\n1\nE".to_owned(),
        ),
        // A script has none in any file.
        ("RUN <<E\r\nset -e\r\nE\r\n", "set -e\n".to_owned()),
        ("RUN <<E\nset -e\r\nls\r\r\nE\n", "set -e\nls\n".to_owned()),
        (
            "ONBUILD RUN <<E\nset -e\r\nE\n",
            "RUN <<E\nset -e\nE".to_owned(),
        ),
        // Elsewhere they are no line ends, and are told.
        ("RUN a\rb\r\n", format!("a\rb|{INSIDE} [2]")),
        ("RUN a \\\r\n b\rc\r\n", format!("a  b\rc|{INSIDE} [2, 3]")),
        ("RUN a\r \r\n", "a".to_owned()),
        ("RUN a\r\r\n", "a".to_owned()),
        ("RUN <<E\na\rb\nE\n", format!("a\rb\n|{TOLD} [3]")),
        (
            "# check=skip=CarriageReturn\nCOPY <<E /x\n1\r\nE\n",
            "1\r\n".to_owned(),
        ),
    ] {
        assert_eq!(instructions_of(text), expected, "{text:?}");
    }
}
