//! A proxy at work, between a client that writes bytes and servers that answer them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::Authority;
use crate::egress::Stream;
use crate::{
    AllowList, Capture, Config, Egress, PolicyError, Proxy, Reach, RequestPolicy, Serving,
    StepRules, Upstreams,
};

/// Connects to one server whatever is asked for, and records the requested addresses.
#[derive(Debug)]
struct OneServer {
    server: SocketAddr,
    requested_addresses: Mutex<Vec<SocketAddr>>,
}

#[async_trait]
impl Egress for OneServer {
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.requested_addresses.lock().push(address);
        TcpStream::connect(self.server).await
    }
}

/// Denies what has `denied` in it and sends `/old` to `/new`.
#[derive(Debug, Default)]
struct Rules(Mutex<Vec<String>>);

#[async_trait]
impl RequestPolicy for Rules {
    async fn check(&self, method: &str, url: &str) -> Result<Option<String>, PolicyError> {
        self.0.lock().push(format!("{method} {url}"));
        if url.contains("denied") {
            return Err(PolicyError(format!("source {url:?} denied by policy")));
        }
        Ok(url.contains("/old").then(|| url.replace("/old", "/new")))
    }
}

struct Lab {
    proxy: SocketAddr,
    serving: Serving,
    authority: Arc<Proxy>,
    egress: Arc<OneServer>,
    policy: Arc<Rules>,
    capture: Arc<Capture>,
    /// What the server got, request by request.
    received: Arc<Mutex<Vec<String>>>,
}

struct Setup {
    allow: AllowList,
    reach: Reach,
    tls: bool,
    upstreams: Upstreams,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            allow: AllowList::everything(),
            reach: Reach::Host,
            tls: false,
            upstreams: Upstreams::none(),
        }
    }
}

/// Reads to the end of a request's headers and its `Content-Length`.
async fn read_message(stream: &mut (dyn Stream + '_)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(bytes).unwrap();
    let length = text.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(text + &String::from_utf8(body).unwrap())
}

/// Answers every request by its path, with as many connections as are made.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, received: Arc<Mutex<Vec<String>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, received) = (tls.clone(), Arc::clone(&received));
        task::spawn("server", async move {
            let mut stream: Box<dyn Stream> = match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => return,
                },
                None => Box::new(stream),
            };
            while let Some(request) = read_message(&mut *stream).await {
                let Some(path) = request.split(' ').nth(1).map(str::to_owned) else {
                    // What is left of a body.
                    return;
                };
                let is_head = request.starts_with("HEAD");
                received.lock().push(request);
                let answer: String = match path.rsplit('/').next().unwrap() {
                    "redirect" => {
                        "HTTP/1.1 302 Found\r\nLocation: next?a=b\r\nContent-Length: 0\r\n\r\n"
                            .into()
                    }
                    "missing" => "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone".into(),
                    "part" => {
                        "HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\npart".into()
                    }
                    "broken" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".into(),
                    "chunked" => {
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                            .into()
                    }
                    "endless" => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end".into(),
                    "nonsense" => "SSH-2.0-OpenSSH\r\n".into(),
                    _ if is_head => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".into(),
                    _ => {
                        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: 1\r\n\r\nhello".into()
                    }
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                if answer.contains("short") || answer.contains("close") || answer.contains("SSH") {
                    drop(stream.shutdown().await);
                    return;
                }
            }
        })
        .detach();
    }
}

