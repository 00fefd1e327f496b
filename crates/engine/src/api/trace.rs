//! Spans of builds, and the collector that takes them.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use oci::Digest;

/// A position in a trace, as W3C's header `traceparent` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id.
    pub trace: [u8; 16],
    /// Id of the parent span.
    pub span: [u8; 8],
}

impl TraceContext {
    /// Parses a `traceparent` (`00-<trace>-<span>-<flags>`, W3C Trace Context); none if it is malformed or all zeros.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length: usize| {
            text.len() == length
                && text
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        // Later versions may append fields; `ff` is none.
        let is_known = is_hex(version, 2)
            && version != "ff"
            && is_hex(flags, 2)
            && (version != "00" || parts.next().is_none());
        if !is_known || !is_hex(trace, 32) || !is_hex(span, 16) {
            return None;
        }
        let context = Self {
            trace: bytes_of_hex(trace)?,
            span: bytes_of_hex(span)?,
        };
        (context.trace != [0; 16] && context.span != [0; 8]).then_some(context)
    }
}

/// Decodes `2 * N` hexadecimal digits; none for any other text.
pub(crate) fn bytes_of_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The time that a build or a part of it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Trace id.
    pub trace: [u8; 16],
    /// Span id.
    pub id: [u8; 8],
    /// Id of the enclosing span.
    pub parent: Option<[u8; 8]>,
    /// Name for people: the build's or the step's.
    pub name: String,
    /// When it started.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// The error's sentence; empty if the work succeeded.
    pub error: String,
    /// What it is of.
    pub subject: SpanSubject,
}

/// What took the time of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanSubject {
    /// The build.
    Build,
    /// A phase of it.
    Phase,
    /// A vertex.
    Vertex {
        /// Which.
        vertex: Digest,
        /// Whether its result was known.
        is_cached: bool,
    },
    /// Something in a program of a step, which sent the span itself.
    Program {
        /// The program's name for itself; may be empty.
        service: String,
        /// What it says about the span.
        attributes: Vec<(String, String)>,
    },
}

/// Takes spans to a collector. Never waits.
pub trait SpanSink: Send + Sync + fmt::Debug {
    /// Takes the spans of a build that ended.
    fn take(&self, spans: &[Span]);
    /// Takes spans of clients, each an encoded `ResourceSpans`.
    fn forward(&self, resource_spans: Vec<Bytes>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_parent_is_read_as_w3c_says() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::parse(good).unwrap();
        assert_eq!((context.trace[0], context.trace[15]), (0x0a, 0x9c));
        assert_eq!((context.span[0], context.span[7]), (0xb7, 0x31));
        assert_eq!(TraceContext::parse(&format!(" {good}\n")), Some(context));
        let later = good.replace("00-0af", "01-0af") + "-more";
        assert_eq!(TraceContext::parse(&later), Some(context));
        for bad in [
            String::new(),
            good.replace("00-0af", "ff-0af"),
            good.replace("0af", "0AF"),
            good.replace("-01", ""),
            format!("{good}-more"),
            good.replace("b7ad6b7169203331", "0000000000000000"),
            good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            good.replace("b7ad6b7169203331", "b7ad6b716920333é"),
        ] {
            assert_eq!(TraceContext::parse(&bad), None, "{bad}");
        }
    }
}
