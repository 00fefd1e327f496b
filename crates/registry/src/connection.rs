//! Errors of connections: no response, or not all of one.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::IpAddr;

/// A connection gave no response, or not all of one.
///
/// `Display` leaves the library's own sentence out, which would repeat the address with its query.
#[derive(Debug)]
pub enum ConnectionError {
    /// The body ended before all bytes had come.
    Eof,
    /// The error of the HTTP library.
    Http(reqwest::Error),
}

impl From<reqwest::Error> for ConnectionError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error)
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => f.write_str("unexpected EOF"),
            Self::Http(error) => match sentence(error) {
                Sentence::Dial(text) | Sentence::Causes(text) => f.write_str(&text),
            },
        }
    }
}

impl StdError for ConnectionError {
    /// The first cause that the sentence shows. There is none where it has the words of Go instead, which say the same.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Eof => None,
            Self::Http(error) => match sentence(error) {
                Sentence::Dial(_) => None,
                Sentence::Causes(_) => error.source(),
            },
        }
    }
}

impl ConnectionError {
    /// Whether the connection could not be made at all, TLS included.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        match self {
            Self::Eof => false,
            Self::Http(error) => error.is_connect(),
        }
    }

    /// Whether the same request may succeed a moment later: the connection broke while it was used.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let Self::Http(error) = self else {
            return true;
        };
        let broken = io_causes(error).any(|cause| {
            matches!(
                cause.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::TimedOut
            )
        });
        // hyper has a method for this, but reqwest does not expose its error type.
        broken
            || self
                .to_string()
                .contains("connection closed before message completed")
    }

    /// Whether the peer of a TLS handshake does not speak TLS.
    pub(crate) fn is_not_tls(&self) -> bool {
        let Self::Http(error) = self else {
            return false;
        };
        io_causes(error).any(|cause| {
            // Each layer of the connection wraps the error of the one below in one of its own.
            let layers = std::iter::successors(Some(cause), |cause| {
                cause.get_ref()?.downcast_ref::<io::Error>()
            });
            layers.into_iter().any(|layer| {
                let tls = layer
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>());
                let is_foreign = matches!(
                    tls,
                    Some(
                        rustls::Error::InvalidMessage(_)
                            | rustls::Error::InappropriateHandshakeMessage { .. }
                    )
                );
                let ended_handshake =
                    error.is_connect() && layer.kind() == io::ErrorKind::UnexpectedEof;
                is_foreign || ended_handshake
            })
        })
    }
}

/// The sentence of an error.
enum Sentence {
    /// Go's sentence for a connection or look-up that failed, which repeats the causes.
    Dial(String),
    /// The sentences of the causes.
    Causes(String),
}

/// The errors of the system among the causes.
fn io_causes(error: &reqwest::Error) -> impl Iterator<Item = &io::Error> {
    std::iter::successors(error.source(), |cause| (*cause).source())
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
}

/// The causes below the library's own sentence, which would repeat the address with its query.
///
/// Where a connection or a look-up failed, in the words that clients of BuildKit know.
fn sentence(error: &reqwest::Error) -> Sentence {
    if io_causes(error).any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused) {
        // The library does not tell which address of a name was tried last.
        let url = error.url();
        let host = url
            .and_then(reqwest::Url::host_str)
            .filter(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok());
        let port = url.and_then(reqwest::Url::port_or_known_default);
        let place = match (host, port) {
            (Some(host), Some(port)) => format!(" {host}:{port}"),
            _ => String::new(),
        };
        return Sentence::Dial(format!("dial tcp{place}: connect: connection refused"));
    }
    let mut out: Vec<String> = Vec::new();
    let mut next_cause = error.source();
    while let Some(cause) = next_cause {
        let text = cause.to_string();
        if !out.last().is_some_and(|last| last.ends_with(&text)) {
            out.push(text);
        }
        next_cause = cause.source();
    }
    let lookup = "failed to lookup address information: ";
    if let Some((_, reason)) = out.iter().find_map(|text| text.split_once(lookup)) {
        let host = error.url().and_then(reqwest::Url::host_str);
        let unknown = ["not known", "No address", "does not exist"];
        let reason = if unknown.iter().any(|u| reason.contains(u)) {
            "no such host"
        } else {
            reason
        };
        let host = host.unwrap_or_default();
        return Sentence::Dial(format!("dial tcp: lookup {host}: {reason}"));
    }
    Sentence::Causes(if out.is_empty() {
        "no answer".into()
    } else {
        out.join(": ")
    })
}