async fn lab(setup: Setup) -> Lab {
    let received = Arc::<Mutex<Vec<String>>>::default();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = listener.local_addr().unwrap();
    let theirs = Authority::new().unwrap();
    let tls = setup
        .tls
        .then(|| TlsAcceptor::from(theirs.server("a.test").unwrap()));
    task::spawn("servers", serve(listener, tls, Arc::clone(&received))).detach();
    let authority = Proxy::new(Config {
        allow: setup.allow,
        upstreams: Ok(setup.upstreams),
        roots: Some(vec![theirs.der()]),
    });
    let egress = Arc::new(OneServer {
        server,
        requested_addresses: Mutex::default(),
    });
    let policy = Arc::<Rules>::default();
    let capture = Arc::<Capture>::default();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = listener.local_addr().unwrap();
    let rules = StepRules {
        reach: setup.reach,
        policies: vec![Arc::clone(&policy) as _],
        capture: Arc::clone(&capture),
    };
    let serving = authority.serve(listener, Arc::clone(&egress) as _, rules);
    Lab {
        proxy,
        serving: serving.unwrap(),
        authority,
        egress,
        policy,
        capture,
        received,
    }
}

/// Sends bytes and reads until the other side closes, or has nothing to say for a moment after an answer.
async fn said(stream: &mut (dyn Stream + '_), bytes: &str) -> String {
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut out = Vec::new();
    let reading = stream.read_to_end(&mut out);
    match tokio::time::timeout(Duration::from_secs(20), reading).await {
        Ok(_) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => panic!("no end after {:?}", String::from_utf8_lossy(&out)),
    }
}

impl Lab {
    async fn say(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        said(&mut stream, bytes).await
    }

    /// One request with nothing but its line and `Connection: close`.
    async fn ask(&self, method: &str, url: &str) -> String {
        let request =
            format!("{method} {url} HTTP/1.1\r\nHost: ignored\r\nConnection: close\r\n\r\n");
        self.say(&request).await
    }

    /// A stream inside of a tunnel, with TLS by the proxy's certificate.
    async fn tunnel(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        let mut stream = TcpStream::connect(self.proxy).await?;
        let connect = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        stream.write_all(connect.as_bytes()).await?;
        let answer = read_message(&mut stream).await;
        assert!(answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200 ")));
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.authority()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// Ends the proxy and gives what was told of: the log, materials, and what is incomplete.
    async fn end(self) -> (String, Vec<String>, Vec<String>) {
        self.serving.close().await;
        let materials = self.capture.materials().into_iter();
        let incomplete = self.capture.incompletes().into_iter();
        (
            self.capture.log(),
            materials
                .map(|m| format!("{} {}", m.url, m.sha256))
                .collect(),
            incomplete
                .map(|i| format!("{} {} {}", i.method, i.url, i.reason))
                .collect(),
        )
    }
}

const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[tokio::test]
async fn a_request_goes_to_its_address_and_its_body_is_a_material() {
    let lab = lab(Setup::default()).await;
    let answer = lab
        .say("GET http://u:p@10.0.0.1:81/a?b HTTP/1.1\r\nHost: other.test\r\nAccept-Encoding: gzip\r\nProxy-Authorization: Basic eDp5\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Kept: 2\r\n\r\n")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"),
        "{answer}"
    );
    assert!(!answer.to_lowercase().contains("keep-alive"), "{answer}");
    assert_eq!(
        *lab.egress.requested_addresses.lock(),
        ["10.0.0.1:81".parse().unwrap()]
    );
    let request = lab.received.lock().remove(0);
    assert!(request.starts_with("GET /a?b HTTP/1.1\r\n"), "{request}");
    let lower = request.to_lowercase();
    assert!(lower.contains("host: 10.0.0.1:81\r\n") && lower.contains("x-kept: 2"));
    for gone in ["other.test", "gzip", "proxy-authorization", "x-hop"] {
        assert!(!lower.contains(gone), "{gone} in {request}");
    }
    let url = "http://xxxxx:xxxxx@10.0.0.1:81/a?b";
    assert_eq!(*lab.policy.0.lock(), [format!("GET {url}")]);
    let (log, materials, incomplete) = lab.end().await;
    assert_eq!(
        log,
        format!("proxy network requests:\n- GET {url} -> 200\n")
    );
    assert_eq!(materials, [format!("{url} {HELLO}")]);
    assert!(incomplete.is_empty());
}

#[tokio::test]
async fn what_cannot_be_a_material_says_why() {
    let lab = lab(Setup::default()).await;
    for (method, path) in [
        ("POST", "post"),
        ("HEAD", "head"),
        ("GET", "part"),
        ("GET", "missing"),
        ("GET", "broken"),
        ("GET", "nonsense"),
        ("GET", "redirect"),
        ("GET", "next?a=b"),
        ("GET", "chunked"),
        ("GET", "endless"),
    ] {
        lab.ask(method, &format!("http://10.0.0.1/{path}")).await;
    }
    let range = "GET http://10.0.0.1/range HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\nConnection: close\r\n\r\n";
    lab.say(range).await;
    let (log, materials, incomplete) = lab.end().await;
    assert_eq!(
        incomplete,
        [
            "POST http://10.0.0.1/post method_not_materializable",
            "HEAD http://10.0.0.1/head method_not_materializable",
            "GET http://10.0.0.1/part partial_response",
            "GET http://10.0.0.1/missing unsuccessful_response",
            "GET http://10.0.0.1/broken body_read_failed",
            "GET http://10.0.0.1/nonsense upstream_error",
            "GET http://10.0.0.1/range partial_response",
        ]
    );
    let urls: Vec<_> = materials
        .iter()
        .map(|m| m.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        urls,
        [
            "http://10.0.0.1/next?a=b",
            "http://10.0.0.1/chunked",
            "http://10.0.0.1/endless",
            "http://10.0.0.1/redirect"
        ]
    );
    assert!(
        log.contains("- GET http://10.0.0.1/nonsense -> 502 ("),
        "{log}"
    );
    assert!(
        log.contains("- GET http://10.0.0.1/redirect -> 302\n"),
        "{log}"
    );
}

#[tokio::test]
async fn a_policy_denies_and_converts_and_converts_nothing_but_get() {
    let lab = lab(Setup::default()).await;
    let denied = lab.ask("GET", "http://10.0.0.1/denied").await;
    assert!(denied.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{denied}");
    assert!(denied.contains("denied by policy"), "{denied}");
    let posted = lab.ask("POST", "http://10.0.0.1/old").await;
    assert!(
        posted.contains("conversion is only supported for GET"),
        "{posted}"
    );
    let converted = lab.ask("GET", "http://10.0.0.1/old").await;
    assert!(converted.ends_with("hello"), "{converted}");
    assert_eq!(lab.received.lock().len(), 1);
    assert!(lab.received.lock()[0].starts_with("GET /new "));
    let (log, materials, incomplete) = lab.end().await;
    assert!(
        log.contains("- GET http://10.0.0.1/denied -> 403 (source "),
        "{log}"
    );
    assert!(log.contains("- GET http://10.0.0.1/new -> 200\n"), "{log}");
    assert_eq!(materials, [format!("http://10.0.0.1/new {HELLO}")]);
    assert!(incomplete.is_empty());
}

#[tokio::test]
async fn hosts_that_are_not_in_the_allow_list_get_a_sentence_and_no_connection() {
    let lab = lab(Setup {
        allow: AllowList::parse(["10.0.0.1", "a.test"]).unwrap(),
        tls: true,
        ..Setup::default()
    })
    .await;
    let refused = lab.ask("GET", "http://10.0.0.2/").await;
    assert!(
        refused.starts_with("HTTP/1.1 403 Forbidden\r\n"),
        "{refused}"
    );
    assert!(
        refused.contains("10.0.0.2 is not in the allow-list"),
        "{refused}"
    );
    let mut tunnel = lab.tunnel("b.test", 443).await.unwrap();
    let inside = said(
        &mut *tunnel,
        "GET /x HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        inside.contains("b.test is not in the allow-list"),
        "{inside}"
    );
    assert!(lab.egress.requested_addresses.lock().is_empty() && lab.policy.0.lock().is_empty());
    let (log, _, _) = lab.end().await;
    assert!(
        log.contains("- GET https://b.test/x -> 403 (b.test is not"),
        "{log}"
    );
}

#[tokio::test]
async fn what_is_said_in_a_tunnel_is_read_decided_and_told_of() {
    let lab = lab(Setup {
        tls: true,
        ..Setup::default()
    })
    .await;
    // The lab's server has a certificate for a.test; the name leads to this machine's own address here.
    let mut tunnel = lab.tunnel("127.0.0.1", 443).await.unwrap();
    let answer = said(
        &mut *tunnel,
        "GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("cannot speak TLS with 127.0.0.1"),
        "{answer}"
    );
    for (host, request) in [
        (
            "a.test",
            "GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n",
        ),
        (
            "a.test",
            "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
        ),
        (
            "a.test",
            "GET https://b.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
        ),
    ] {
        let mut tunnel = lab.tunnel(host, 443).await.unwrap();
        let answer = said(&mut *tunnel, request).await;
        assert!(
            answer.starts_with("HTTP/1.1 421 Misdirected Request\r\n"),
            "{answer}"
        );
    }
    let mut tunnel = lab.tunnel("a.test", 443).await.unwrap();
    let nested = "CONNECT b.test:443 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let answer = said(&mut *tunnel, nested).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn requests_that_two_could_read_differently_are_refused_and_go_nowhere() {
    let lab = lab(Setup::default()).await;
    for request in [
        "POST http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        "GET http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n",
        "GET ftp://10.0.0.1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /path HTTP/1.1\r\nConnection: close\r\n\r\n",
        "CONNECT 10.0.0.1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET http://10.0.0.1/ HTTP/1.1\r\nHost : x\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\r\n\r\n",
    ] {
        let answer = lab.say(request).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{request:?}: {answer}"
        );
    }
    let long = format!(
        "GET http://10.0.0.1/{} HTTP/1.1\r\n\r\n",
        "x".repeat(crate::MAX_HEADER_BYTES)
    );
    let many = format!(
        "GET http://10.0.0.1/ HTTP/1.1\r\n{}\r\n",
        "A: b\r\n".repeat(200)
    );
    for request in [long, many] {
        let answer = lab.say(&request).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(
        lab.egress.requested_addresses.lock().is_empty(),
        "nothing was sent on"
    );
    // Of a length and an encoding hyper takes the encoding, as RFC 9112 (6.3) says, and the connection ends behind it. What is sent on
    // is framed anew and has no length.
    let both = "POST http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET http://10.0.0.1/smuggled HTTP/1.1\r\n\r\n";
    let answer = lab.say(both).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let received = lab.received.lock();
    assert_eq!(received.len(), 1);
    assert!(
        !received[0].to_lowercase().contains("content-length: 30"),
        "{}",
        received[0]
    );
}

#[tokio::test]
async fn addresses_out_of_reach_get_a_sentence_and_no_connection() {
    let lab = lab(Setup {
        reach: Reach::Beyond,
        ..Setup::default()
    })
    .await;
    for url in [
        "http://127.0.0.1:1/",
        "http://localhost/",
        "http://169.254.169.254/latest/",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0/",
        "http://2130706433/",
    ] {
        let answer = lab.ask("GET", url).await;
        assert!(
            answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
            "{url}: {answer}"
        );
    }
    assert!(lab.egress.requested_addresses.lock().is_empty());
    let (log, _, incomplete) = lab.end().await;
    assert!(
        log.contains("- GET http://169.254.169.254/latest/ -> 502 (169.254.169.254 is"),
        "{log}"
    );
    assert_eq!(incomplete.len(), 7);
}

#[tokio::test]
async fn connections_are_used_again_and_one_that_was_closed_is_made_anew() {
    let lab = lab(Setup::default()).await;
    let request = |path: &str, last: &str| {
        format!("GET http://10.0.0.1/{path} HTTP/1.1\r\nHost: x\r\n{last}\r\n")
    };
    let all = [
        request("1", ""),
        request("2", ""),
        // The server closes behind this one.
        request("endless", ""),
        request("3", "Connection: close\r\n"),
    ];
    let answer = lab.say(&all.concat()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 4, "{answer}");
    assert_eq!(lab.egress.requested_addresses.lock().len(), 2);
}

#[tokio::test]
async fn a_client_that_closes_its_side_when_it_has_asked_is_answered() {
    let lab = lab(Setup::default()).await;
    let mut stream = TcpStream::connect(lab.proxy).await.unwrap();
    let request = "GET http://10.0.0.1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_proxy_is_told_of() {
    let lab = lab(Setup::default()).await;
    let mut stream = TcpStream::connect(lab.proxy).await.unwrap();
    let connect = "CONNECT a.test:22 HTTP/1.1\r\nHost: a.test:22\r\n\r\n";
    stream.write_all(connect.as_bytes()).await.unwrap();
    read_message(&mut stream).await.unwrap();
    let answer = said(&mut stream, "SSH-2.0-OpenSSH_9.9\r\n").await;
    assert!(!answer.contains("HTTP"), "{answer:?}");
    let (log, _, _) = lab.end().await;
    assert!(
        log.contains("- CONNECT a.test:22 (no TLS with the proxy: "),
        "{log}"
    );
}

#[tokio::test]
async fn requests_leave_through_the_proxy_of_the_daemon() {
    let variables = |name: &str| match name {
        "HTTP_PROXY" => Some("http://me:secret@127.0.0.2:8080".to_owned()),
        "https_proxy" => Some("127.0.0.3:8081".to_owned()),
        "NO_PROXY" => Some("10.0.0.9".to_owned()),
        _ => None,
    };
    let lab = lab(Setup {
        upstreams: Upstreams::from_environment(variables).unwrap(),
        reach: Reach::Beyond,
        ..Setup::default()
    })
    .await;
    assert!(lab.ask("GET", "http://10.0.0.1/a").await.ends_with("hello"));
    assert!(lab.ask("GET", "http://10.0.0.9/b").await.ends_with("hello"));
    let mut tunnel = lab.tunnel("a.test", 443).await.unwrap();
    let answer = said(
        &mut *tunnel,
        "GET /c HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
    )
    .await;
    // The lab's server says yes to `CONNECT` and speaks no TLS.
    assert!(answer.contains("cannot speak TLS with a.test"), "{answer}");
    let received = lab.received.lock();
    assert!(
        received[0].starts_with("GET http://10.0.0.1/a HTTP/1.1\r\n"),
        "{}",
        received[0]
    );
    assert!(
        received[0]
            .to_lowercase()
            .contains("proxy-authorization: basic bwu6c2vjcmv0")
    );
    assert!(
        received[1].starts_with("GET /b HTTP/1.1\r\n"),
        "{}",
        received[1]
    );
    assert!(!received[1].to_lowercase().contains("proxy-authorization"));
    assert!(
        received[2].starts_with("CONNECT a.test:443 HTTP/1.1\r\n"),
        "{}",
        received[2]
    );
    let requested_addresses: Vec<String> = lab
        .egress
        .requested_addresses
        .lock()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        requested_addresses,
        ["127.0.0.2:8080", "10.0.0.9:80", "127.0.0.3:8081"]
    );
}

#[tokio::test]
async fn a_variable_that_names_no_proxy_fails_the_step_and_not_the_daemon() {
    let invalid =
        Upstreams::from_environment(|name| (name == "HTTP_PROXY").then(|| "ftp://x".into()));
    let proxy = Proxy::new(Config {
        allow: AllowList::everything(),
        upstreams: invalid,
        roots: None,
    });
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let egress = Arc::new(OneServer {
        server: listener.local_addr().unwrap(),
        requested_addresses: Mutex::default(),
    });
    let rules = StepRules {
        reach: Reach::Host,
        policies: Vec::new(),
        capture: Arc::default(),
    };
    let error = proxy.serve(listener, egress, rules).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid HTTP_PROXY in buildkitd environment"
    );
    assert_eq!(error.kind(), oci::ErrorKind::Invalid);
}
