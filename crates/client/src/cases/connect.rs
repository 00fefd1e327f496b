//! Connections that come about, and what stands in the way of those that do not.

use std::path::{Path, PathBuf};

use oci::ErrorKind;
use services::health::health_server::HealthServer;
use task::Task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::attach::health::Healthy;
use crate::auth::ConfigError;
use crate::connect::{Address, Client, ConnectError, Obstacle, TlsFiles};
use crate::failure::{Failure, Origin};
use crate::layout::LayoutError;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/tls")
        .join(name)
}

fn pem(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

fn trusting(ca: &str) -> TlsFiles {
    TlsFiles {
        ca: Some(file(ca)),
        ..TlsFiles::default()
    }
}

fn as_client(files: TlsFiles, name: &str) -> TlsFiles {
    TlsFiles {
        cert: Some(file(&format!("{name}.pem"))),
        key: Some(file(&format!("{name}.key"))),
        ..files
    }
}

/// A server on loopback; with TLS, and with an authority for clients where one is named.
async fn server(tls: bool, clients: Option<&str>) -> (Address, Task<()>) {
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let mut server = Server::builder();
    if tls {
        let identity = Identity::from_pem(pem("server.pem"), pem("server.key"));
        let mut config = ServerTlsConfig::new().identity(identity);
        if let Some(ca) = clients {
            config = config.client_ca_root(Certificate::from_pem(pem(ca)));
        }
        server = server.tls_config(config).unwrap();
    }
    let serving = server
        .add_service(HealthServer::new(Healthy))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let serving = task::spawn("server of a test", async move { serving.await.unwrap() });
    (address.parse().unwrap(), serving)
}

/// Connects and calls; a daemon that does not know the call is one that can be talked to.
async fn talk(address: &Address, files: &TlsFiles) -> Result<(), Trouble> {
    let client = Client::connect(address, files)
        .await
        .map_err(Trouble::Connect)?;
    match client.info().await {
        Err(failure) if failure.kind == ErrorKind::Unsupported => Ok(()),
        Err(failure) => Err(Trouble::Call(failure)),
        Ok(_) => panic!("a server of tests answers nothing"),
    }
}

#[derive(Debug)]
enum Trouble {
    Connect(ConnectError),
    Call(Failure),
}

impl Trouble {
    fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Self::Connect(error) => error.obstacle(),
            Self::Call(_) => None,
        }
    }

    /// A client finds out with its first call what the server refuses after the handshake.
    fn is_of_connection(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Call(failure) => {
                failure.origin == Origin::Connection && failure.kind == ErrorKind::Unavailable
            }
        }
    }
}

