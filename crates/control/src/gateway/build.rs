//! One build whose frontend runs in a client.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use engine::api::frontend::gateway::Container;
use engine::api::frontend::{
    Bridge, BridgeError, Frontend, FrontendError, FrontendRequest, FrontendResult, Ref,
};
use engine::api::{Failure, FailureKind, ResultHost};
use llb::pb;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonic::Status;

use crate::gateway::{Builds, Owner};

pub(crate) type Outcome = Result<FrontendResult, Failure>;

/// Stands for a frontend in a client: gives the client the bridge, waits for its result.
pub(crate) struct ClientFrontend {
    builds: Arc<Builds>,
    name: String,
    owner: Owner,
}

impl ClientFrontend {
    pub(crate) fn new(builds: Arc<Builds>, name: String, owner: Owner) -> Self {
        Self {
            builds,
            name,
            owner,
        }
    }
}

#[async_trait]
impl Frontend for ClientFrontend {
    async fn solve(
        &self,
        bridge: Arc<dyn Bridge>,
        request: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let (outcome_sender, outcome) = oneshot::channel();
        let build = Arc::new(Build::new(bridge, request.inputs, Some(outcome_sender)));
        let (name, owner) = (self.name.clone(), self.owner.clone());
        if !self.builds.insert(name, build.clone(), owner) {
            return Err(
                BridgeError::message(format!("build {} is running already", self.name)).into(),
            );
        }
        let _registered = Registered {
            builds: &self.builds,
            name: &self.name,
        };
        let outcome = outcome.await;
        build.discard().await;
        match outcome {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(failure)) => Err(BridgeError::from(failure).into()),
            // `RecvError` says only that the sender was dropped.
            Err(oneshot::error::RecvError { .. }) => Err(BridgeError::from(Failure::new(
                FailureKind::Internal,
                "the build lost its frontend",
            ))
            .into()),
        }
    }
}

impl ResultHost for ClientFrontend {
    fn host(
        &self,
        bridge: Arc<dyn Bridge>,
        refs: Vec<Arc<dyn Ref>>,
    ) -> (Vec<String>, Box<dyn std::any::Any + Send>) {
        let build = Arc::new(Build::new(bridge, BTreeMap::new(), None));
        let names = refs
            .into_iter()
            .map(|reference| build.keep(reference))
            .collect();
        let hosted = self
            .builds
            .insert(self.name.clone(), build, self.owner.clone())
            .then(|| Hosted {
                builds: self.builds.clone(),
                name: self.name.clone(),
            });
        (names, Box::new(hosted))
    }
}

/// A result that the client may look into; dropping it ends that.
struct Hosted {
    builds: Arc<Builds>,
    name: String,
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.builds.remove(&self.name);
    }
}

struct Registered<'a> {
    builds: &'a Builds,
    name: &'a str,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.builds.remove(self.name);
    }
}

/// The state of one build that calls of its client read and change.
pub(crate) struct Build {
    pub(crate) bridge: Arc<dyn Bridge>,
    pub(crate) inputs: BTreeMap<String, Arc<pb::Definition>>,
    refs: Mutex<Refs>,
    containers: Mutex<HashMap<String, Arc<dyn Container>>>,
    outcome_sender: Mutex<Option<oneshot::Sender<Outcome>>>,
}

#[derive(Default)]
struct Refs {
    last: u64,
    by_id: HashMap<String, Arc<dyn Ref>>,
}

impl Build {
    /// A build without refs or containers. `outcome_sender` gets what the frontend returns.
    pub(crate) fn new(
        bridge: Arc<dyn Bridge>,
        inputs: BTreeMap<String, Arc<pb::Definition>>,
        outcome_sender: Option<oneshot::Sender<Outcome>>,
    ) -> Self {
        Self {
            bridge,
            inputs,
            refs: Mutex::new(Refs::default()),
            containers: Mutex::default(),
            outcome_sender: Mutex::new(outcome_sender),
        }
    }

    /// Gives a ref an id for the client.
    pub(crate) fn keep(&self, built_ref: Arc<dyn Ref>) -> String {
        let mut refs = self.refs.lock();
        refs.last += 1;
        let id = format!("ref{}", refs.last);
        refs.by_id.insert(id.clone(), built_ref);
        id
    }

    /// The ref of an id.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<dyn Ref>, Status> {
        if id.is_empty() {
            return Err(Status::unknown("empty ref: "));
        }
        self.refs
            .lock()
            .by_id
            .get(id)
            .cloned()
            .ok_or_else(|| Status::unknown(format!("no such ref: {id}")))
    }

    /// The ref of an id in a result; an empty id is an empty result.
    pub(crate) fn returned(&self, id: &str) -> Result<Option<Arc<dyn Ref>>, Status> {
        if id.is_empty() {
            return Ok(None);
        }
        let reference = self.refs.lock().by_id.get(id).cloned();
        reference
            .map(Some)
            .ok_or_else(|| Status::unknown(format!("return reference {id} not found")))
    }

    /// Returns the container that the client named `name`.
    pub(crate) fn container(&self, name: &str) -> Option<Arc<dyn Container>> {
        self.containers.lock().get(name).cloned()
    }

    /// Names a container; gives it back when the name is taken.
    pub(crate) fn add_container(
        &self,
        name: &str,
        container: Arc<dyn Container>,
    ) -> Result<(), Arc<dyn Container>> {
        match self.containers.lock().entry(name.to_owned()) {
            Entry::Occupied(_) => Err(container),
            Entry::Vacant(place) => {
                place.insert(container);
                Ok(())
            }
        }
    }

    /// Removes the container of that name, so that its name is free again, and returns it.
    pub(crate) fn remove_container(&self, name: &str) -> Option<Arc<dyn Container>> {
        self.containers.lock().remove(name)
    }

    /// Releases all containers and refs of the client.
    pub(crate) async fn discard(&self) {
        let containers = std::mem::take(&mut *self.containers.lock());
        for container in containers.into_values() {
            if let Err(error) = container.release().await {
                tracing::debug!(%error, "a container ends with its build");
            }
        }
        let refs = std::mem::take(&mut *self.refs.lock());
        drop(refs);
    }

    /// Ends the frontend with `outcome`; later calls are ignored.
    pub(crate) fn finish(&self, outcome: Outcome) {
        if let Some(outcome_sender) = self.outcome_sender.lock().take() {
            let _gone = outcome_sender.send(outcome);
        }
    }
}
