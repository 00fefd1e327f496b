//! The log of `buildctl` on standard error, as logrus writes it for the reference: `--log-format` text or json, and `--debug` for
//! more of it.
//!
//! | format | a line |
//! |---|---|
//! | text | `time="2026-01-02T03:04:05Z" level=warning msg="no such thing" key=value` |
//! | text, on a terminal | `WARN[2026-01-02T03:04:05Z] no such thing    key=value`, the level in its colour |
//! | json | `{"key":"value","level":"warning","msg":"no such thing","time":"2026-01-02T03:04:05Z"}` |
//!
//! Keys are sorted. DIFFERS: times are in UTC, where the reference takes the zone of the machine.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::time::SystemTime;

use gostd::strconv::quote;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::format::rfc3339;
use crate::failure::CliError;
use crate::progress::text::harmless_lines;

/// Libraries whose events are none of the command's.
const QUIET_LIBRARIES: &str =
    "h2=warn,hyper=warn,tower=warn,tonic=warn,rustls=warn,hyper_util=warn";

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFormat {
    /// Words and pairs for people and for `grep`.
    Text,
    /// Text on a terminal, with colours.
    ColouredText,
    /// One JSON object.
    Json,
}

impl LogFormat {
    /// Reads the value of `--log-format`; an empty one means text. `is_terminal`: whether standard error is one.
    pub(super) fn parse(text: &str, is_terminal: bool) -> Result<Self, CliError> {
        match text {
            "json" => Ok(Self::Json),
            "" | "text" if is_terminal => Ok(Self::ColouredText),
            "" | "text" => Ok(Self::Text),
            unknown => Err(CliError::Usage(format!(
                "unsupported log type {}",
                quote(unknown)
            ))),
        }
    }
}

/// Writes the log to standard error from now on, at level info, or debug with `debug`.
pub(super) fn begin(format: &str, debug: bool) -> Result<(), CliError> {
    let format = LogFormat::parse(format, io::stderr().is_terminal())?;
    let level = if debug { "debug" } else { "info" };
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("{level},{QUIET_LIBRARIES}")))
        .with_writer(io::stderr)
        .event_format(Logrus(format));
    // A second command in this process (tests) writes to the log of the first.
    drop(log.try_init());
    Ok(())
}

/// Formats events as logrus does.
struct Logrus(LogFormat);

impl<S, N> FormatEvent<S, N> for Logrus
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut entry = Entry {
            level: *event.metadata().level(),
            message: String::new(),
            fields: BTreeMap::new(),
        };
        event.record(&mut entry);
        writer.write_str(&entry.line(self.0, task::clock::wall()))
    }
}

