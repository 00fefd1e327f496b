//! The client and the repositories it opens.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access::{Access, Purpose, Trust};
use crate::auth::{AuthKey, AuthPool};
use crate::config::{Config, HostConfig};
use crate::credentials::Credentials;
use crate::error::Error;
use crate::host::{Host, hosts_of};
use crate::limit::TransferLimits;
use crate::waiting::WaitObserver;

/// A client of registries. Clones share connections, tokens and limits.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<ClientInner>,
}

#[derive(Debug)]
struct ClientInner {
    config: Config,
    auth: AuthPool,
    limits: TransferLimits,
    hosts: Mutex<HashMap<(String, Trust), Hosts>>,
}

type Hosts = Arc<[Arc<Host>]>;

/// A repository's registry and path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepositoryName {
    /// The namespace, as `docker.io`; hosts and mirrors are found by it.
    pub domain: String,
    /// The path, as `library/alpine`.
    pub path: String,
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)
    }
}

impl From<&oci::Reference> for RepositoryName {
    fn from(reference: &oci::Reference) -> Self {
        Self {
            domain: reference.domain.clone(),
            path: reference.path.clone(),
        }
    }
}

/// One repository, opened by one principal for one kind of access.
#[derive(Debug, Clone)]
pub struct Repository {
    inner: Arc<RepositoryInner>,
}

#[derive(Debug)]
struct RepositoryInner {
    client: Client,
    name: RepositoryName,
    access: Access,
    credentials: Arc<dyn Credentials>,
    hosts: Hosts,
    observer: Option<WaitObserver>,
}

impl RepositoryInner {
    fn copy(&self) -> Self {
        Self {
            client: self.client.clone(),
            name: self.name.clone(),
            access: self.access,
            credentials: Arc::clone(&self.credentials),
            hosts: Arc::clone(&self.hosts),
            observer: self.observer.clone(),
        }
    }
}

impl Client {
    /// Makes a client. Certificates and keys are read when a host is first used.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let limits = TransferLimits::new(config.max_parallelism);
        Self {
            inner: Arc::new(ClientInner {
                config,
                auth: AuthPool::default(),
                limits,
                hosts: Mutex::default(),
            }),
        }
    }

    /// Opens a repository; nothing is sent yet.
    pub fn repository(
        &self,
        name: impl Into<RepositoryName>,
        access: Access,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Repository, Error> {
        let name = name.into();
        let hosts = self.hosts(&name.domain, access.trust())?;
        Ok(Repository {
            inner: Arc::new(RepositoryInner {
                client: self.clone(),
                name,
                access,
                credentials,
                hosts,
                observer: None,
            }),
        })
    }

    pub(crate) fn auth(&self) -> &AuthPool {
        &self.inner.auth
    }

    pub(crate) fn limits(&self) -> &TransferLimits {
        &self.inner.limits
    }

    fn hosts(&self, domain: &str, trust: Trust) -> Result<Hosts, Error> {
        let key = (domain.to_owned(), trust);
        if let Some(hosts) = self.inner.hosts.lock().get(&key) {
            return Ok(hosts.clone());
        }
        let new_hosts: Hosts = if trust == Trust::Unchecked {
            let mut config = Config::new(self.inner.config.user_agent.clone());
            config.hosts.insert(
                domain.to_owned(),
                HostConfig {
                    insecure: Some(true),
                    plain_http: Some(true),
                    ..HostConfig::default()
                },
            );
            hosts_of(&config, domain)?.into()
        } else {
            hosts_of(&self.inner.config, domain)?.into()
        };
        let mut hosts = self.inner.hosts.lock();
        if hosts.len() >= 1024 {
            hosts.clear();
        }
        Ok(hosts.entry(key).or_insert(new_hosts).clone())
    }
}

impl Repository {
    /// The repository's name.
    #[must_use]
    pub fn name(&self) -> &RepositoryName {
        &self.inner.name
    }

    /// The same repository with the credentials of another principal.
    #[must_use]
    pub fn with_credentials(&self, credentials: Arc<dyn Credentials>) -> Self {
        Self {
            inner: Arc::new(RepositoryInner {
                credentials,
                ..self.inner.copy()
            }),
        }
    }

    /// The same repository; `observer` is called when a host keeps a request waiting.
    #[must_use]
    pub fn with_observer(&self, observer: WaitObserver) -> Self {
        Self {
            inner: Arc::new(RepositoryInner {
                observer: Some(observer),
                ..self.inner.copy()
            }),
        }
    }

    pub(crate) fn observer(&self) -> Option<&WaitObserver> {
        self.inner.observer.as_ref()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn credentials(&self) -> &dyn Credentials {
        &*self.inner.credentials
    }

    pub(crate) fn hosts(&self) -> &[Arc<Host>] {
        &self.inner.hosts
    }

    pub(crate) fn auth_key(&self, host: &Host) -> AuthKey {
        AuthKey {
            repository: self.name().to_string(),
            access: self.inner.access,
            principal: self.credentials().principal(),
            host: host.authority.clone(),
        }
    }

    pub(crate) fn scope(&self, purpose: Purpose) -> String {
        let actions = match purpose {
            Purpose::Pull => "pull",
            Purpose::Push => "pull,push",
        };
        format!("repository:{}:{actions}", self.name().path)
    }
}
