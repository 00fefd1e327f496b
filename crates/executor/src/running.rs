//! The containers of an executor that run, for further processes that join them.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::ExecError;
use crate::spec::ContainerId;

/// Containers by name. `T` is what a further process needs of one.
#[derive(Debug)]
pub(crate) struct RunningContainers<T>(Mutex<HashMap<ContainerId, watch::Receiver<Option<T>>>>);

/// The name of a container that is being made or runs. Dropping it takes the name out of the list, and whoever waits for the container
/// hears that it has stopped.
#[derive(Debug)]
pub(crate) struct Registration<'a, T> {
    containers: &'a RunningContainers<T>,
    id: ContainerId,
    state: watch::Sender<Option<T>>,
}

/// A container that has been started, as one that joins it sees it.
#[derive(Debug)]
pub(crate) struct Joined<T> {
    pub(crate) container: T,
    state: watch::Receiver<Option<T>>,
}

impl<T> Default for RunningContainers<T> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<T: Clone> RunningContainers<T> {
    /// Takes a name for a container that is about to be made.
    pub(crate) fn register(&self, id: &ContainerId) -> Result<Registration<'_, T>, ExecError> {
        let mut containers = self.0.lock();
        if containers.contains_key(id) {
            return Err(ExecError::Exists { id: id.to_string() });
        }
        let (state, receiver) = watch::channel(None);
        containers.insert(id.clone(), receiver);
        Ok(Registration {
            containers: self,
            id: id.clone(),
            state,
        })
    }

    /// Waits until the container of this name has been started.
    pub(crate) async fn join(&self, id: &ContainerId) -> Result<Joined<T>, ExecError> {
        let receiver = self.0.lock().get(id).cloned();
        let mut state = receiver.ok_or_else(|| ExecError::NotFound { id: id.to_string() })?;
        let start = state.wait_for(Option::is_some).await;
        // A container that could not be made is dropped without having been started.
        let container = start.ok().and_then(|container| container.clone());
        Ok(Joined {
            container: container.ok_or_else(|| ExecError::Stopped { id: id.to_string() })?,
            state,
        })
    }
}

impl<T> Registration<'_, T> {
    /// Tells those who wait that the container has been started.
    pub(crate) fn set_started(&self, container: T) {
        self.state.send_replace(Some(container));
    }

    /// Lets nobody join the container any more.
    pub(crate) fn set_ended(&self) {
        self.state.send_replace(None);
    }
}

impl<T> Drop for Registration<'_, T> {
    fn drop(&mut self) {
        self.containers.0.lock().remove(&self.id);
    }
}

impl<T> Joined<T> {
    /// Whether the container has ended since it was joined.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.borrow().is_none() || self.state.has_changed().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_container_is_joined_from_its_start_to_its_end_and_its_name_is_taken_once() {
        let containers = RunningContainers::default();
        let id = ContainerId::random();
        let kind = |result: Result<Joined<u8>, ExecError>| result.err().map(|e| e.to_string());
        let missing = format!("container {id} not found");
        assert_eq!(kind(containers.join(&id).await), Some(missing.clone()));
        let registration = containers.register(&id).unwrap();
        assert!(matches!(
            containers.register(&id),
            Err(ExecError::Exists { .. })
        ));
        let (joined, ()) =
            tokio::join!(containers.join(&id), async { registration.set_started(7) });
        let joined = joined.unwrap();
        assert_eq!((joined.container, joined.has_ended()), (7, false));
        registration.set_ended();
        assert!(joined.has_ended());
        drop(registration);
        assert!(joined.has_ended());
        assert_eq!(kind(containers.join(&id).await), Some(missing));
        assert!(containers.register(&id).is_ok());
    }

    #[tokio::test]
    async fn a_container_that_is_never_started_has_stopped_for_who_waits() {
        let containers = RunningContainers::<u8>::default();
        let id = ContainerId::random();
        let registration = containers.register(&id).unwrap();
        let (joined, ()) = tokio::join!(containers.join(&id), async { drop(registration) });
        assert!(matches!(joined, Err(ExecError::Stopped { .. })));
    }
}
