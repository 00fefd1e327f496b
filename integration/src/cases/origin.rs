//! A small HTTP/1.1 server on the loopback interface: whatever a case wants a daemon or a step to meet.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::process::{Error, at};

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// The first byte of the requested range.
    pub(super) from: usize,
}

/// An answer.
#[derive(Debug, Default)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Arc<Vec<u8>>,
}

impl Response {
    pub(super) fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Arc::new(text.as_bytes().to_vec()),
        }
    }
}

/// A server; dropping it ends it.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) port: u16,
    ended: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<(Instant, Request)>>>,
}

impl Origin {
    /// Starts one that answers as `answer` says, each connection in a thread of its own.
    pub(super) fn start(
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let problem = at("listening", std::path::Path::new("127.0.0.1"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let bound = listener.and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
        let (port, listener) = bound.map_err(problem)?;
        let (ended, requests) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let origin = Self {
            port,
            ended: Arc::clone(&ended),
            requests: Arc::clone(&requests),
        };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                std::thread::spawn(move || serve(stream, answer.as_ref(), &requests));
            }
        });
        Ok(origin)
    }

    /// Starts one that says yes to everything, for counting.
    pub(super) fn counter() -> Result<Self, Error> {
        Self::start(|_| Response::text(200, "yes\n"))
    }

    /// How often each path was asked for.
    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (_, request) in self.requests.lock().iter() {
            *counts.entry(request.path.clone()).or_default() += 1;
        }
        counts
    }

    /// When a path was first asked for.
    pub(super) fn when(&self, path: &str) -> Option<Instant> {
        let requests = self.requests.lock();
        requests
            .iter()
            .find(|(_, request)| request.path == path)
            .map(|(when, _)| *when)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        // The listener looks at the flag when somebody comes.
        let _woken = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    }
}

fn serve(
    stream: TcpStream,
    answer: &(dyn Fn(&Request) -> Response + Send + Sync),
    requests: &Mutex<Vec<(Instant, Request)>>,
) {
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        requests.lock().push((Instant::now(), request.clone()));
        let response = answer(&request);
        let all = response.body.as_slice();
        let (status, body) = match all.get(request.from..) {
            Some(rest) if request.from > 0 && response.status == 200 => (206, rest),
            _ => (response.status, all),
        };
        let mut head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n", body.len());
        if status == 206 {
            head.push_str(&format!(
                "Content-Range: bytes {}-{}/{}\r\n",
                request.from,
                all.len().saturating_sub(1),
                all.len()
            ));
        }
        for (name, value) in &response.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let body = if request.method == "HEAD" { &[] } else { body };
        if writer
            .write_all(head.as_bytes())
            .and_then(|()| writer.write_all(body))
            .is_err()
        {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let mut request = Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        from: 0,
    };
    let mut length = 0_u64;
    loop {
        let mut header = String::new();
        reader
            .read_line(&mut header)
            .ok()
            .filter(|read| *read > 0)?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(range) = header.strip_prefix("range: bytes=") {
            request.from = range.split('-').next()?.parse().ok()?;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
    Some(request)
}
