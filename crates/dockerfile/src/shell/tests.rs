use std::collections::BTreeSet;

use proptest::prelude::*;

use super::glob::{Begin, Star};
use super::{EnvList, Lexer, MAX_DEPTH, MAX_TOTAL, ShellErrorKind, Word, glob};

const HOME: [&str; 4] = ["PWD=/home", "SHELL=bash", "KOREAN=한국어", "NULL="];

fn process(word: &str, env: &[&str]) -> Result<Word, ShellErrorKind> {
    Lexer::new('\\')
        .process(word, &EnvList::from_strings(env))
        .map_err(|error| error.kind)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn quotes_and_escapes_are_removed() {
    let cases = [
        ("hello", Some("hello")),
        ("he'll'o", Some("hello")),
        ("he'llo", None),
        (r"he\'llo", Some("he'llo")),
        (r"he\\'llo", None),
        (r"abc\tdef", Some("abctdef")),
        (r#""abc\tdef""#, Some(r"abc\tdef")),
        (r#""abc\\tdef""#, Some(r"abc\tdef")),
        (r"'abc\tdef'", Some(r"abc\tdef")),
        (r"hello\", Some("hello")),
        (r"hello\\", Some(r"hello\")),
        (r#""hello"#, None),
        (r#""hello\""#, None),
        (r#""hel'lo""#, Some("hel'lo")),
        (r"'hello\'", Some(r"hello\")),
        (r"'hello\\there'", Some(r"hello\\there")),
        (r#""''""#, Some("''")),
        (r#"안\'녕"하\t세"'요\'"#, Some(r"안'녕하\t세요\")),
        ("안'녕", None),
    ];
    for (word, expected) in cases {
        assert_eq!(
            process(word, &HOME).ok().map(|word| word.result).as_deref(),
            expected,
            "{word}"
        );
    }
}

#[test]
fn variables_are_replaced() {
    let cases = [
        ("$.", Some("$.")),
        ("he$1x", Some("hex")),
        ("he$.x", Some("he$.x")),
        ("he$pwd.", Some("he.")),
        ("he$PWD", Some("he/home")),
        (r"he\$PWD", Some("he$PWD")),
        (r"he\\$PWD", Some(r"he\/home")),
        (r#""he\$PWD""#, Some("he$PWD")),
        (r#""he\\$PWD""#, Some(r"he\/home")),
        (r"he\${}xx", Some("he${}xx")),
        ("${}", None),
        ("he${}xx", None),
        ("he${hi}xx", Some("hexx")),
        ("he${.}", None),
        ("${{aaa}", None),
        ("${aaa}}", Some("}")),
        ("${aaa", None),
        ("'he${XX}'", Some("he${XX}")),
        ("\"he'$PWD'\"", Some("he'/home'")),
        ("안녕$KOREAN", Some("안녕한국어")),
        // Positional and special parameters are names, and never set.
        ("$999aaa", Some("aaa")),
        ("${001:-bbb}aaa", Some("bbbaaa")),
        ("$@@@", Some("@@")),
        ("$*$#$?$-$!$0", Some("")),
        ("$$", Some("")),
        ("${$:-bbb}", Some("bbb")),
    ];
    for (word, expected) in cases {
        assert_eq!(
            process(word, &HOME).ok().map(|word| word.result).as_deref(),
            expected,
            "{word}"
        );
    }
}

#[test]
fn modifiers_choose_between_value_and_word() {
    let cases = [
        ("he${XXX:-000}xx", Some("he000xx")),
        ("he${PWD:-000}xx", Some("he/homexx")),
        ("he${XXX:-${PWD:-yyy}}xx", Some("he/homexx")),
        ("he${XXX:-${YYY:-yyy}}xx", Some("heyyyxx")),
        ("${NULL-x}|${NULL:-x}|${XXX-x}", Some("|x|x")),
        ("${NULL+x}|${NULL:+x}|${XXX+x}|${PWD:+x}", Some("x|||x")),
        ("he${XXX:YYY}", None),
        ("he${XXX?}", None),
        ("he${XXX:?}", None),
        ("he${PWD?}", Some("he/home")),
        ("he${NULL?}", Some("he")),
        ("he${NULL:?}", None),
        ("he${PWD:+${XXX}}xx", Some("hexx")),
        ("he${PWD:+${SHELL}}xx", Some("hebashxx")),
        ("he${PWD:=000}xx", None),
        ("${PWD=000}", None),
        (r"he${XXX:-\$PWD:}xx", Some("he$PWD:xx")),
        (r"he${XXX:-\${PWD}z}xx", Some("he${PWDz}xx")),
        ("${aaa:-bbb}}", Some("bbb}")),
        ("${aaa:-bbb ${foo}", None),
        ("${aaa:-bbb {foo}", Some("bbb {foo")),
        ("${:-bbb}", None),
    ];
    for (word, expected) in cases {
        assert_eq!(
            process(word, &HOME).ok().map(|word| word.result).as_deref(),
            expected,
            "{word}"
        );
    }
}

#[test]
fn globs_cut_and_replace() {
    let cases = [
        (r"${FOO#()[]{\}^$.\*\?|\\}", r"()[]{}^$.*?|\x", Some("x")),
        (r"${FOO%%\**}", "xx**", Some("xx")),
        ("${FOO#*x*y}", "xxyy", Some("y")),
        ("${FOO#*}", "xxyy", Some("xxyy")),
        ("${FOO##*x}", "xxyy", Some("yy")),
        ("${FOO#$BAR}", "bxx", Some("xx")),
        ("${FOO#}${FOO##}${FOO%}", "x", Some("xxx")),
        (r"${FOO#?\?}", "???y", Some("?y")),
        (r#"${FOO#"a\b"}"#, r"a\bc", Some("c")),
        (r"${FOO#'a\b'}", r"a\bc", Some("c")),
        ("${ABC:-.}${FOO%x}${ABC:-.}", "xxyy", Some(".xxyy.")),
        (r"${FOO%%\**\*}", "a***yy*", Some("a")),
        ("${FOO%.*}-${FOO%%.*}", "a.tar.gz", Some("a.tar-a")),
        ("${FOO:#x}", "x", None),
        ("${FOO:%x}", "x", None),
        (
            r"${FOO/\*\//.} - ${FOO//\*\//.}",
            "/foo*/*/*.txt",
            Some("/foo.*/*.txt - /foo..*.txt"),
        ),
        (r"${FOO//\//\/}", "/tmp/foo.txt", Some(r"\/tmp\/foo.txt")),
        ("${FOO/$NONE/ww}", "xxyy", Some("wwxxyy")),
        ("${FOO//ww}", "xxyy", None),
        ("${FOO//}", "xxyy", None),
        ("${FOO///}", "xxyy", Some("xxyy")),
        (r"${FOO#\x}", "x", None),
    ];
    for (word, value, expected) in cases {
        let env = [format!("FOO={value}"), "BAR=b".to_owned()];
        let env: Vec<&str> = env.iter().map(String::as_str).collect();
        assert_eq!(
            process(word, &env).ok().map(|word| word.result).as_deref(),
            expected,
            "{word}"
        );
    }
    assert_eq!(
        glob::translate(r"(()[]{\}^$.\*\?|\\", Star::Longest, Begin::Start).as_deref(),
        Ok(r"^\(\(\)\[\]\{\}\^\$\.\*\?\|\\")
    );
    for (pattern, expected) in [
        (r"a\*c", r"c\*a"),
        (r"\\\ab", r"b\a\\"),
        (r"ab\", r"\ba"),
        (r"👽\🚀🖖", r"🖖\🚀👽"),
        (r"\\b", r"b\\"),
    ] {
        assert_eq!(glob::reverse_pattern(pattern), expected);
    }
}

#[test]
fn words_are_cut_after_expansion() {
    let env = [
        "hi=hi",
        "space=abc  def",
        "leading=  ab c",
        "trailing=ab c   ",
    ];
    let cases: [(&str, Option<&[&str]>); 18] = [
        ("hello${hi}bye", Some(&["hellohibye"])),
        ("hello${space}bye", Some(&["helloabc", "defbye"])),
        (r#"hello"${space}"bye"#, Some(&["helloabc  defbye"])),
        (r#"hello "${space}"bye"#, Some(&["hello", "abc  defbye"])),
        ("hello${leading}def", Some(&["hello", "ab", "cdef"])),
        (r#"hello"${leading}" def"#, Some(&["hello  ab c", "def"])),
        ("hello${trailing}d", Some(&["helloab", "c", "d"])),
        (r#"hel"lo${trailing}""#, Some(&["helloab c   "])),
        ("hello there    ", Some(&["hello", "there"])),
        (r"hello\ there", Some(&["hello there"])),
        (r#"hello" there"#, None),
        (r#"hello\" there"#, Some(&["hello\"", "there"])),
        (r#"hello"\there""#, Some(&[r"hello\there"])),
        (r"hello'\\there'", Some(&[r"hello\\there"])),
        ("hello'$there'", Some(&["hello$there"])),
        ("''", Some(&[])),
        ("cat <<  EOF x", Some(&["cat", "<<  EOF", "x"])),
        ("a${none:-b}", Some(&["ab"])),
    ];
    for (word, expected) in cases {
        let expected = expected.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(
            process(word, &env).ok().map(|word| word.words),
            expected,
            "{word}"
        );
    }
}

#[test]
fn found_and_missing_variables_are_told_apart() {
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("x", &[], &[]),
        ("x ${UNUSED}", &[], &["UNUSED"]),
        ("${FOO-a} ${BAR:-b} ${BAZ+c}", &["FOO", "BAR"], &["BAZ"]),
        ("${FOO:+${NEVER}}", &["FOO"], &["NEVER"]),
        ("${FOO#$BAR} '$QUOTED'", &["FOO", "BAR"], &[]),
    ];
    for (word, matched, unmatched) in cases {
        let word = process(word, &["FOO=xxx", "BAR="]).expect("the word is well formed");
        assert_eq!(
            (word.matched, word.unmatched),
            (names(matched), names(unmatched))
        );
    }
}

#[test]
fn raw_modes_keep_what_they_are_told_to() {
    let raw = |escape| Lexer {
        raw_quotes: true,
        raw_escapes: true,
        ..Lexer::new(escape)
    };
    let env = EnvList::from_strings(["FOO=bar", r"BAZ=a\bc"]);
    let cases = [
        ('\\', r"C:\hello\world", r"C:\hello\world"),
        ('\\', r#""C:\hello\world""#, r#""C:\hello\world""#),
        ('\\', r#""a\"b" "a\\b" "\$FOO""#, r#""a\"b" "a\\b" "\$FOO""#),
        ('\\', r"\$FOO $FOO a\ b 'x\y'", r"\$FOO bar a\ b 'x\y'"),
        ('`', "C:\\hello `$FOO $FOO", "C:\\hello `$FOO bar"),
        ('`', "\"a`tb\" \"a`\"b\"", "\"a`tb\" \"a`\"b\""),
        ('\\', r#"$FOO ${BAZ#"a\b"}"#, r"bar a\bc"),
        ('\\', r#"$FOO ${BAZ/"a\b"/x}"#, r"bar a\bc"),
    ];
    for (escape, word, expected) in cases {
        assert_eq!(
            raw(escape).process_word(word, &env).as_deref(),
            Ok(expected),
            "{word}"
        );
    }
    let skip = Lexer {
        skip_unset_env: true,
        ..Lexer::new('\\')
    };
    assert_eq!(
        skip.process_word("$FOO $NO ${NO} ${NO:-x} ${NO/a/b}", &env)
            .as_deref(),
        Ok("bar $NO ${NO} ${NO:-x} ${NO/a/b}")
    );
    let unquoted = Lexer {
        skip_process_quotes: true,
        ..Lexer::new('\\')
    };
    assert_eq!(
        unquoted.process_word("it's \"$FOO", &env).as_deref(),
        Ok("it's \"bar")
    );
}

#[test]
fn errors_have_the_words_that_clients_know() {
    let cases = [
        (
            "${VAR:?message here$ARG}",
            r#"failed to process "${VAR:?message here$ARG}": VAR: message herex"#,
        ),
        (
            "${VAR?}",
            r#"failed to process "${VAR?}": VAR: is not allowed to be unset"#,
        ),
        (
            "${E:?}",
            r#"failed to process "${E:?}": E: is not allowed to be empty"#,
        ),
        (
            "'a",
            r#"failed to process "'a": unexpected end of statement while looking for matching single-quote"#,
        ),
        (
            "${a",
            "failed to process \"${a\": unsupported modifier (\u{fffd}) in substitution",
        ),
        (
            "${a:-",
            r#"failed to process "${a:-": syntax error: missing '}'"#,
        ),
        (
            "${a/b",
            r#"failed to process "${a/b": syntax error: missing '/' in ${}"#,
        ),
        (
            "${}",
            r#"failed to process "${}": syntax error: bad substitution"#,
        ),
    ];
    for (word, expected) in cases {
        let error = Lexer::new('\\').process(word, &EnvList::from_strings(["ARG=x", "E="]));
        assert_eq!(
            error.map_err(|error| error.to_string()),
            Err(expected.to_owned())
        );
    }
}

#[test]
fn hostile_words_are_refused() {
    let deep = format!(
        "{}{}",
        "${a:-".repeat(MAX_DEPTH + 1),
        "}".repeat(MAX_DEPTH + 1)
    );
    assert_eq!(process(&deep, &[]), Err(ShellErrorKind::TooDeep));
    let fine = format!(
        "{}x{}",
        "${a:-".repeat(MAX_DEPTH - 1),
        "}".repeat(MAX_DEPTH - 1)
    );
    assert_eq!(
        process(&fine, &[]).map(|word| word.result),
        Ok("x".to_owned())
    );
    let big = format!("A={}", "x".repeat(1 << 20));
    assert_eq!(
        process(&"$A".repeat(64), &[&big]),
        Err(ShellErrorKind::TooLong)
    );
    assert_eq!(
        process(&format!("${{A//x/{}}}", "y".repeat(2000)), &[&big]),
        Err(ShellErrorKind::TooLong)
    );
}

#[test]
fn results_of_one_lexer_and_its_clones_are_bounded_together() {
    let lexer = Lexer::new('\\');
    let env = EnvList::from_strings([format!("A={}", "x".repeat(4 << 20))]);
    for _ in 0..MAX_TOTAL / (8 << 20) {
        assert!(lexer.process_word("$A", &env).is_ok());
    }
    let refused = lexer.clone().process_word("${A:+x}", &env);
    assert_eq!(
        refused.map_err(|error| error.kind),
        Err(ShellErrorKind::TooMuch)
    );
    assert!(Lexer::new('\\').process_word("$A", &env).is_ok());
}

proptest! {
    #[test]
    fn any_word_gives_an_answer(word in r#"[$\{\}:?+\-#%/*'"\\<ab é]{0,24}"#, flags in 0u8..16) {
        let lexer = Lexer {
            raw_quotes: flags & 1 != 0,
            raw_escapes: flags & 2 != 0,
            skip_process_quotes: flags & 4 != 0,
            skip_unset_env: flags & 8 != 0,
            ..Lexer::new('\\')
        };
        drop(lexer.process(&word, &EnvList::from_strings(["a=aXb", "b="])));
    }
}
