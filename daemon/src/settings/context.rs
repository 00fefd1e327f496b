//! Contexts of clients: how their files are compared, and what their transfers may take.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use session::TransferLimits;
use session::diffcopy::compare::Compare;

use super::section::section;
use super::units::{DiskSpace, DiskSpaceText, DurationText};

section! {
    /// How contexts of clients are received.
    ContextFile {
        "compare" compare: Option<CompareText> = "how files of clients are told from those received before: `metadata` (default, as BuildKit) or `contents`; see below (ours)",
        "maxSize" max_size: Option<DiskSpaceText> = "what one session may write into the state directory by sending files (default `50%` of its file system, 0 is no limit; ours)",
        "idleTimeout" idle_timeout: Option<DurationText> = "how long a transfer of files to or from a client may stand still before it ends (default `5m`, 0 is for ever; ours)",
    }
}

/// `metadata` or `contents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompareText {
    /// By size, time and the rest of the metadata, as BuildKit does.
    Metadata,
    /// By contents, wherever the client does not tell what changed.
    Contents,
}

/// How contexts of clients are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextSettings {
    /// How a changed file is told from one that was received before.
    pub compare: Compare,
    /// How many bytes one session may write.
    pub max_size: DiskSpace,
    /// How long a transfer may stand still.
    pub idle: Option<Duration>,
}

impl ContextSettings {
    /// What a file says, with defaults for the rest.
    pub fn of(file: &ContextFile) -> Self {
        let idle = file.idle_timeout.as_ref().map_or(
            TransferLimits::default().idle,
            // Zero means no limit.
            |text| Some(text.0).filter(|idle| !idle.is_zero()),
        );
        Self {
            compare: match file.compare {
                None | Some(CompareText::Metadata) => Compare::Metadata,
                Some(CompareText::Contents) => Compare::Contents,
            },
            max_size: file
                .max_size
                .as_ref()
                .map_or(DiskSpace::Percent(50), |text| text.0),
            idle,
        }
    }

    /// The bounds of transfers with the state in `root`.
    pub fn limits(&self, root: &Path) -> TransferLimits {
        let total = u64::try_from(store::DiskStat::of(root).total).unwrap_or(0);
        TransferLimits {
            idle: self.idle,
            session_written: match self.max_size.bytes(total) {
                0 => u64::MAX,
                bytes => bytes,
            },
            ..TransferLimits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_bounded_unless_the_file_says_otherwise() {
        let of = |text: &str| ContextSettings::of(&toml::from_str(text).expect("a table"));
        let default = of("");
        assert_eq!(default.compare, Compare::Metadata);
        assert_eq!(default.idle, Some(Duration::from_secs(300)));
        let limits = default.limits(Path::new("/"));
        assert!((1..u64::MAX).contains(&limits.session_written));
        let configured = of("compare = \"contents\"\nmaxSize = \"10GB\"\nidleTimeout = \"30s\"");
        assert_eq!(configured.compare, Compare::Contents);
        let limits = configured.limits(Path::new("/"));
        assert_eq!(limits.idle, Some(Duration::from_secs(30)));
        assert!(limits.session_written >= 10_000_000_000);
        let none = of("maxSize = 0\nidleTimeout = 0").limits(Path::new("/"));
        assert_eq!((none.idle, none.session_written), (None, u64::MAX));
        assert!(toml::from_str::<ContextFile>("compare = \"size\"").is_err());
    }
}
