//! A daemon's socket by hand: HTTP/2 frames and protobuf fields, right ones and wrong ones. A client library would add its own time to
//! what is measured, and sends no wrong ones.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How a daemon took what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answered with a message.
    Message,
    /// It answered with a status and no message.
    Status,
    /// It ended the stream or the connection.
    Refused,
    /// It did not answer in the given time.
    Silence,
}

/// Whether the daemon serves: one `ListWorkers`.
pub(crate) fn list_workers(socket: &Path) -> io::Result<()> {
    match call(socket, "/moby.buildkit.v1.Control/ListWorkers", &[])? {
        Answer::Message => Ok(()),
        answer @ (Answer::Status | Answer::Refused | Answer::Silence) => {
            Err(io::Error::other(format!("{answer:?}")))
        }
    }
}

fn call(socket: &Path, method: &str, message: &[u8]) -> io::Result<Answer> {
    call_for(socket, method, message, 10_000)
}

/// Calls `method` with one message of these bytes, whatever they are, and waits so many milliseconds for the answer.
pub(crate) fn call_for(
    socket: &Path,
    method: &str,
    message: &[u8],
    patience: u64,
) -> io::Result<Answer> {
    let mut body = vec![0];
    body.extend(
        u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    body.extend(message);
    send_for(socket, &request(method, &body), patience)
}

/// Sends bytes and waits so many milliseconds for the answer to stream 1.
pub(crate) fn send_for(socket: &Path, bytes: &[u8], patience: u64) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_millis(patience)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    // A daemon that has had enough closes while we still write.
    let _closed = stream.write_all(bytes);
    loop {
        let mut head = [0_u8; 9];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(Answer::Silence);
            }
            Err(_) => return Ok(Answer::Refused),
        }
        let [a, b, c, kind, flags, id @ ..] = head;
        let len = u32::from_be_bytes([0, a, b, c]);
        let mut body = Vec::new();
        Read::by_ref(&mut stream)
            .take(len.into())
            .read_to_end(&mut body)?;
        match (kind, u32::from_be_bytes(id)) {
            (DATA, 1) if len > 0 => return Ok(Answer::Message),
            (HEADERS, 1) if flags & END_STREAM != 0 => return Ok(Answer::Status),
            (RST_STREAM | GOAWAY, _) => return Ok(Answer::Refused),
            _ => {}
        }
    }
}

/// The bytes of a connection that calls `method` with this body.
pub(crate) fn request(method: &str, body: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.push(0);
        for text in [name, value] {
            // All are shorter than the 127 bytes that one length byte can say.
            headers.push(u8::try_from(text.len()).unwrap_or(0));
            headers.extend(text.as_bytes());
        }
    }
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut request, SETTINGS, 0, 0, &[]);
    frame(&mut request, HEADERS, END_HEADERS, 1, &headers);
    let mut pieces = body.chunks(16_000).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() {
            END_STREAM
        } else {
            0
        };
        frame(&mut request, DATA, flags, 1, piece);
    }
    request
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    let len = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    out.extend(len.iter().skip(1));
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(body);
}

/// Appends a field of bytes.
pub(crate) fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Appends a field that is a number.
pub(crate) fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}
