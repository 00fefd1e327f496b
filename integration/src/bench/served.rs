//! Whether a daemon serves: one `ListWorkers` call, written out by hand.
//!
//! A client library or a program would add its own time to the few milliseconds that are measured here. The call is
//! HTTP/2 with literal headers; any data on its stream is an answer.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const METHOD: &str = "/moby.buildkit.v1.Control/ListWorkers";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Calls once; an error when nobody answers.
pub(super) fn call(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&request())?;
    loop {
        let mut head = [0_u8; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let len = u32::from_be_bytes([0, a, b, c]);
        let mut body = Vec::new();
        Read::by_ref(&mut stream)
            .take(len.into())
            .read_to_end(&mut body)?;
        match (kind, u32::from_be_bytes(id)) {
            (DATA, 1) if len > 0 => return Ok(()),
            (HEADERS, 1) if flags & END_STREAM != 0 => {
                return Err(io::Error::other("the call failed"));
            }
            (RST_STREAM | GOAWAY, _) => return Err(io::Error::other("the call was refused")),
            _ => {}
        }
    }
}

fn request() -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", METHOD),
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
    // A message of no bytes: not compressed, length 0.
    frame(&mut request, DATA, END_STREAM, 1, &[0; 5]);
    request
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    let len = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    out.extend(len.iter().skip(1));
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(body);
}
