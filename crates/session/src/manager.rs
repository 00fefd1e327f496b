//! Connected sessions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oci::SessionId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::SessionError;
use crate::traits::Session;
use crate::transfers::{TransferLimits, TransferShare, Transfers};

/// Time for which a call waits for a session that is not connected yet.
pub const SESSION_WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// All connected sessions, by id.
pub struct SessionManager {
    sessions: Mutex<HashMap<SessionId, Connected>>,
    changed: Notify,
    transfers: Arc<Transfers>,
}

/// A connected session and the limits of its transfers.
struct Connected {
    session: Arc<dyn Session>,
    share: Arc<TransferShare>,
}

impl SessionManager {
    /// A manager without sessions.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_limits(TransferLimits::default())
    }

    /// A manager without sessions, whose transfers have these limits.
    #[must_use]
    pub fn with_limits(limits: TransferLimits) -> Arc<Self> {
        Arc::new(Self {
            sessions: Mutex::default(),
            changed: Notify::new(),
            transfers: Transfers::new(limits),
        })
    }

    /// Adds a session until the registration is dropped.
    pub fn register(
        self: &Arc<Self>,
        session: Arc<dyn Session>,
    ) -> Result<Registration, SessionError> {
        let id = session.id().clone();
        let mut sessions = self.sessions.lock();
        if sessions.contains_key(&id) {
            return Err(SessionError::AlreadyExists { id });
        }
        let share = self.transfers.share();
        sessions.insert(id.clone(), Connected { session, share });
        drop(sessions);
        self.changed.notify_waiters();
        Ok(Registration {
            manager: self.clone(),
            id,
        })
    }

    /// The session with an id, if it is connected. `prefix:id` finds `id`.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<dyn Session>> {
        let sessions = self.sessions.lock();
        sessions
            .get(without_prefix(id))
            .map(|c| Arc::clone(&c.session))
    }

    /// Limits of a session's transfers.
    #[must_use]
    pub fn share(&self, id: &str) -> Arc<TransferShare> {
        let share = self
            .sessions
            .lock()
            .get(without_prefix(id))
            .map(|c| c.share.clone());
        // A session that has just left may still end a transfer.
        share.unwrap_or_else(|| self.transfers.share())
    }

    /// Waits for a session to connect.
    pub async fn wait(
        &self,
        id: &str,
        timeout: Duration,
    ) -> Result<Arc<dyn Session>, SessionError> {
        let appeared = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(session) = self.get(id) {
                    return session;
                }
                changed.await;
            }
        };
        tokio::time::timeout(timeout, appeared)
            .await
            // The dropped error says only that the time is over.
            .map_err(|_| SessionError::NotActive {
                id: without_prefix(id).into(),
            })
    }

    /// Number of connected sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether no session is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for SessionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManager")
            .field("sessions", &self.len())
            .finish_non_exhaustive()
    }
}

// A prefix tells apart vertices of different contexts; it is no part of the id.
fn without_prefix(id: &str) -> &str {
    match id.split_once(':') {
        Some((_, name)) if !name.is_empty() => name,
        _ => id,
    }
}

/// Keeps a session in the manager until it is dropped.
#[derive(Debug)]
pub struct Registration {
    manager: Arc<SessionManager>,
    id: SessionId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let session = self.manager.sessions.lock().remove(&self.id);
        drop(session);
        self.manager.changed.notify_waiters();
    }
}
