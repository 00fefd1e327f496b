//! `EXPOSE`: `[ip:][host:]port[-port][/proto]`, of which only port and protocol count.

use super::error::{LowerError, LowerErrorKind};
use super::graph::Lowering;
use super::reach::ENV_ENTRY_BYTES;
use super::text::plain_list;
use crate::instruction::Origin;
use crate::lint::{Finding, Linter};
use crate::syntax::Range;
use gostd::strconv::quote;
use oci::ErrorKind;

/// Why a word of `EXPOSE` names no port. The texts are what clients know from BuildKit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The container's port is missing.
    #[error("invalid port: {}: no port specified", quote(.0))]
    NoPort(String),
    /// A protocol other than `tcp`, `udp` and `sctp`.
    #[error("invalid port: {}: invalid proto: {protocol}", quote(word))]
    Protocol {
        /// The whole word.
        word: String,
        /// Protocol as written after the slash.
        protocol: String,
    },
    /// An invalid address of the host.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// A port of the container that is neither a number nor a range.
    #[error("invalid containerPort: {0}")]
    Container(String),
    /// A port of the host that is neither a number nor a range.
    #[error("invalid hostPort: {0}")]
    Host(String),
    /// Ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// Ports of the container.
        container: String,
        /// Ports of the host.
        host: String,
    },
}

impl PortError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoPort(_)
            | Self::Protocol { .. }
            | Self::Address(_)
            | Self::Container(_)
            | Self::Host(_)
            | Self::Ranges { .. } => ErrorKind::Invalid,
        }
    }
}

impl Lowering<'_> {
    pub(crate) fn expose(
        &mut self,
        at: usize,
        origin: &Origin,
        words: &[String],
        lint: &Linter,
    ) -> Result<(), LowerError> {
        let env = self.stages[at].state.env().clone();
        let mut ports = Vec::new();
        for word in words {
            for port in self.lex.process_words(word, &env)? {
                let more = parse(&port, &origin.ranges, lint).map_err(LowerErrorKind::Port)?;
                self.charge(more.len() * ENV_ENTRY_BYTES)?;
                ports.extend(more);
            }
        }
        let message = format!("EXPOSE {}", plain_list(&ports));
        let exposed = &mut self.stages[at].image.config.exposed_ports;
        exposed.extend(ports.into_iter().map(|port| (port, oci::image::Empty {})));
        self.commit(at, message, false);
        Ok(())
    }
}

/// One word as `port/proto` for each port of its range.
fn parse(raw: &str, ranges: &[Range], lint: &Linter) -> Result<Vec<String>, PortError> {
    let (ip, host, container) = split(raw);
    let (port, proto) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(PortError::NoPort(raw.to_owned()));
    }
    let lower = match proto.to_lowercase() {
        empty if empty.is_empty() => "tcp".to_owned(),
        known if ["tcp", "udp", "sctp"].contains(&known.as_str()) => known,
        _ => {
            return Err(PortError::Protocol {
                word: raw.to_owned(),
                protocol: proto.to_owned(),
            });
        }
    };
    if proto != proto.to_lowercase() {
        lint.report(
            Finding::ExposeProtoCasing {
                port: raw.to_owned(),
            },
            ranges,
        );
    }
    if !ip.is_empty() || !host.is_empty() {
        lint.report(
            Finding::ExposeInvalidFormat {
                port: raw.to_owned(),
            },
            ranges,
        );
    }
    let address = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(&ip);
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err(PortError::Address(address.to_owned()));
    }
    let (start, end) = range(port).ok_or_else(|| PortError::Container(port.to_owned()))?;
    if !host.is_empty() {
        let (first, last) = range(host).ok_or_else(|| PortError::Host(host.to_owned()))?;
        if last - first != end - start && end != start {
            return Err(PortError::Ranges {
                container: port.to_owned(),
                host: host.to_owned(),
            });
        }
    }
    Ok((start..=end)
        .map(|port| format!("{port}/{lower}"))
        .collect())
}

fn split(raw: &str) -> (String, &str, &str) {
    let parts: Vec<&str> = raw.split(':').collect();
    match parts.as_slice() {
        [] => (String::new(), "", ""),
        [container] => (String::new(), "", container),
        [host, container] => (String::new(), host, container),
        [ip @ .., host, container] => (ip.join(":"), host, container),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.strip_prefix('+').unwrap_or(text).parse::<u16>().ok();
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((start, end)) => {
            let (start, end) = (number(start)?, number(end)?);
            (start <= end).then_some((start, end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_parsed_with_their_ranges() {
        let lint = Linter::silent();
        for (raw, want) in [
            ("80", "80/tcp"),
            ("80/UDP", "80/udp"),
            ("3000-3002/tcp", "3000/tcp 3001/tcp 3002/tcp"),
            ("127.0.0.1:8080:80", "80/tcp"),
            ("[::1]:8080:80", "80/tcp"),
        ] {
            assert_eq!(parse(raw, &[], &lint).unwrap().join(" "), want, "{raw}");
        }
        for (raw, want) in [
            ("80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
            ("x", "invalid containerPort: x"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("99999", "invalid containerPort: 99999"),
            ("nope:80:80", "invalid IP address: nope"),
        ] {
            let error = parse(raw, &[], &lint).unwrap_err();
            assert_eq!(error.to_string(), want, "{raw}");
        }
    }
}
