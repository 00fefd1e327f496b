//! Signals that end a command.

use tokio::signal::unix::{SignalKind, signal};

/// Waits until the user or the system wants an end, and returns the exit code that says so.
pub(crate) async fn interrupted() -> u8 {
    let one = |kind: SignalKind, code: u8| async move {
        match signal(kind) {
            Ok(mut signals) => {
                let _told = signals.recv().await;
            }
            // Without a handler the signal does what it always does.
            Err(_) => std::future::pending().await,
        }
        code
    };
    tokio::select! {
        code = one(SignalKind::interrupt(), 130) => code,
        code = one(SignalKind::terminate(), 143) => code,
        code = one(SignalKind::hangup(), 129) => code,
    }
}
