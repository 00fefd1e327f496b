//! What clients of one daemon share.

use super::SettingsError;

/// What clients of one daemon share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Everything, as with BuildKit.
    #[default]
    None,
    /// Each client certificate and each user of a unix socket is a tenant; nothing is shared.
    Client,
}

impl Isolation {
    /// Parses the flag or the key; `None` is the default.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, SettingsError> {
        match text {
            None | Some("none" | "") => Ok(Self::None),
            Some("client") => Ok(Self::Client),
            Some(unknown) => Err(SettingsError::Flag {
                flag: "isolation",
                message: format!("expected none or client, got {unknown:?}"),
            }),
        }
    }
}
