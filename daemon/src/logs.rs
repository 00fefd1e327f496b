//! The log: where it goes, and how much of it, which can be changed while the daemon runs.

use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::settings::Settings;

/// Libraries that say at `info` what nobody asks a builder for.
const QUIET: &str =
    "h2=warn,hyper=warn,tower=warn,tonic=warn,rustls=warn,reqwest=warn,hyper_util=warn";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Writes the log to standard error from now on. `directives` are those of `RUST_LOG`, which count before the level of the settings.
pub fn begin(settings: &Settings, directives: Option<&str>) {
    let (filter, handle) = reload::Layer::new(filter(&settings.log_level, directives));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = tracing_subscriber::registry().with(filter);
    let is_first = if settings.log_json {
        log.with(lines.json()).try_init()
    } else {
        log.with(lines.with_ansi(false)).try_init()
    };
    if is_first.is_ok() && FILTER.set(handle).is_err() {
        tracing::debug!("the log was begun before");
    }
}

/// Takes the level from settings that were read again. A log that was not begun here stays as it is.
pub fn change(settings: &Settings, directives: Option<&str>) {
    let Some(handle) = FILTER.get() else {
        return;
    };
    match handle.reload(filter(&settings.log_level, directives)) {
        Ok(()) => tracing::warn!(level = settings.log_level, "log level changed"),
        Err(error) => tracing::warn!(%error, "the log level stays as it was"),
    }
}

/// What is let through: the level for all but the quiet libraries, then what `directives` say.
fn filter(level: &str, directives: Option<&str>) -> EnvFilter {
    let directives = directives.map(str::trim).filter(|text| !text.is_empty());
    let text = match directives {
        None => format!("{level},{QUIET}"),
        Some(directives) => format!("{level},{QUIET},{directives}"),
    };
    EnvFilter::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
                    filter.split(',').any(|known| known == part),
                    "{filter} {part}"
                );
            }
        }
    }
}
