//! The kind of an error of this crate that is known as `dyn Error` only.

use oci::ErrorKind;

use crate::diffcopy::{ReceiveError, SendError};
use crate::error::{CallError, SessionError};

/// Returns the kind of a session's or a transfer's error, whichever of this crate's error types it has; of others that of their causes.
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
