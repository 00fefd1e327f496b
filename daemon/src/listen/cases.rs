//! Listeners: what addresses are, what of TLS is refused, and what happens to sockets.

use std::io::{Read as _, Write as _};

use clap::Parser as _;

use super::*;
use crate::settings::{Args, Defaults, file::File};

fn settings(args: &[&str]) -> Settings {
    let args = Args::parse_from(std::iter::once("rbuildd").chain(args.iter().copied()));
    let (file, warnings) = File::parse("").unwrap();
    Settings::resolve(&args, file, warnings, &Defaults::of("rbuildd")).unwrap()
}

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/client/testdata/tls")
        .join(name)
}

fn tls(cert: &Path, key: &Path, ca: Option<&Path>) -> TlsSettings {
    TlsSettings {
        cert: cert.to_owned(),
        key: key.to_owned(),
        ca: ca.map(Path::to_owned),
    }
}

#[tokio::test]
async fn addresses_have_one_of_three_forms() {
    for (address, expected) in [
        ("", "address \"\" is not understood"),
        ("/run/x.sock", "address \"/run/x.sock\" is not understood"),
        ("npipe:////./pipe/x", "is not understood"),
        (
            "tcp://127.0.0.1",
            "cannot listen on tcp://127.0.0.1: invalid",
        ),
        (
            "tcp://127.0.0.1:99999",
            "cannot listen on tcp://127.0.0.1:99999: invalid",
        ),
        ("tcp://[::1", "cannot listen on tcp://[::1: "),
        // Nothing was handed over to a test.
        ("fd://", "no socket was handed over (LISTEN_FDS)"),
    ] {
        let mut settings = settings(&["--oci-worker-net=none"]);
        settings.addresses = vec![address.to_owned()];
        let error = open(&settings).unwrap_err().to_string();
        assert!(error.contains(expected), "{address}: {error}");
    }
}

#[tokio::test]
async fn all_addresses_are_opened_or_none_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let mut settings = settings(&["--oci-worker-net=none"]);
    settings.addresses = vec![
        format!("unix://{}", socket.display()),
        "tcp://127.0.0.1:0".into(),
    ];
    let listeners = open(&settings).unwrap();
    assert_eq!(listeners.len(), 2);
    assert_eq!(listeners[1].0, "tcp://127.0.0.1:0");
    assert!(matches!(listeners[0].1, Listener::Unix(_, Some(_))));
    assert!(matches!(listeners[1].1, Listener::Tcp(_, None)));
}

#[tokio::test]
async fn a_socket_that_nobody_answers_is_taken_over_and_one_that_is_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("rbuildd.sock");
    let address = format!("unix://{}", socket.display());
    // A daemon that was killed leaves its file.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let listener = unix(&address, &socket, (None, None)).unwrap();
    let error = unix(&address, &socket, (None, None)).unwrap_err();
    assert!(matches!(error, ListenError::InUse(_)), "{error}");
    assert_eq!(error.kind(), oci::ErrorKind::Exists);
    // A file of somebody else is replaced as well; a folder is not.
    drop(listener);
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let error = unix("unix://folder", &folder, (None, None)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot listen on unix://folder: "),
        "{error}"
    );
    assert!(folder.is_dir());
}

#[tokio::test]
async fn a_socket_goes_with_its_listener_and_connections_name_their_user() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("rbuildd.sock");
    let listener = unix("unix://x", &socket, (None, None)).unwrap();
    let mut accepted = Box::pin(accept(listener));
    let connecting = socket.clone();
    let client = task::spawn("client", async move {
        tokio::net::UnixStream::connect(connecting).await.unwrap()
    });
    let (peer, connection) = futures::StreamExt::next(&mut accepted).await.unwrap();
    let uid = rustix::process::geteuid().as_raw();
    assert!(matches!(peer, Peer::User(user) if user == uid), "{peer:?}");
    drop(connection);
    let mut stream = client.await;
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest)
        .await
        .unwrap();
    drop(accepted);
    let gone = async {
        while socket.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("the socket goes");
}

