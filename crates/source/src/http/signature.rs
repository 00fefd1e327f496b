//! The signature of a downloaded file.

use std::sync::Arc;

use fstree::Root;
use signature::{ExpiryJudgedAt, openpgp};

use crate::error::{SourceError, cause};
use crate::http::suffix::payload;
use crate::signed::policy;

/// The attributes `http.sig.*`: armored OpenPGP keys and an armored detached signature, not parsed yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequiredFileSignature {
    pub(crate) public_keys: String,
    pub(crate) signature: String,
}

impl RequiredFileSignature {
    /// Refuses one attribute without the other; `None` if there is neither.
    pub(crate) fn complete(self) -> Result<Option<Self>, SourceError> {
        match (self.public_keys.is_empty(), self.signature.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Ok(Some(self)),
            _ => Err(SourceError::Attribute {
                name: "http.sig.signature",
                source: cause("http signature verification requires both pubkey and signature"),
            }),
        }
    }

    /// Checks the one file in `tree`. Blocks.
    pub(crate) fn check(&self, tree: &Root) -> Result<(), SourceError> {
        let mut file = payload(tree)?;
        openpgp::verify_detached(
            &mut file,
            self.signature.as_bytes(),
            self.public_keys.as_bytes(),
            &policy(ExpiryJudgedAt::Signing),
        )
        .map_err(|source| SourceError::HttpSignature {
            source: Arc::new(source),
        })
    }
}
