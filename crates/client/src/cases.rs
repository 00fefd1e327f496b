//! The parts of the client that need no daemon, as cases.

mod attach;
mod connect;
mod daemon;
mod logins;
mod manage;
mod solve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci::{Descriptor, ErrorKind};
use prost::Message as _;
use proto::secrets::GetSecretRequest;
use services::secrets::secrets_server::Secrets as _;
use session::Packet;
use session::diffcopy::Stat;
use tonic::{Code, Request, Status};

use crate::attach::SecretSource;
use crate::attach::secrets::SecretShelf;
use crate::auth::DockerConfig;
use crate::connect::{Address, Client, ConnectError, TlsFiles};
use crate::failure::{Failure, LineRange, Origin};
use crate::layout::{Layout, LayoutName};
use session::wire::{from_wire, to_wire};

#[test]
fn addresses_are_sockets_or_ports_and_print_as_they_are_written() {
    for text in [
        "unix:///run/x.sock",
        "unix://relative",
        "tcp://host:1",
        "tcp://[::1]:1",
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
    }
    for (text, want) in [
        (
            "",
            "invalid address \"\": expected unix:///path or tcp://host:port",
        ),
        (
            "/run/x.sock",
            "invalid address \"/run/x.sock\": expected unix:///path or tcp://host:port",
        ),
        (
            "unix://",
            "invalid address \"unix://\": expected unix:///path or tcp://host:port",
        ),
        (
            "tcp://host",
            "invalid address \"tcp://host\": expected unix:///path or tcp://host:port",
        ),
        (
            "ssh://host:1",
            "addresses of kind `ssh` are not supported; use unix:// or tcp://",
        ),
    ] {
        let error = text.parse::<Address>().unwrap_err();
        assert_eq!(error.to_string(), want);
    }
}

#[tokio::test]
async fn tls_that_is_not_complete_is_refused_before_anybody_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| -> Option<PathBuf> {
        let path = dir.path().join(name);
        std::fs::write(&path, "not checked yet").unwrap();
        Some(path)
    };
    let address: Address = "tcp://127.0.0.1:1".parse().unwrap();
    let none = TlsFiles::default();
    let cases = [
        (
            TlsFiles {
                cert: file("c"),
                ..none.clone()
            },
            "--tlscacert is required for TLS",
        ),
        (
            TlsFiles {
                key: file("k"),
                ..none.clone()
            },
            "--tlscacert is required for TLS",
        ),
        (
            TlsFiles {
                server_name: Some("x".into()),
                ..none.clone()
            },
            "--tlscacert is required for TLS",
        ),
        (
            TlsFiles {
                ca: file("a"),
                cert: file("c"),
                ..none.clone()
            },
            "--tlskey is required for TLS",
        ),
        (
            TlsFiles {
                ca: file("a"),
                key: file("k"),
                ..none.clone()
            },
            "--tlscert is required for TLS",
        ),
        (
            TlsFiles {
                ca: Some("/nowhere/ca.pem".into()),
                ..none
            },
            "cannot read /nowhere/ca.pem",
        ),
    ];
    for (files, want) in cases {
        let error = Client::connect(&address, &files).await.unwrap_err();
        assert!(error.to_string().starts_with(want), "{error}");
    }
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_named_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = Address::Unix(dir.path().join("none.sock"));
    let error = Client::connect(&nowhere, &TlsFiles::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Transport { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot connect to {nowhere}: ")),
        "{text}"
    );
    assert!(text.contains("No such file"), "{text}");
    let mut output = Vec::new();
    let error = Client::relay(&nowhere, &mut &b""[..], &mut output)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Socket { .. }), "{error:?}");
}

