//! A registry of one closure: each request is answered by it and written down.
//!
//! [`image`] makes a closure that serves blobs and manifests well; [`Fault::of`] makes of a good answer the one that a broken or
//! hostile registry gives.

use std::collections::HashMap;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request that a server of a test has received.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method, such as `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The headers: names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }
}

/// A scripted response, and how it is sent.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection breaks.
    cut: Option<usize>,
    pace: Pace,
}

/// How fast a response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    AtOnce,
    /// Nothing is sent, and the connection stays open.
    Never,
    /// A byte of the head each second.
    HeadDrips,
    /// A byte of the body each second.
    BodyDrips,
    /// A kilobyte of the body each second.
    BodyIsSlow,
}

impl Response {
    /// An empty answer.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            cut: None,
            pace: Pace::AtOnce,
        }
    }
    /// No answer at all, on a connection that stays open.
    pub fn silent() -> Self {
        Self {
            pace: Pace::Never,
            ..Self::new(200)
        }
    }
    /// A byte of the head each second.
    #[must_use]
    pub fn head_drips(self) -> Self {
        Self {
            pace: Pace::HeadDrips,
            ..self
        }
    }
    /// A kilobyte of the body each second.
    #[must_use]
    pub fn body_is_slow(self) -> Self {
        Self {
            pace: Pace::BodyIsSlow,
            ..self
        }
    }
    /// A byte of the body each second.
    #[must_use]
    pub fn body_drips(self) -> Self {
        Self {
            pace: Pace::BodyDrips,
            ..self
        }
    }
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
    /// Breaks the connection after `at` bytes of the body.
    #[must_use]
    pub fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }
}

/// A registry on a port of this machine, until it is dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    /// `127.0.0.1:PORT`.
    pub host: String,
    requests: Arc<Mutex<Vec<Request>>>,
    _server: task::Task<()>,
}

impl FakeRegistry {
    /// Starts a registry that gives each request to `answer`.
    pub async fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (requests.clone(), Arc::new(answer));
        let server = task::spawn("fake registry", async move {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (log.clone(), answer.clone());
                connections.push(task::spawn("fake registry's connection", async move {
                    // A client that goes away is no fault of the registry's.
                    drop(serve(stream, &log, &*answer).await);
                }));
            }
        });
        Self {
            host,
            requests,
            _server: server,
        }
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    /// Method and target of the requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|r| format!("{} {}", r.method, r.target))
            .collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request) -> Response + Send + Sync),
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        let mut chunk = vec![0; 4096];
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&chunk[..n]);
        // A client that speaks TLS is told what any server without it says.
        if !buffer[0].is_ascii_alphabetic() {
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await?;
            return stream.shutdown().await;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (
        first.next().unwrap().to_owned(),
        first.next().unwrap().to_owned(),
    );
    let headers: Vec<_> = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()))
        .collect();
    let mut body = buffer[end + 4..].to_vec();
    let length: usize = headers
        .iter()
        .find(|(k, _)| k == "content-length")
        .map_or(0, |(_, v)| v.parse().unwrap());
    while body.len() < length {
        let mut chunk = vec![0; 65536];
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            break;
        }
        body.extend_from_slice(&chunk[..n]);
    }
    let request = Request {
        method,
        target,
        headers,
        body,
    };
    log.lock().push(request.clone());
    let response = answer(&request);
    let mut out = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", response.status);
    for (k, v) in &response.headers {
        out.push_str(&format!("{k}: {v}\r\n"));
    }
    if !response
        .headers
        .iter()
        .any(|(k, _)| k.eq_ignore_ascii_case("content-length"))
    {
        out.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    out.push_str("\r\n");
    match response.pace {
        Pace::Never => std::future::pending().await,
        Pace::HeadDrips => drip(&mut stream, out.as_bytes(), 1).await?,
        Pace::AtOnce | Pace::BodyDrips | Pace::BodyIsSlow => {
            stream.write_all(out.as_bytes()).await?
        }
    }
    if request.method != "HEAD" {
        let end = response
            .cut
            .unwrap_or(response.body.len())
            .min(response.body.len());
        match response.pace {
            Pace::BodyDrips => drip(&mut stream, &response.body[..end], 1).await?,
            Pace::BodyIsSlow => drip(&mut stream, &response.body[..end], 1000).await?,
            Pace::AtOnce | Pace::Never | Pace::HeadDrips => {
                stream.write_all(&response.body[..end]).await?;
            }
        }
    }
    stream.shutdown().await
}

async fn drip(stream: &mut TcpStream, bytes: &[u8], size: usize) -> std::io::Result<()> {
    for part in bytes.chunks(size) {
        stream.write_all(part).await?;
        task::clock::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Serves documents by the last part of the target: a tag or a digest of a manifest, or a digest of a blob.
pub fn image(
    documents: impl IntoIterator<Item = (String, String, Vec<u8>)>,
) -> impl Fn(&Request) -> Response + Send + Sync {
    let documents: HashMap<String, (String, Vec<u8>)> = documents
        .into_iter()
        .map(|(name, media_type, bytes)| (name, (media_type, bytes)))
        .collect();
    move |request| {
        let name = request.target.rsplit('/').next().unwrap_or_default();
        match documents.get(name) {
            None => Response::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
            Some((media_type, bytes)) => Response::new(200)
                .header("Content-Type", media_type)
                .header(
                    "Docker-Content-Digest",
                    oci::Digest::sha256(bytes).to_string(),
                )
                .body(bytes.clone()),
        }
    }
}

/// A fault of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Half of the body, then the connection breaks.
    Truncated,
    /// A kilobyte each second.
    Slow,
    /// It does not answer.
    Silent,
    /// An error without a body.
    Status(u16),
    /// Bytes of the right length that are others.
    WrongBytes,
    /// A redirect to itself.
    RedirectLoop,
    /// A redirect to an address that nobody listens at.
    RedirectAway,
}

impl Fault {
    /// The faults that end at once; [`Fault::Slow`] and [`Fault::Silent`] need patience.
    pub const QUICK: [Self; 12] = [
        Self::Truncated,
        Self::WrongBytes,
        Self::RedirectLoop,
        Self::RedirectAway,
        Self::Status(401),
        Self::Status(403),
        Self::Status(404),
        Self::Status(413),
        Self::Status(429),
        Self::Status(500),
        Self::Status(503),
        Self::Status(302),
    ];

    /// What is answered in place of `good`.
    pub fn of(self, request: &Request, good: Response) -> Response {
        match self {
            Self::Truncated => {
                let half = good.body.len() / 2;
                good.cut(half)
            }
            Self::Slow => good.body_is_slow(),
            Self::Silent => Response::silent(),
            Self::Status(status) => Response::new(status),
            Self::WrongBytes => {
                let wrong: Vec<u8> = good.body.iter().map(|byte| byte ^ 1).collect();
                good.body(wrong)
            }
            Self::RedirectLoop => Response::new(307).header("Location", request.target.clone()),
            // Port 1 (tcpmux) is not served on any machine that runs tests.
            Self::RedirectAway => {
                Response::new(307).header("Location", "http://127.0.0.1:1/elsewhere")
            }
        }
    }
}
