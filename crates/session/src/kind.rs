//! What kind an error of this crate is, whichever of its types it has.

use oci::ErrorKind;

use crate::diffcopy::{ReceiveError, SendError};
use crate::error::{CallError, SessionError};

/// The kind of an error of a session or a transfer, whichever of this crate's types it has.
#[must_use]
pub fn kind_of(error: &(dyn std::error::Error + 'static)) -> ErrorKind {
    if let Some(error) = error.downcast_ref::<SessionError>() {
        error.kind()
    } else if let Some(error) = error.downcast_ref::<CallError>() {
        error.kind()
    } else if let Some(error) = error.downcast_ref::<ReceiveError>() {
        error.kind()
    } else if let Some(error) = error.downcast_ref::<SendError>() {
        error.kind()
    } else {
        ErrorKind::of_causes(error)
    }
}