#[tokio::test]
async fn a_relay_half_closes_and_ends_with_the_daemon() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let daemon = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        stream.read_to_string(&mut request).await.unwrap();
        stream.write_all(b"answer").await.unwrap();
        request
    };
    let mut output = Vec::new();
    let mut input = &b"question"[..];
    let address = Address::Unix(path);
    let relay = Client::relay(&address, &mut input, &mut output);
    let (request, done) = tokio::join!(daemon, relay);
    done.unwrap();
    assert_eq!(
        (request.as_str(), output.as_slice()),
        ("question", &b"answer"[..])
    );
}

#[tokio::test]
async fn secrets_are_read_when_they_are_asked_for_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, size: usize| {
        let path = dir.path().join(name);
        std::fs::write(&path, vec![b'x'; size]).unwrap();
        SecretSource::File(path)
    };
    let secrets = BTreeMap::from([
        ("value".to_owned(), SecretSource::Value(b"v\0\xff".to_vec())),
        ("file".to_owned(), write("file", 3)),
        ("largest".to_owned(), write("largest", 500 << 10)),
        ("large".to_owned(), write("large", (500 << 10) + 1)),
        ("gone".to_owned(), write("gone", 1)),
    ]);
    let shelf = SecretShelf::new(secrets);
    std::fs::write(dir.path().join("file"), "changed").unwrap();
    std::fs::remove_file(dir.path().join("gone")).unwrap();
    let get = async |id: &str| {
        let request = GetSecretRequest {
            id: id.into(),
            ..GetSecretRequest::default()
        };
        let answer = shelf.get_secret(Request::new(request)).await;
        answer
            .map(|a| a.into_inner().data)
            .map_err(|s| (s.code(), s.message().to_owned()))
    };
    assert_eq!(get("value").await.unwrap(), b"v\0\xff");
    assert_eq!(get("file").await.unwrap(), b"changed");
    assert_eq!(get("largest").await.unwrap().len(), 500 << 10);
    assert_eq!(
        get("large").await,
        Err((
            Code::InvalidArgument,
            "secret large too big. max size 500KB".into()
        ))
    );
    assert_eq!(
        get("none").await,
        Err((Code::NotFound, "secret none not found".into()))
    );
    let (code, text) = get("gone").await.unwrap_err();
    assert!(
        code == Code::NotFound && text.contains("cannot read"),
        "{text}"
    );
}

fn stat() -> Stat {
    Stat {
        path: "a/ü".into(),
        mode: 0o644,
        uid: 1,
        gid: 2,
        size: 3,
        mod_time: 4,
        linkname: "b".into(),
        devmajor: 5,
        devminor: 6,
        ..Stat::default()
    }
}

#[test]
fn packets_are_the_same_after_the_wire() {
    for packet in [
        Packet::Stat(None),
        Packet::Stat(Some(Box::new(stat()))),
        Packet::Req(7),
        Packet::Data {
            id: 8,
            bytes: b"x"[..].into(),
        },
        Packet::Data {
            id: 8,
            bytes: b""[..].into(),
        },
        Packet::Fin,
        Packet::Err("why".into()),
    ] {
        let text = format!("{packet:?}");
        let bytes = to_wire(packet).encode_to_vec();
        let back = from_wire(proto::fsutil::Packet::decode(&bytes[..]).unwrap()).unwrap();
        assert_eq!(format!("{back:?}"), text);
    }
    let unknown = proto::fsutil::Packet {
        r#type: 99,
        ..proto::fsutil::Packet::default()
    };
    assert!(
        from_wire(unknown)
            .unwrap_err()
            .to_string()
            .contains("unknown type 99")
    );
}

