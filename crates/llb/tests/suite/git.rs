//! Every address that BuildKit took apart (`tests/data/git.json`, written by `integration/tools/buildkit`) is taken apart alike.

use llb::git_url::{GitRef, GitRefError, GitUrl, GitUrlError};
use oci::ErrorKind;
use serde_json::{Value, json};

fn flag(value: Option<bool>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// What our parsers say in the form of the recording.
fn answer(text: &str) -> Value {
    let mut answer = json!({ "transport": GitUrl::is_transport(text) });
    match GitUrl::parse(text) {
        Ok(url) => {
            answer["url"] = json!({
                "scheme": url.scheme,
                "host": url.host,
                "path": url.path,
                "user": url.user.unwrap_or_default(),
                "remote": url.remote,
                "ref": url.reference,
                "subdir": url.subdir,
            });
        }
        Err(_) => answer["refused"] = true.into(),
    }
    match GitRef::parse(text) {
        Ok(None) => {}
        Ok(Some(git)) => {
            answer["gitref"] = json!({
                "remote": git.remote,
                "ref": git.reference,
                "subdir": git.subdir,
                "checksum": git.checksum,
                "local": git.like_local,
                "keep": flag(git.keep_git_dir),
                "submodules": flag(git.submodules),
                "mtime": git.mtime,
                "bycommit": git.fetch_by_commit,
            });
        }
        Err(error) => answer["query"] = error.to_string().into(),
    }
    answer
}

#[test]
fn every_address_is_taken_apart_as_buildkit_does_it() {
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../data/git.json")).expect("the vectors are JSON");
    assert!(vectors.len() > 100, "{}", vectors.len());
    let mut differences = Vec::new();
    for vector in &vectors {
        let text = vector["in"].as_str().expect("a text");
        let actual = answer(text);
        if actual != vector["out"] {
            differences.push(format!(
                "{text:?}:\n  {actual}\n  BuildKit says\n  {}",
                vector["out"]
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_password_of_an_address_is_in_no_error() {
    for text in [
        "https://user:CANARY@h h/a.git",
        "https://user:CANARY@h:port/a.git",
        "https://user:CANARY@h/%zz.git",
        "https://user:CANARY@h/a.git#%zz",
        "https://user:CANARY@h/\u{1}.git",
    ] {
        let error = GitUrl::parse(text).expect_err("the address is malformed");
        assert!(matches!(error, GitUrlError::Malformed { .. }), "{text}");
        assert!(!error.to_string().contains("CANARY"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn an_http_address_is_given_to_git_without_its_login() {
    for (text, address, login) in [
        (
            "https://u:p%40x@h/r.git?ref=x#y",
            "https://h/r.git",
            Some("u:p@x"),
        ),
        (
            "https://token@h:8443/r%20s",
            "https://h:8443/r%20s",
            Some("token:"),
        ),
        ("https://:p@h/r", "https://h/r", Some(":p")),
        ("https://@h/r", "https://h/r", None),
        ("http://h/r", "http://h/r", None),
        ("ssh://git:p@h/r", "ssh://git:p@h/r", None),
        ("git://h/r#x", "git://h/r", None),
        ("git@h:r?ref=x", "git@h:r", None),
    ] {
        let url = GitUrl::parse(text).expect("the address is well formed");
        assert_eq!(url.address(), address, "{text}");
        assert_eq!(url.login().as_deref(), login.map(str::as_bytes), "{text}");
    }
}

#[test]
fn repositories_are_the_same_whatever_the_protocol_and_the_suffix() {
    let same = |one: &str, other: &str| {
        let [one, other] = [one, other].map(|text| GitUrl::parse(text).expect("an address"));
        one.same_repository(&other)
    };
    for (one, other, want) in [
        ("https://h/a/b.git", "git@h:a/b", true),
        ("https://H/a/b", "ssh://git@h/a/b.git", true),
        ("https://u:p@h/a/./b/", "https://h/a/b", true),
        ("https://h/a%2Fb", "https://h/a/b", true),
        ("https://h/a/b", "https://h/a/c", false),
        ("https://h/a/b", "https://h:8443/a/b", false),
        ("https://h/a/b", "https://other/a/b", false),
        ("https://h/a/b.git.git", "https://h/a/b.git", false),
    ] {
        assert_eq!(same(one, other), want, "{one} {other}");
        assert_eq!(same(other, one), want, "{other} {one}");
    }
}

#[test]
fn an_address_keeps_its_means_with_another_path() {
    for (text, other, want) in [
        ("git@h:a/b.git", "https://h/a/b", "git@h:a/b"),
        ("git@h:/a/b.git", "https://h/a/b", "git@h:/a/b"),
        (
            "https://u:p@h:1/x",
            "git@h:a/b.git",
            "https://u:p@h:1/a/b.git",
        ),
        ("ssh://git@h/x", "https://h/a/../b", "ssh://git@h/b"),
    ] {
        let [url, other] = [text, other].map(|text| GitUrl::parse(text).expect("an address"));
        assert_eq!(url.with_path_of(&other), want, "{text}");
    }
}

#[test]
fn an_address_without_protocol_is_one_of_https() {
    for (text, want) in [
        ("github.com/a/b", "https://github.com/a/b"),
        ("git@h:a", "git@h:a"),
        ("SSH://h/a", "SSH://h/a"),
        ("file:///etc", "https://file:///etc"),
        ("", "https://"),
    ] {
        assert_eq!(GitUrl::with_transport(text), want);
    }
}

#[test]
fn a_query_that_is_wrong_says_how() {
    let refused = |query: &str| GitRef::parse(&format!("https://h/a.git?{query}")).err();
    let conflict = |what, first: &str, second: &str| GitRefError::Conflict {
        what,
        first: first.to_owned(),
        second: second.to_owned(),
    };
    for (query, want) in [
        ("ref=a&ref=b", GitRefError::MultipleValues("ref".into())),
        ("subdir=", GitRefError::NoValue("subdir".into())),
        ("dir=x", GitRefError::Unexpected("dir".into())),
        ("ref=a#b", conflict("ref", "b", "a")),
        ("subdir=a#:b", conflict("subdir", "b", "a")),
        ("tag=a#b", conflict("ref", "b", "refs/tags/a")),
        ("branch=a&ref=b", conflict("ref", "b", "refs/heads/a")),
        ("mtime=now", GitRefError::Mtime("now".into())),
        ("tag=a&branch=a", GitRefError::BranchAndTag),
    ] {
        assert_eq!(refused(query), Some(want), "{query}");
    }
    let error = refused("submodules=ja").expect("the value is no truth value");
    assert_eq!(error.to_string(), "invalid submodules value: \"ja\"");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(std::error::Error::source(&error).is_some());
}
