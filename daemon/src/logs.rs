//! The log: where it goes, and how much of it, which can be changed while the daemon runs.

use std::sync::OnceLock;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::settings::Settings;

/// Directives for libraries whose events of level `info` are of no use in a builder's log.
const QUIET_LIBRARIES: &str =
    "h2=warn,hyper=warn,tower=warn,tonic=warn,rustls=warn,reqwest=warn,hyper_util=warn";

static FILTER: OnceLock<LogFilter> = OnceLock::new();

/// The filter of the log, which can be changed while the log is written.
#[derive(Debug, Clone)]
struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Takes the level from settings that were read again; the directives count before it as they did.
    fn change(&self, settings: &Settings, directives: Option<&str>) {
        match self.0.reload(filter(&settings.log_level, directives)) {
            Ok(()) => tracing::warn!(level = settings.log_level, "log level changed"),
            Err(error) => tracing::warn!(%error, "the log level stays as it was"),
        }
    }
}

/// Makes a log with the format and the level of the settings.
fn log<W>(
    settings: &Settings,
    directives: Option<&str>,
    writer: W,
) -> (Box<dyn Subscriber + Send + Sync>, LogFilter)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&settings.log_level, directives));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let log = tracing_subscriber::registry().with(filter);
    let log: Box<dyn Subscriber + Send + Sync> = if settings.log_json {
        Box::new(log.with(lines.json()))
    } else {
        Box::new(log.with(lines.with_ansi(false)))
    };
    (log, LogFilter(handle))
}

/// Writes the log to standard error from now on. `directives` are those of `RUST_LOG`, which count before the level of the settings.
pub fn begin(settings: &Settings, directives: Option<&str>) {
    let (log, filter) = log(settings, directives, std::io::stderr);
    if log.try_init().is_ok() && FILTER.set(filter).is_err() {
        tracing::debug!("the log was begun before");
    }
}

/// Takes the level from settings that were read again. A log that was not begun here stays as it is.
pub fn change(settings: &Settings, directives: Option<&str>) {
    if let Some(filter) = FILTER.get() {
        filter.change(settings, directives);
    }
}

/// The filter's text: the level for all but the quiet libraries, then `directives`.
fn filter(level: &str, directives: Option<&str>) -> EnvFilter {
    let directives = directives.map(str::trim).filter(|text| !text.is_empty());
    let text = match directives {
        None => format!("{level},{QUIET_LIBRARIES}"),
        Some(directives) => format!("{level},{QUIET_LIBRARIES},{directives}"),
    };
    EnvFilter::new(text)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use clap::Parser as _;
    use parking_lot::Mutex;

    use super::*;
    use crate::settings::{Args, Defaults, file::File};

    fn settings(text: &str) -> Settings {
        let (file, warnings) = File::parse(text).unwrap();
        let args = Args::parse_from(["rbuildd"]);
        Settings::resolve(&args, file, warnings, &Defaults::of("rbuildd")).unwrap()
    }

    /// Keeps what is written to the log.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        /// What has been written since the last call.
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap()
        }
    }

    /// Logs an event of each level, with a span around, and returns the levels that were written.
    fn written(page: &Page) -> Vec<&'static str> {
        tracing::info_span!("build", id = 7).in_scope(|| {
            tracing::error!("one");
            tracing::warn!("one");
            tracing::info!("one");
            tracing::debug!("one");
            tracing::trace!("one");
        });
        tracing::info!(target: "hyper", "of a library");
        let text = page.take();
        assert!(!text.contains("of a library"), "{text}");
        ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"]
            .into_iter()
            .filter(|level| text.contains(level))
            .collect()
    }

    #[test]
    fn the_level_of_a_log_that_is_being_written_changes_and_directives_keep_counting() {
        const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
        for (directives, before, after) in [
            (None, &LEVELS[..2], &LEVELS[..4]),
            (Some("daemon=trace"), &LEVELS[..], &LEVELS[..]),
            (Some("daemon=error"), &LEVELS[..1], &LEVELS[..1]),
            (Some("solver=trace"), &LEVELS[..2], &LEVELS[..4]),
        ] {
            let page = Page::default();
            let writer = page.clone();
            let (log, filter) = log(&settings("log.level = 'warn'"), directives, move || {
                writer.clone()
            });
            tracing::subscriber::with_default(log, || {
                assert_eq!(written(&page), before, "{directives:?}");
                filter.change(&settings("log.level = 'debug'"), directives);
                page.take();
                assert_eq!(written(&page), after, "{directives:?}");
                filter.change(&settings("log.level = 'warn'"), directives);
                page.take();
                assert_eq!(written(&page), before, "{directives:?}");
            });
        }
    }

    #[test]
    fn lines_say_their_span_as_text_and_as_json() {
        let page = Page::default();
        let line = |format: &str| {
            let writer = page.clone();
            let settings = settings(&format!("log.format = '{format}'"));
            let (log, _) = log(&settings, None, move || writer.clone());
            tracing::subscriber::with_default(log, || {
                tracing::info_span!("session", id = "s1")
                    .in_scope(|| tracing::info!(bytes = 7, "received \u{1b}[2J"));
            });
            page.take()
        };
        let text = line("text");
        assert!(
            text.contains("session{id=\"s1\"}: daemon::logs::tests: received"),
            "{text}"
        );
        assert!(
            text.contains("bytes=7") && !text.contains('\u{1b}'),
            "{text:?}"
        );
        let json: serde_json::Value = serde_json::from_str(&line("json")).unwrap();
        assert_eq!(json["fields"]["bytes"], 7);
        assert_eq!(json["span"]["name"], "session");
        assert_eq!(json["span"]["id"], "s1");
    }

    #[test]
    fn directives_count_before_the_level_of_the_settings() {
        for (level, directives, shown) in [
            ("info", None, "info"),
            ("info", Some("  "), "info"),
            ("info", Some("debug"), "debug"),
            ("warn", Some("solver=trace"), "warn,solver=trace"),
            ("info", Some("h2=debug"), "info,h2=debug"),
        ] {
            let filter = filter(level, directives).to_string();
            for part in shown.split(',') {
                assert!(
                    filter.split(',').any(|filter_part| filter_part == part),
                    "{filter} {part}"
                );
            }
        }
    }
}