#[test]
fn details_that_mean_nothing_are_left_out_of_a_failure() {
    let any = |name: &str, value: &[u8]| prost_types::Any {
        type_url: name.into(),
        value: value.to_vec(),
    };
    let of = |details: Vec<prost_types::Any>| {
        let wire = proto::rpc::Status {
            code: 1,
            message: "m".into(),
            details,
        };
        let bytes = wire.encode_to_vec().into();
        Failure::of(&Status::with_details(Code::Cancelled, "m", bytes))
    };
    let plain = of(vec![]);
    assert!(plain.origin == Origin::Daemon && plain.sources.is_empty() && plain.vertex.is_none());
    assert_eq!(
        (plain.kind, plain.to_string().as_str()),
        (ErrorKind::Cancelled, "m")
    );
    let whole = of(vec![
        any("x/gatewayapi.ExitMessage+json", br#"{"Code":7}"#),
        any("x/errdefs.Vertex+json", b"{}"),
        any("x/errdefs.Source+json", br#"{"info":{"filename":"f","data":"!"}}"#),
        any("x/errdefs.Source+json", b"{}"),
        any("x/errdefs.Source+json", br#"{"info":{"filename":"f","data":"eA=="},"ranges":[{"start":{"line":1,"character":2},"end":{"line":1,"character":5}},{}]}"#),
        any("unknown", b"\xff"),
    ]);
    assert_eq!(whole.exit_code, Some(7));
    assert_eq!(whole.vertex.as_deref(), Some(""));
    assert_eq!(whole.sources.len(), 1);
    let part = LineRange {
        columns: Some((2, 5)),
        ..LineRange::lines(1, 1)
    };
    assert_eq!(whole.sources[0].ranges, [part, LineRange::lines(0, 0)]);
    let broken = Failure::of(&Status::with_details(
        Code::Unknown,
        "m",
        b"\xff"[..].to_vec().into(),
    ));
    assert!(broken.sources.is_empty() && broken.kind == ErrorKind::Failed);
}

#[test]
fn layouts_say_which_file_is_wrong_and_what_names_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let missing = layout.find("x").unwrap_err().to_string();
    assert!(
        missing.contains("\"x\"") && missing.contains("it has no names"),
        "{missing}"
    );
    let index = dir.path().join("index.json");
    std::fs::write(&index, "{").unwrap();
    let broken = layout.find("x").unwrap_err().to_string();
    assert!(
        broken.starts_with(&format!("{} is no index", index.display())),
        "{broken}"
    );
    let image = Descriptor::of_bytes("m", b"one");
    assert!(
        layout.put(&image, &[]).is_err(),
        "what is not understood is not written over"
    );
    std::fs::remove_file(&index).unwrap();
    let names = ["r.example:5000/a", "b@sha256:x", "c:tag@sha256:x"];
    for name in names {
        layout
            .put(&image, &[LayoutName::Image(name.into())])
            .unwrap();
        assert_eq!(layout.find(name).unwrap(), image.digest, "{name}");
    }
    assert_eq!(layout.find("tag").unwrap(), image.digest);
    assert_eq!(layout.find("latest").unwrap(), image.digest);
    let version = std::fs::read_to_string(dir.path().join("oci-layout")).unwrap();
    assert_eq!(version, r#"{"imageLayoutVersion":"1.0.0"}"#);
    let entries: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(entries.len(), 2, "no parts are left beside: {entries:?}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = Layout::new(&file.join("below"));
    assert!(
        below
            .put(&image, &[])
            .unwrap_err()
            .to_string()
            .contains("file")
    );
}

#[test]
fn a_docker_configuration_that_is_not_there_says_nothing_and_a_broken_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    DockerConfig::load(&at("none")).unwrap();
    std::fs::write(at("broken"), "{").unwrap();
    let error = DockerConfig::load(&at("broken")).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot parse ") && error.contains("broken"),
        "{error}"
    );
    let error = DockerConfig::load(Path::new("/")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /"), "{error}");
    std::fs::write(
        at("good"),
        r#"{"auths":{"r.example":{"auth":"dTpodW50ZXIy"}}}"#,
    )
    .unwrap();
    let config = DockerConfig::load(&at("good")).unwrap();
    let shown = format!("{config:?}");
    assert!(
        shown.contains("r.example") && !shown.contains("dTpo") && !shown.contains("hunter2"),
        "{shown}"
    );
}
