//! Environment, secrets and agents that clients give to a step.

use llb::pb;
use testkit::executor::Step;
use testkit::session::MemorySession;

use crate::lab::{Lab, mount, step, step_with};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[tokio::test]
async fn the_environment_consists_of_the_op_the_proxy_the_default_path_and_secrets() {
    testkit::requires!(root);
    let secret = |id: &str, name: &str, optional| pb::SecretEnv {
        id: id.into(),
        name: name.into(),
        optional,
    };
    let proxy = |http: &str, all: &str| {
        Some(pb::ProxyEnv {
            http_proxy: http.into(),
            all_proxy: all.into(),
            ..pb::ProxyEnv::default()
        })
    };
    type Case<'a> = (
        &'a str,
        &'a [&'a str],
        Option<pb::ProxyEnv>,
        Vec<pb::SecretEnv>,
        Result<&'a [&'a str], &'a str>,
    );
    let cases: [Case<'_>; 11] = [
        ("nothing", &[], None, vec![], Ok(&[PATH])),
        (
            "a path",
            &["PATH=/x", "A=1"],
            None,
            vec![],
            Ok(&["PATH=/x", "A=1"]),
        ),
        ("an empty path", &["PATH="], None, vec![], Ok(&["PATH="])),
        (
            "a name that begins like it",
            &["PATHS=/x"],
            None,
            vec![],
            Ok(&["PATHS=/x", PATH]),
        ),
        (
            "a proxy",
            &["A=1"],
            proxy("http://p", "x"),
            vec![],
            Ok(&[
                "A=1",
                "HTTP_PROXY=http://p",
                "http_proxy=http://p",
                "ALL_PROXY=x",
                "all_proxy=x",
                PATH,
            ]),
        ),
        (
            "a proxy without addresses",
            &[],
            proxy("", ""),
            vec![],
            Ok(&[PATH]),
        ),
        (
            "secrets, after all the rest",
            &["A=1"],
            None,
            vec![
                secret("token", "TOKEN", false),
                secret("empty", "EMPTY", false),
            ],
            Ok(&["A=1", PATH, "TOKEN=hunter2", "EMPTY="]),
        ),
        (
            "an optional secret that nobody has",
            &[],
            None,
            vec![secret("other", "OTHER", true)],
            Ok(&[PATH, "OTHER="]),
        ),
        (
            "a secret that nobody has",
            &[],
            None,
            vec![secret("other", "OTHER", false)],
            Err("secret other: not found"),
        ),
        (
            "a secret that is no text",
            &[],
            None,
            vec![secret("binary", "BINARY", false)],
            Err(
                "secret `binary` is not valid UTF-8 and cannot be an environment variable; mount it as a file",
            ),
        ),
        (
            "a secret without an id",
            &[],
            None,
            vec![secret("", "TOKEN", false)],
            Err(""),
        ),
    ];
    for (case, env, proxy_env, secretenv, want) in cases {
        let lab = Lab::new([Step::exits(0)]);
        let secrets = [
            ("token", &b"hunter2"[..]),
            ("empty", b""),
            ("binary", b"\xff"),
        ];
        lab.connect("client", MemorySession::new("client").secrets(secrets));
        let mut op = step_with(|meta| {
            meta.env = env.iter().map(|&word| word.to_owned()).collect();
            meta.proxy_env = proxy_env;
        });
        op.secretenv = secretenv;
        match want {
            Ok(want) => {
                lab.run(op).await.unwrap();
                assert_eq!(lab.executor.runs()[0].env, want, "{case}");
            }
            Err(want) => {
                let error = lab.error(op).await;
                assert!(
                    error.contains(want) && !error.contains("hunter2"),
                    "{case}: {error}"
                );
                assert_eq!(lab.executor.runs(), [], "{case}: nothing ran");
            }
        }
    }
}

#[tokio::test]
async fn a_client_without_the_service_and_no_client_have_different_errors() {
    testkit::requires!(root);
    let secret = pb::Mount {
        secret_opt: Some(pb::SecretOpt {
            id: "token".into(),
            ..pb::SecretOpt::default()
        }),
        ..mount("/x", pb::MountType::Secret)
    };
    let ssh = pb::Mount {
        ssh_opt: Some(pb::SshOpt {
            id: "default".into(),
            ..pb::SshOpt::default()
        }),
        ..mount("/x", pb::MountType::Ssh)
    };
    let lab = Lab::new([]);
    for op in [step([secret.clone()]), step([ssh.clone()])] {
        assert_eq!(lab.error(op).await, "no active sessions");
    }
    lab.connect("old", MemorySession::new("old"));
    assert_eq!(lab.error(step([secret])).await, "secret token: not found");
    assert_eq!(
        lab.error(step([ssh])).await,
        "no SSH key \"default\" forwarded from the client"
    );
}

#[tokio::test]
async fn the_second_client_is_asked_when_the_first_has_no_such_service() {
    testkit::requires!(root);
    let lab = Lab::new([Step::exits(0)]);
    let first = lab.connect("first", MemorySession::new("first"));
    let second = MemorySession::new("second").secrets([("token", b"hunter2")]);
    let second = lab.connect("second", second);
    let mut op = step([]);
    op.secretenv = vec![pb::SecretEnv {
        id: "token".into(),
        name: "TOKEN".into(),
        optional: false,
    }];
    lab.run(op).await.unwrap();
    assert_eq!(lab.executor.runs()[0].env, [PATH, "TOKEN=hunter2"]);
    assert_eq!(first.calls(), ["secret token"]);
    assert_eq!(second.calls(), ["secret token"]);
}
