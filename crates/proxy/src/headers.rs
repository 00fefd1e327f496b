//! Headers that belong to one connection, and requests that cannot be trusted.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The line and the headers of a request, in bytes.
pub const MAX_HEADER_BYTES: usize = 64 << 10;
/// The headers of a request.
pub(crate) const MAX_HEADERS: usize = 128;

/// Of the connection to the step, beside what `Connection` names.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Removes what is said to the next hop and to nobody else.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        // What frames the message is not a client's to remove.
        if name != header::CONTENT_LENGTH && name != header::HOST {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Why a request is refused before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ambiguous {
    #[error("the request has both a length and a transfer encoding")]
    Length,
    #[error("the request has several lengths")]
    Lengths,
    #[error("the request has several Host headers")]
    Hosts,
    #[error("the request has a transfer encoding other than chunked")]
    Encoding,
}

/// Refuses requests that two readers could read differently.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Ambiguous> {
    let count = |name| headers.get_all(name).iter().count();
    let encodings = count(header::TRANSFER_ENCODING);
    let lengths = count(header::CONTENT_LENGTH);
    if encodings > 0 && lengths > 0 {
        return Err(Ambiguous::Length);
    }
    if lengths > 1 {
        return Err(Ambiguous::Lengths);
    }
    if count(header::HOST) > 1 {
        return Err(Ambiguous::Hosts);
    }
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    let encoding = headers.get(header::TRANSFER_ENCODING);
    if encodings > 1 || encoding.is_some_and(|value| !chunked(value)) {
        return Err(Ambiguous::Encoding);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let mut out = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            out.append(name, value);
        }
        out
    }

    #[test]
    fn what_belongs_to_the_connection_goes_and_the_rest_stays() {
        let mut map = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "content-length, host"),
            ("x-secret", "1"),
            ("proxy-authorization", "Basic YTpi"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("content-length", "3"),
            ("host", "a.example"),
            ("authorization", "Bearer x"),
        ]);
        strip_hop_by_hop(&mut map);
        let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length", "host"]);
    }

    #[test]
    fn a_request_that_two_could_read_differently_is_refused() {
        for (lines, expected) in [
            (&[("content-length", "3")] as &[_], Ok(())),
            (&[("transfer-encoding", "Chunked")], Ok(())),
            (
                &[("content-length", "3"), ("transfer-encoding", "chunked")],
                Err(Ambiguous::Length),
            ),
            (
                &[("content-length", "3"), ("content-length", "3")],
                Err(Ambiguous::Lengths),
            ),
            (&[("host", "a"), ("host", "b")], Err(Ambiguous::Hosts)),
            (
                &[("transfer-encoding", "gzip, chunked")],
                Err(Ambiguous::Encoding),
            ),
            (
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                Err(Ambiguous::Encoding),
            ),
        ] {
            assert_eq!(check(&headers(lines)), expected, "{lines:?}");
        }
    }
}
