//! The purpose for which a repository is opened, and how far its hosts are trusted.

/// Whether a repository is read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Pull,
    Push,
}

/// How the hosts of a repository are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// As the daemon's configuration says.
    Configured,
    /// Certificates go unchecked and plain http will do, whatever the configuration says.
    Unchecked,
}

/// What a repository is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access {
    purpose: Purpose,
    trust: Trust,
}

impl Access {
    /// Reading, with the configured security.
    pub const PULL: Self = Self {
        purpose: Purpose::Pull,
        trust: Trust::Configured,
    };
    /// Reading and writing, with the configured security.
    pub const PUSH: Self = Self {
        purpose: Purpose::Push,
        trust: Trust::Configured,
    };

    pub(crate) fn trust(self) -> Trust {
        self.trust
    }

    /// The same; with `insecure`, certificates go unchecked and plain http will do, whatever the configuration says.
    #[must_use]
    pub fn insecure(self, insecure: bool) -> Self {
        let trust = if insecure {
            Trust::Unchecked
        } else {
            Trust::Configured
        };
        Self { trust, ..self }
    }
}