/// One event of the log.
struct Entry {
    level: Level,
    message: String,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => drop(self.fields.insert(name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Entry {
    /// The level's name, and its colour on a terminal (SGR).
    fn level(&self) -> (&'static str, u8) {
        match self.level {
            Level::ERROR => ("error", 31),
            Level::WARN => ("warning", 33),
            Level::INFO => ("info", 36),
            Level::DEBUG => ("debug", 37),
            Level::TRACE => ("trace", 37),
        }
    }

    fn line(&self, format: LogFormat, now: SystemTime) -> String {
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let time = rfc3339(i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX));
        let (level, colour) = self.level();
        let mut line = match format {
            LogFormat::Json => {
                let mut object: BTreeMap<&str, &str> = self
                    .fields
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                object.extend([
                    ("level", level),
                    ("msg", self.message.as_str()),
                    ("time", time.as_str()),
                ]);
                return String::from_utf8_lossy(&gostd::json::to_vec(&object)).into_owned() + "\n";
            }
            LogFormat::Text => {
                let message = value(&self.message);
                format!("time=\"{time}\" level={level} msg={message}")
            }
            LogFormat::ColouredText => {
                let word: String = level.to_ascii_uppercase().chars().take(4).collect();
                let message = harmless_lines(&self.message);
                format!("\u{1b}[{colour}m{word}\u{1b}[0m[{time}] {message:<44} ")
            }
        };
        for (name, text) in &self.fields {
            line += &match format {
                LogFormat::ColouredText => {
                    format!(" \u{1b}[{colour}m{name}\u{1b}[0m={}", value(text))
                }
                LogFormat::Text | LogFormat::Json => format!(" {name}={}", value(text)),
            };
        }
        line + "\n"
    }
}

/// A value of a pair, quoted where it could be read in two ways.
fn value(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if text.chars().all(is_plain) {
        text.to_owned()
    } else {
        quote(text)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};
    use std::time::Duration;

    use super::*;

    fn entry(level: Level, message: &str, fields: &[(&'static str, &str)]) -> Entry {
        Entry {
            level,
            message: message.to_owned(),
            fields: fields
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn a_line_is_what_logrus_writes_in_each_format() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_678);
        let plain = entry(Level::INFO, "ready", &[]);
        let pairs = entry(
            Level::WARN,
            "no <cache> \"x\"",
            &[("path", "/tmp/a b"), ("error", "none")],
        );
        let hostile = entry(Level::ERROR, "a\nb\u{1b}[2J", &[("ref", "\u{1b}[2J")]);
        let debug = entry(Level::DEBUG, "exporter response: a=b", &[]);
        for (entry, format, line) in [
            (
                &plain,
                LogFormat::Text,
                "time=\"2026-01-02T03:04:05Z\" level=info msg=ready\n",
            ),
            (
                &pairs,
                LogFormat::Text,
                "time=\"2026-01-02T03:04:05Z\" level=warning msg=\"no <cache> \\\"x\\\"\" error=none path=\"/tmp/a b\"\n",
            ),
            (
                &debug,
                LogFormat::Text,
                "time=\"2026-01-02T03:04:05Z\" level=debug msg=\"exporter response: a=b\"\n",
            ),
            (
                &hostile,
                LogFormat::Text,
                "time=\"2026-01-02T03:04:05Z\" level=error msg=\"a\\nb\\x1b[2J\" ref=\"\\x1b[2J\"\n",
            ),
            (
                &plain,
                LogFormat::ColouredText,
                "\u{1b}[36mINFO\u{1b}[0m[2026-01-02T03:04:05Z] ready                                        \n",
            ),
            (
                &pairs,
                LogFormat::ColouredText,
                "\u{1b}[33mWARN\u{1b}[0m[2026-01-02T03:04:05Z] no <cache> \"x\"                               \u{20}\
                 \u{1b}[33merror\u{1b}[0m=none \u{1b}[33mpath\u{1b}[0m=\"/tmp/a b\"\n",
            ),
            (
                &plain,
                LogFormat::Json,
                "{\"level\":\"info\",\"msg\":\"ready\",\"time\":\"2026-01-02T03:04:05Z\"}\n",
            ),
            (
                &pairs,
                LogFormat::Json,
                "{\"error\":\"none\",\"level\":\"warning\",\"msg\":\"no \\u003ccache\\u003e \\\"x\\\"\",\"path\":\"/tmp/a b\",\"time\":\"2026-01-02T03:04:05Z\"}\n",
            ),
            (
                &hostile,
                LogFormat::Json,
                "{\"level\":\"error\",\"msg\":\"a\\nb\\u001b[2J\",\"ref\":\"\\u001b[2J\",\"time\":\"2026-01-02T03:04:05Z\"}\n",
            ),
        ] {
            assert_eq!(entry.line(format, now), line, "{format:?}");
        }
        let on_terminal = hostile.line(LogFormat::ColouredText, now);
        assert!(!on_terminal.contains("\u{1b}[2J"), "{on_terminal:?}");
    }

    #[test]
    fn a_format_that_does_not_exist_is_refused_by_its_name() {
        for (text, is_terminal, format) in [
            ("json", true, LogFormat::Json),
            ("json", false, LogFormat::Json),
            ("text", false, LogFormat::Text),
            ("text", true, LogFormat::ColouredText),
            ("", false, LogFormat::Text),
        ] {
            let parsed = LogFormat::parse(text, is_terminal);
            assert_eq!(parsed.ok(), Some(format), "{text:?}");
        }
        for text in ["xml", "JSON", "text "] {
            let error = LogFormat::parse(text, false).expect_err("no such format");
            assert_eq!(error.to_string(), format!("unsupported log type {text:?}"));
            assert_eq!(error.kind(), oci::ErrorKind::Invalid);
        }
    }

    #[test]
    fn an_event_is_one_line_with_its_message_and_its_fields() -> io::Result<()> {
        let file = std::sync::Arc::new(tempfile::tempfile()?);
        let log = tracing_subscriber::fmt()
            .with_writer(std::sync::Arc::clone(&file))
            .event_format(Logrus(LogFormat::Json))
            .finish();
        tracing::subscriber::with_default(log, || {
            let error = io::Error::other("full");
            tracing::warn!(%error, count = 3, "no cache to begin with");
            tracing::debug!("below the level");
        });
        let mut text = String::new();
        (&*file).rewind()?;
        (&*file).read_to_string(&mut text)?;
        let object: serde_json::Value = serde_json::from_str(&text).expect("one object");
        assert_eq!(object["msg"], "no cache to begin with");
        assert_eq!(object["level"], "warning");
        assert_eq!(
            (&object["error"], &object["count"]),
            (&"full".into(), &"3".into())
        );
        assert_eq!(text.lines().count(), 1);
        Ok(())
    }
}
