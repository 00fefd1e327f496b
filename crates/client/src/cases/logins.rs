//! Logins: what docker's configuration says, and what its helpers answer.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use proto::auth::{
    CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest, VerifyTokenAuthorityRequest,
};
use services::auth::auth_server::Auth as _;
use tonic::{Code, Request};

use crate::auth::{DockerConfig, Logins, ask_program};

fn logins(json: &str) -> Logins {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs::write(&file, json).unwrap();
    Logins::new(Arc::new(DockerConfig::load(&file).unwrap()))
}

#[tokio::test]
async fn a_login_is_that_of_the_host_that_was_asked_for() {
    let logins = logins(
        r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"YTpi"},
            "r.example":{"auth":"dTpw"},
            "https://url.example/v2/":{"username":"u2","password":"p2"},
            "token.example":{"auth":"dTpw","identitytoken":"t"},
            "nul.example":{"auth":"dTpwAAA="},
            "colon.example":{"auth":"dTpwOnc="},
            "broken.example":{"auth":"!"},
            "bytes.example":{"auth":"//79"},
            "word.example":{"auth":"dXA="}
        }}"#,
    );
    for (host, login) in [
        ("registry-1.docker.io", ("a", "b")),
        ("r.example", ("u", "p")),
        ("url.example", ("u2", "p2")),
        ("token.example", ("", "t")),
        ("nul.example", ("u", "p")),
        ("colon.example", ("u", "p:w")),
        // What cannot be read is no login, and no other host's.
        ("broken.example", ("", "")),
        ("bytes.example", ("", "")),
        ("word.example", ("", "")),
        ("sub.r.example", ("", "")),
        ("r.example.org", ("", "")),
        ("r.example:5000", ("", "")),
        ("", ("", "")),
    ] {
        let host = host.to_owned();
        let request = Request::new(CredentialsRequest { host: host.clone() });
        let answer = logins.credentials(request).await.unwrap().into_inner();
        let credentials = (answer.username.as_str(), answer.secret.as_str());
        assert_eq!(credentials, login, "{host}");
    }
}

#[tokio::test]
async fn a_helper_that_is_named_is_asked_and_not_the_file() {
    let logins = logins(
        r#"{"auths":{"r.example":{"auth":"dTpw"},"plain.example":{"auth":"dTpw"}},
            "credHelpers":{"r.example":"of-tests-that-is-not-there","plain.example":""}}"#,
    );
    let ask = async |host: &str| {
        let host = host.to_owned();
        logins
            .credentials(Request::new(CredentialsRequest { host }))
            .await
    };
    let error = ask("r.example").await.unwrap_err();
    let words = error.message();
    assert!(
        words.starts_with("docker-credential-of-tests-that-is-not-there: "),
        "{words}"
    );
    let plain = ask("plain.example").await.unwrap().into_inner();
    assert_eq!(plain.username, "u", "an empty name is no helper");
}

/// A program that is a helper for one answer.
fn helper(dir: &Path, script: &str) -> String {
    let file = dir.join("helper");
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn helpers_answer_with_a_login_a_token_nothing_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    type Answer<'a> = Result<(&'a str, &'a str), &'a str>;
    let cases: [(&str, Answer<'_>); 8] = [
        (
            r#"read -r host; test "$1" = get; echo "{\"Username\":\"u\",\"Secret\":\"of $host\"}""#,
            Ok(("u", "of r.example")),
        ),
        (
            r#"echo '{"Username":"<token>","Secret":"t"}'"#,
            Ok(("", "t")),
        ),
        (r#"echo '{}'"#, Ok(("", ""))),
        (
            "echo 'credentials not found in native keychain'; exit 1",
            Ok(("", "")),
        ),
        (
            "echo 'keychain is locked'; exit 1",
            Err("keychain is locked"),
        ),
        ("echo 'on standard error' >&2; exit 1", Err("helper: ")),
        ("echo 'no JSON'", Err("helper: ")),
        ("exec 0<&-; echo '{\"Username\":\"u\"}'", Ok(("u", ""))),
    ];
    for (script, expected) in cases {
        let program = helper(dir.path(), script);
        let answer = ask_program(&program, "r.example\n").await;
        match (&answer, expected) {
            (Ok(login), Ok((username, secret))) => {
                let credentials = (login.username.as_str(), login.secret.as_str());
                assert_eq!(credentials, (username, secret), "{script}");
            }
            (Err(status), Err(words)) => {
                assert!(status.message().contains(words), "{script}: {status:?}");
            }
            _ => panic!("{script}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn tokens_are_not_fetched_here() {
    let logins = logins("{}");
    let fetched = logins
        .fetch_token(Request::new(FetchTokenRequest::default()))
        .await;
    assert_eq!(fetched.unwrap_err().code(), Code::Unimplemented);
    let authority = Request::new(GetTokenAuthorityRequest::default());
    let authority = logins.get_token_authority(authority).await;
    assert_eq!(authority.unwrap_err().code(), Code::Unimplemented);
    let verified = Request::new(VerifyTokenAuthorityRequest::default());
    let verified = logins.verify_token_authority(verified).await;
    assert_eq!(verified.unwrap_err().code(), Code::Unimplemented);
}