#[test]
fn files_of_tls_that_cannot_be_used_are_named() {
    let _there = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.pem");
    fs::write(
        &garbage,
        "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let none = dir.path().join("none.pem");
    let (cert, key, ca) = (pem("server.pem"), pem("server.key"), pem("ca.pem"));
    let other = pem("client.key");
    acceptor(&tls(&cert, &key, None)).unwrap();
    acceptor(&tls(&cert, &key, Some(&ca))).unwrap();
    for (tls, wrong) in [
        (tls(&none, &key, None), &none),
        (tls(&garbage, &key, None), &garbage),
        (tls(&empty, &key, None), &empty),
        (tls(&cert, &none, None), &none),
        (tls(&cert, &empty, None), &empty),
        // A certificate is no key, and another key is not that of the certificate.
        (tls(&cert, &cert, None), &cert),
        (tls(&cert, &other, None), &cert),
        (tls(&cert, &key, Some(&none)), &none),
        (tls(&cert, &key, Some(&garbage)), &garbage),
        (tls(&cert, &key, Some(&empty)), &empty),
    ] {
        let error = acceptor(&tls).unwrap_err();
        let sentence = error.to_string();
        assert!(
            sentence.starts_with(&format!("cannot use {}: ", wrong.display())),
            "{sentence}"
        );
        assert!(std::error::Error::source(&error).is_some());
    }
}

/// A listener with TLS that takes clients of `ca.pem`, and its port.
async fn mutual() -> (Listener, u16) {
    let _there = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut settings = settings(&[]);
    settings.tls = Some(tls(
        &pem("server.pem"),
        &pem("server.key"),
        Some(&pem("ca.pem")),
    ));
    let listener = tcp("tcp://127.0.0.1:0", "127.0.0.1:0", &settings).unwrap();
    let Listener::Tcp(socket, Some(_)) = &listener else {
        panic!("no TLS");
    };
    let port = socket.local_addr().unwrap().port();
    (listener, port)
}

/// Makes a handshake as the holder of a certificate, and returns what comes over the connection.
fn handshake(port: u16, client: Option<&str>) -> std::io::Result<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(pem("ca.pem")).unwrap())
        .unwrap();
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match client {
        Some(name) => {
            let cert = CertificateDer::from_pem_file(pem(&format!("{name}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(pem(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let connection =
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap());
    let socket = std::net::TcpStream::connect(("127.0.0.1", port))?;
    let mut stream = rustls::StreamOwned::new(connection.unwrap(), socket);
    stream.write_all(b"hello")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[tokio::test]
async fn only_holders_of_a_certificate_of_the_authority_are_let_in_and_each_is_a_peer() {
    let (listener, port) = mutual().await;
    let mut accepted = Box::pin(accept(listener));
    for refused in [None, Some("stranger")] {
        let outcome = task::blocking("client", move || handshake(port, refused));
        tokio::select! {
            outcome = outcome => assert!(outcome.is_err(), "{refused:?} is let in"),
            _ = futures::StreamExt::next(&mut accepted) => panic!("{refused:?} is accepted"),
        }
    }
    let client = task::spawn("client", async move {
        task::blocking("client", move || handshake(port, Some("client"))).await
    });
    let (peer, connection) = futures::StreamExt::next(&mut accepted).await.unwrap();
    let certificate = CertificateDer::from_pem_file(pem("client.pem")).unwrap();
    let digest = oci::Digest::sha256(&certificate);
    assert!(
        matches!(&peer, Peer::Certificate(shown) if *shown == digest),
        "{peer:?}"
    );
    drop(connection);
    // Closed without a word, which TLS calls an error; nothing was said either.
    let answer = client.await.unwrap_or_default();
    assert!(answer.is_empty());
}