#[tokio::test]
async fn a_daemon_with_tls_is_talked_to_by_whom_it_trusts() {
    let (address, _serving) = server(true, None).await;
    talk(&address, &trusting("ca.pem")).await.unwrap();
    let renamed = TlsFiles {
        server_name: Some("localhost".into()),
        ..trusting("ca.pem")
    };
    talk(&address, &renamed).await.unwrap();
    let (mutual, _serving) = server(true, Some("ca.pem")).await;
    let ours = as_client(trusting("ca.pem"), "client");
    talk(&mutual, &ours).await.unwrap();
    let (plain, _serving) = server(false, None).await;
    talk(&plain, &TlsFiles::default()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_from_a_daemon_that_is_not_there() {
    let (address, _serving) = server(true, None).await;
    let other_name = TlsFiles {
        server_name: Some("other.example".into()),
        ..trusting("ca.pem")
    };
    for files in [trusting("other-ca.pem"), other_name] {
        let trouble = talk(&address, &files).await.unwrap_err();
        assert_eq!(
            trouble.obstacle(),
            Some(Obstacle::Certificate),
            "{trouble:?}"
        );
        let Trouble::Connect(error) = trouble else {
            panic!("connected");
        };
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let (mutual, _serving) = server(true, Some("ca.pem")).await;
    for files in [
        trusting("ca.pem"),
        as_client(trusting("ca.pem"), "stranger"),
    ] {
        let trouble = talk(&mutual, &files).await.unwrap_err();
        assert!(trouble.is_of_connection(), "{trouble:?}");
        assert_ne!(trouble.obstacle(), Some(Obstacle::Nobody), "{trouble:?}");
    }
}

#[tokio::test]
async fn tls_on_one_side_only_is_told_from_a_daemon_that_is_not_there() {
    let (plain, _serving) = server(false, None).await;
    let trouble = talk(&plain, &trusting("ca.pem")).await.unwrap_err();
    assert_eq!(trouble.obstacle(), Some(Obstacle::Tls), "{trouble:?}");
    let (tls, _serving) = server(true, None).await;
    let trouble = talk(&tls, &TlsFiles::default()).await.unwrap_err();
    assert!(trouble.is_of_connection(), "{trouble:?}");
}

#[tokio::test]
async fn somebody_who_speaks_no_grpc_is_a_connection_that_broke() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("tcp://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let serving = task::spawn("web server", async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 16];
            let _read = stream.read(&mut request).await;
            let _sent = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let trouble = talk(&address, &TlsFiles::default()).await.unwrap_err();
    assert!(trouble.is_of_connection(), "{trouble:?}");
    drop(serving);
}

#[tokio::test]
async fn nobody_at_a_port_or_socket_is_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let unix = |name: &str| Address::Unix(dir.path().join(name));
    for (address, kind) in [
        (unix("none.sock"), ErrorKind::NotFound),
        (unix("file"), ErrorKind::Unavailable),
        (unix("file/below"), ErrorKind::Invalid),
        (Address::Tcp(port.to_string()), ErrorKind::Unavailable),
    ] {
        let connect = Client::connect(&address, &TlsFiles::default()).await;
        let relay = Client::relay(&address, &mut &b""[..], &mut Vec::new()).await;
        for error in [connect.map(|_| ()).unwrap_err(), relay.unwrap_err()] {
            assert_eq!(error.obstacle(), Some(Obstacle::Nobody), "{error:?}");
            assert_eq!(error.kind(), kind, "{error:?}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_before_a_call_is_no_daemon_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "no PEM").unwrap();
    let here: Address = "tcp://127.0.0.1:1".parse().unwrap();
    let missing = TlsFiles {
        ca: Some("/none".into()),
        ..TlsFiles::default()
    };
    let half = TlsFiles {
        cert: Some(garbage.clone()),
        ..trusting("ca.pem")
    };
    let no_key = TlsFiles {
        key: Some(garbage),
        ..as_client(trusting("ca.pem"), "client")
    };
    let blank = Address::Tcp("no host:1".into());
    for (address, files, kind) in [
        (&here, missing, ErrorKind::NotFound),
        (&here, half, ErrorKind::Invalid),
        (&here, no_key, ErrorKind::Invalid),
        (&blank, TlsFiles::default(), ErrorKind::Invalid),
    ] {
        let error = Client::connect(address, &files).await.unwrap_err();
        assert_eq!((error.obstacle(), error.kind()), (None, kind), "{error:?}");
    }
    for text in ["", "http://x:1"] {
        let error = text.parse::<Address>().unwrap_err();
        assert_eq!((error.obstacle(), error.kind()), (None, ErrorKind::Invalid));
    }
}

#[test]
fn errors_about_files_have_the_kind_of_what_is_wrong_with_the_file() {
    let io = |errno| std::io::Error::from_raw_os_error(errno);
    let path = PathBuf::from("/f");
    let json = || gostd::json::from_start::<u8>(b"{").unwrap_err();
    let read = |errno| ConfigError::Read {
        path: path.clone(),
        source: io(errno),
    };
    let layout = |errno| LayoutError::Io {
        path: path.clone(),
        source: io(errno),
    };
    let parse = ConfigError::Parse {
        path: path.clone(),
        source: json(),
    };
    let index = LayoutError::Index {
        path: path.clone(),
        source: json(),
    };
    let missing = LayoutError::Missing {
        path: path.clone(),
        name: "n".into(),
        present: "m".into(),
    };
    for (kind, expected) in [
        (read(13).kind(), ErrorKind::Denied),
        (read(5).kind(), ErrorKind::System),
        (parse.kind(), ErrorKind::Invalid),
        (layout(28).kind(), ErrorKind::Exhausted),
        (index.kind(), ErrorKind::Invalid),
        (missing.kind(), ErrorKind::NotFound),
    ] {
        assert_eq!(kind, expected);
    }
    let failure = Failure::because("no random bytes", io(24));
    assert_eq!(
        (failure.kind, failure.origin),
        (ErrorKind::Exhausted, Origin::Client)
    );
    assert_eq!(
        failure.to_string(),
        "no random bytes: Too many open files (os error 24)"
    );
    assert!(std::error::Error::source(&failure).is_some());
}
