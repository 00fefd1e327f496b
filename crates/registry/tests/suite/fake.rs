//! A registry of one closure: each request is answered by it and written down.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection breaks.
    cut: Option<usize>,
    pace: Pace,
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    AtOnce,
    /// Nothing at all.
    Never,
    /// A byte of the head each second.
    HeadDrips,
    /// A byte of the body each second.
    BodyDrips,
    /// A kilobyte of the body each second.
    BodyIsSlow,
}

impl Response {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            cut: None,
            pace: Pace::AtOnce,
        }
    }
    pub(crate) fn silent() -> Self {
        Self {
            pace: Pace::Never,
            ..Self::new(200)
        }
    }
    pub(crate) fn head_drips(self) -> Self {
        Self {
            pace: Pace::HeadDrips,
            ..self
        }
    }
    pub(crate) fn body_is_slow(self) -> Self {
        Self {
            pace: Pace::BodyIsSlow,
            ..self
        }
    }
    pub(crate) fn body_drips(self) -> Self {
        Self {
            pace: Pace::BodyDrips,
            ..self
        }
    }
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
    pub(crate) fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }
}

pub(crate) struct Fake {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Request>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test double, not a part of the daemon"
    )]
    pub(crate) async fn start(
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (seen.clone(), Arc::new(answer));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (log.clone(), answer.clone());
                tokio::spawn(async move {
                    let _served = serve(stream, &log, &*answer).await;
                });
            }
        });
        Self { host, seen, server }
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen()
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
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(())
}
