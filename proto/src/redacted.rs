//! `Debug` of the messages that carry secrets.

use std::fmt;

impl fmt::Debug for crate::auth::CredentialsResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsResponse")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for crate::auth::FetchTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchTokenResponse")
            .field("expires_in", &self.expires_in)
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for crate::secrets::GetSecretResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetSecretResponse").finish_non_exhaustive()
    }
}
