//! The sessions that may answer for a step.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use oci::SessionId;

use crate::error::{CallError, SessionError};
use crate::manager::{SESSION_WAIT_TIMEOUT, SessionManager};
use crate::traits::Session;
use crate::transfers::{TransferLimits, TransferShare, Transfers};

/// The sessions that may answer for a step, in order of preference. The builds that share a step contribute theirs.
#[derive(Clone, Default)]
pub struct Group {
    manager: Option<Arc<SessionManager>>,
    ids: Vec<SessionId>,
}

impl Group {
    /// A group of session ids; empty ids are left out.
    #[must_use]
    pub fn new(
        manager: Arc<SessionManager>,
        ids: impl IntoIterator<Item = impl Into<SessionId>>,
    ) -> Self {
        let mut group = Self {
            manager: Some(manager),
            ids: Vec::new(),
        };
        for id in ids.into_iter().map(Into::into) {
            if !id.is_empty() && !group.ids.contains(&id) {
                group.ids.push(id);
            }
        }
        group
    }

    /// A group without sessions.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The ids of the sessions, in order of preference.
    #[must_use]
    pub fn ids(&self) -> &[SessionId] {
        &self.ids
    }

    /// Whether the group has no sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The sessions of this group and of `other`.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let manager = self.manager.clone().or_else(|| other.manager.clone());
        match manager {
            Some(manager) => Self::new(manager, self.ids.iter().chain(&other.ids).cloned()),
            None => Self::none(),
        }
    }

    /// The session with an id; waits for it if it is not connected yet.
    pub async fn named(&self, id: &SessionId) -> Result<Arc<dyn Session>, SessionError> {
        let Some(manager) = &self.manager else {
            return Err(SessionError::NoSessions);
        };
        manager.wait(id.as_str(), SESSION_WAIT_TIMEOUT).await
    }

    /// Limits of a session's transfers.
    #[must_use]
    pub fn share(&self, id: &SessionId) -> Arc<TransferShare> {
        match &self.manager {
            Some(manager) => manager.share(id.as_str()),
            None => Transfers::new(TransferLimits::default()).share(),
        }
    }

    /// The first connected session.
    pub async fn first(&self) -> Result<Arc<dyn Session>, SessionError> {
        let Some(manager) = &self.manager else {
            return Err(SessionError::NoSessions);
        };
        if let Some(session) = self.ids.iter().find_map(|id| manager.get(id.as_str())) {
            return Ok(session);
        }
        let mut last = SessionError::NoSessions;
        for id in &self.ids {
            match manager.wait(id.as_str(), SESSION_WAIT_TIMEOUT).await {
                Ok(session) => return Ok(session),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Calls one session after the other until one succeeds; the error is that of the last one.
    pub async fn any<T, F, Fut>(&self, mut ask: F) -> Result<T, SessionError>
    where
        F: FnMut(Arc<dyn Session>) -> Fut,
        Fut: Future<Output = Result<T, CallError>>,
    {
        let Some(manager) = &self.manager else {
            return Err(SessionError::NoSessions);
        };
        let mut last = SessionError::NoSessions;
        for id in &self.ids {
            match manager.wait(id.as_str(), SESSION_WAIT_TIMEOUT).await {
                Ok(session) => match ask(session).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = error.into(),
                },
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.ids.iter().map(SessionId::as_str))
            .finish()
    }
}
