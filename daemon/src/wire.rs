//! Puts the daemon together: which implementation stands behind which trait.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use engine::api::{SpanSink, VersionInfo};
use executor::dns::DnsConfig;
use executor::launcher::Launcher;
use executor::{Executor, SandboxNetwork};
use exporter::{Exporters, ImageExporter, LocalExporter, OciExporter, TarExporter, Variant};
use frontend::bridge::WorkerInfo;
use oci::error::chain;
use oci::{ErrorKind, Platform};
use session::SessionManager;
use source::blob::BlobSource;
use source::git::GitConfig;
use source::git::GitSource;
use source::http::HttpSource;
use source::image::ImageSource;
use source::local::LocalSource;
use source::oci_layout::OciLayoutSource;
use source::{SessionCredentials, Sources};
use store::{GcPolicy, Store};

use crate::git::ContainedGit;
use crate::settings::{DiskSpace, Settings, StepLimitsError, UserNamespaces};
use crate::signals::within;

const USER_AGENT: &str = concat!("buildkit/v0.34 rbuild/", env!("CARGO_PKG_VERSION"));

/// Why a part of the daemon cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The state directory cannot be opened.
    #[error("cannot open the state directory {}: {source}", root.display())]
    Store {
        /// The state directory.
        root: PathBuf,
        /// Why it cannot be opened or made.
        source: Box<store::OpenError>,
    },
    /// The folder of the tenants' states cannot be made.
    #[error("cannot make the folder of the tenants, {}: {source}", folder.display())]
    Tenants {
        /// The path of that folder.
        folder: PathBuf,
        /// Why it cannot be opened or made.
        source: std::io::Error,
    },
    /// A registry's settings cannot be used.
    #[error("cannot use the registry settings: {}", chain(.0.as_ref()))]
    Registry(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The http client cannot be made.
    #[error("cannot set up downloads: {0}")]
    Http(#[source] Box<source::SourceError>),
    /// What is added to provenance cannot be read.
    #[error("cannot read what is added to provenance: {0}")]
    Provenance(#[source] std::io::Error),
    /// A platform of the settings cannot be parsed.
    #[error("worker platform: {0}")]
    Platform(#[from] oci::PlatformError),
    /// There is no such network mode.
    #[error("network mode {0:?} is not known: use auto, bridge, cni, host or none")]
    Network(String),
    /// The network of steps cannot be made.
    #[error("steps cannot have a {mode} network (worker.oci.networkMode): {source}")]
    StepNetwork {
        /// Which.
        mode: &'static str,
        /// Why.
        source: net::NetError,
    },
    /// Steps cannot have user namespaces here.
    #[error(
        "steps cannot have user namespaces here: that needs Linux 6.15 and a file system below the state directory that maps ids; choose --oci-worker-user-namespaces=auto or off: {}",
        chain(.0.as_ref())
    )]
    UserNamespaces(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Steps of an OCI runtime have no user namespaces.
    #[error(
        "user namespaces are not built for steps of an OCI runtime (worker.oci.binary): choose --oci-worker-user-namespaces=auto or off, or leave the runtime out"
    )]
    UserNamespacesOfRuntime,
    /// The OCI runtime may not run steps.
    #[error("worker.oci.binary cannot be used: {0}")]
    Runtime(#[from] executor::runtime::UnfitRuntime),
    /// Steps cannot be limited as the configuration says.
    #[error(transparent)]
    Steps(#[from] StepLimitsError),
    /// There is no socket for spans of steps.
    #[error(transparent)]
    StepSpans(#[from] control::StepSpansError),
    /// The configured snapshotter is not supported.
    #[error("snapshotter {0:?} is not known: use auto, overlayfs or native")]
    Snapshotter(String),
}

impl WireError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { source, .. } => ErrorKind::of_causes(source.as_ref()),
            Self::Tenants { source, .. } => ErrorKind::of_host(source),
            Self::Provenance(source) => ErrorKind::of_io(source),
            Self::Registry(source) => Some(ErrorKind::of_causes(source.as_ref()))
                .filter(|kind| *kind != ErrorKind::Failed)
                .unwrap_or(ErrorKind::Invalid),
            Self::Http(source) => source.kind(),
            Self::StepNetwork { source, .. } => source.kind(),
            Self::Steps(error) => error.kind(),
            Self::StepSpans(error) => error.kind(),
            Self::Platform(_) | Self::Runtime(_) | Self::Network(_) => ErrorKind::Invalid,
            Self::Snapshotter(_) | Self::UserNamespaces(_) | Self::UserNamespacesOfRuntime => {
                ErrorKind::Unsupported
            }
        }
    }
}

/// The socket for spans of steps, below the state directory.
pub(crate) const SPAN_SOCKET: &str = "otel-grpc.sock";
/// How long the records of cancelled builds may take when the daemon stops.
const RECORDS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// A daemon that has been put together and can serve.
pub struct Composed {
    /// All gRPC services.
    pub routes: control::Routes,
    engine: Arc<engine::Engine>,
    store: Arc<Store>,
    step_spans: Option<control::StepSpans>,
}

impl std::fmt::Debug for Composed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Composed")
    }
}

impl Composed {
    /// The engine, as a weak reference that does not keep it from closing.
    pub(crate) fn engine(&self) -> std::sync::Weak<engine::Engine> {
        Arc::downgrade(&self.engine)
    }

    /// Ends what still builds, waits until the records of cancelled builds are written, and closes the state directory in order. The
    /// last thing that is done.
    pub async fn close(self) {
        let Self {
            engine,
            store,
            step_spans,
            ..
        } = self;
        drop(step_spans);
        if within(RECORDS_TIMEOUT, engine.close()).await.is_none() {
            tracing::warn!("records of cancelled builds are not all written");
        }
        if let Err(error) = task::blocking("close the store", move || store.close()).await {
            tracing::error!(%error, "the state directory was not closed in order; it is checked at the next start");
        }
    }
}

/// Puts the daemon together. Its steps get `network` when they ask for none, and `spans` the spans of its builds.
pub fn compose(
    settings: &Settings,
    network: SandboxNetwork,
    spans: Option<Arc<dyn SpanSink>>,
) -> Result<Composed, WireError> {
    let config = store::Config {
        driver: match settings.worker.snapshotter.as_str() {
            "auto" | "" => store::DriverKind::Auto,
            "overlayfs" => store::DriverKind::Overlay,
            "native" => store::DriverKind::Native,
            other => return Err(WireError::Snapshotter(other.to_owned())),
        },
        layers: settings.worker.layers,
        ..store::Config::new(&settings.root)
    };
    let store = Store::open(config).map_err(|source| WireError::Store {
        root: settings.root.clone(),
        source: Box::new(source),
    })?;
    let sessions = SessionManager::with_limits(settings.context.limits(&settings.root));
    let client = registry::Client::new(registry_config(settings));

    let images = ImageSource::new(Arc::clone(&store), client.clone());
    let layouts = OciLayoutSource::new(Arc::clone(&store));
    let http = HttpSource::new(Arc::clone(&store), USER_AGENT)
        .map_err(|e| WireError::Http(Box::new(e)))?;
    let network_label = network.label();
    let executor = executor(settings, &store, network)?;
    let mut sources = Sources::new();
    sources.register(Arc::new(images.clone()));
    sources.register(Arc::new(layouts.clone()));
    let blobs = BlobSource::new(Arc::clone(&store), images.clone());
    sources.register(Arc::new(blobs.clone()));
    sources.register(Arc::new(http));
    sources.register(Arc::new(GitSource::new(
        Arc::clone(&store),
        git_config(settings, &executor),
        Some(blobs),
    )));
    sources.register(Arc::new(LocalSource::comparing(
        Arc::clone(&store),
        settings.context.compare,
    )));

    let mut exporters = Exporters::new();
    let credentials: remotecache::CredentialsOf = Arc::new(|group: &session::Group| {
        Arc::new(SessionCredentials::new(group.clone())) as Arc<dyn registry::Credentials>
    });
    let caches = remotecache::Caches::new(
        Arc::clone(&store),
        client.clone(),
        Arc::clone(&credentials),
        Arc::clone(&sessions),
    );
    exporters.register(Arc::new(ImageExporter::new(
        Arc::clone(&store),
        client,
        credentials,
    )));
    exporters.register(Arc::new(OciExporter::new(Arc::clone(&store), Variant::Oci)));
    exporters.register(Arc::new(OciExporter::new(
        Arc::clone(&store),
        Variant::Docker,
    )));
    exporters.register(Arc::new(LocalExporter));
    exporters.register(Arc::new(TarExporter));

    // DIFFERS: BuildKit's steps always have the socket, also where nobody asked for spans.
    let collector_socket = || spans.is_some().then(|| settings.root.join(SPAN_SOCKET));
    let span_socket = settings.otel_socket.clone().or_else(collector_socket);
    let mut platforms = vec![Platform::host()];
    for platform in &settings.worker.platforms {
        let platform = Platform::parse(platform)?.normalize();
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    let parts = ops::Parts::new(
        Arc::clone(&store),
        executor,
        Arc::new(sources),
        Arc::clone(&sessions),
        ops::StepLimits {
            platforms: platforms.clone(),
            devices: settings.cdi.clone().map(executor::cdi::Devices::new),
            max_parallelism: settings.worker.max_parallelism,
            resources: settings.worker.steps.resources(&settings.root)?,
            memory: settings.worker.steps.memory_budget()?,
            span_socket: span_socket.clone(),
        },
    );
    let engine = engine::Engine::new(engine::EngineParts {
        parts,
        exporters,
        caches,
        images,
        layouts,
        worker: WorkerInfo {
            id: worker_id(settings),
            labels: labels(settings, network_label, store.snapshotter()),
            platforms,
        },
        version: version(),
        settings: engine::Settings {
            entitlements: settings.entitlements.clone(),
            proxy_network: settings.proxy.all_builds,
            gc_policies: if settings.worker.gc {
                policies(settings)
            } else {
                Vec::new()
            },
            frontend_host: settings
                .gateway_enabled
                .then(|| Arc::new(control::StdioHost) as _),
            frontend_repositories: settings.gateway_repositories.clone(),
            history: engine::HistorySettings {
                max_entries: settings.history.max_entries,
                max_age: settings.history.max_age,
                codec: Some(Arc::new(control::Codec)),
                spans,
            },
            dockerfile: if settings.dockerfile_enabled {
                engine::DockerfileFrontend::On {
                    answers_syntax: settings.builtin_syntax,
                }
            } else {
                engine::DockerfileFrontend::Off
            },
            provenance_env: engine::provenance_env(&settings.provenance_env)
                .map_err(WireError::Provenance)?,
        },
    });
    let step_spans = span_socket
        .map(|path| control::StepSpans::listen(&path, Arc::clone(&engine) as _))
        .transpose()?;
    Ok(Composed {
        step_spans,
        routes: control::routes(Arc::clone(&engine) as _, sessions),
        engine,
        store,
    })
}

fn executor(
    settings: &Settings,
    store: &Store,
    sandbox_network: SandboxNetwork,
) -> Result<Arc<dyn Executor>, WireError> {
    let dns = settings
        .dns
        .as_ref()
        .map_or_else(DnsConfig::default, |dns| DnsConfig {
            nameservers: dns.nameservers.clone(),
            options: dns.options.clone(),
            search_domains: dns.search_domains.clone(),
        });
    let cgroup_parent = settings.worker.cgroup_parent.clone();
    let mode = match settings.worker.user_namespaces {
        // Root of a user namespace cannot map ids of the store's file system for another one, which is inside of its own anyway.
        UserNamespaces::Auto if sys::userns::is_nested() => UserNamespaces::Off,
        mode @ (UserNamespaces::Off | UserNamespaces::Auto | UserNamespaces::On) => mode,
    };
    let proxy = Some(proxy_of_steps(settings));
    if let Some(program) = &settings.worker.binary {
        if mode == UserNamespaces::On {
            return Err(WireError::UserNamespacesOfRuntime);
        }
        let runtime = executor::runtime::Runtime::open(executor::runtime::Config {
            program: program.into(),
            root: settings.root.join("runtime"),
            sandbox_network,
            proxy,
            dns,
            cgroup_parent,
            accepted_versions: settings.worker.accepted_binary_versions.clone(),
        })?;
        return Ok(Arc::new(runtime));
    }
    let config = executor::launcher::Config {
        program: None,
        sandbox_network,
        proxy,
        dns,
        cgroup_parent,
        user_namespace: None,
    };
    if mode != UserNamespaces::Off {
        let launcher = Launcher::new(executor::launcher::Config {
            user_namespace: Some(settings.worker.user_namespace_ids),
            ..config.clone()
        });
        match check_user_namespaces(&launcher, store) {
            Ok(()) => return Ok(Arc::new(launcher)),
            Err(error) if mode == UserNamespaces::On => {
                return Err(WireError::UserNamespaces(error));
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    cause = error.source().map(ToString::to_string),
                    "steps share the users of this host: it can map no ids for them"
                );
            }
        }
    }
    Ok(Arc::new(Launcher::new(config)))
}

/// Makes the proxy of the steps that are on the proxy network, with a certificate authority of its own for every state.
fn proxy_of_steps(settings: &Settings) -> Arc<proxy::Proxy> {
    let variable = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
    proxy::Proxy::new(proxy::Config {
        allow: settings.proxy.allow.clone(),
        upstreams: proxy::Upstreams::from_environment(variable),
        roots: None,
    })
}

/// Makes the namespace and mounts something for it.
fn check_user_namespaces(
    launcher: &Launcher,
    store: &Store,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    if let Some(ids) = launcher.id_mapping(&executor::Access::SANDBOX)? {
        store.check_mapping(&ids)?;
    }
    Ok(())
}

fn registry_config(settings: &Settings) -> registry::Config {
    let mut config = registry::Config::new(USER_AGENT);
    if let Some(limit) = settings.max_registry_concurrency.filter(|n| *n > 0) {
        config.max_parallelism = limit;
    }
    for (host, from) in &settings.registries {
        config.hosts.insert(
            host.clone(),
            registry::HostConfig {
                mirrors: from.mirrors.clone(),
                plain_http: from.http,
                insecure: from.insecure,
                ca: from.ca.iter().map(PathBuf::from).collect(),
                keypairs: from
                    .keypair
                    .iter()
                    .map(|pair| registry::KeyPair {
                        cert: (&pair.cert).into(),
                        key: (&pair.key).into(),
                    })
                    .collect(),
                tls_config_dirs: from.tlsconfigdir.iter().map(PathBuf::from).collect(),
            },
        );
    }
    config
}

fn git_config(settings: &Settings, executor: &Arc<dyn Executor>) -> GitConfig {
    const PROXY: [&str; 8] = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
    ];
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    GitConfig {
        runner: Arc::new(ContainedGit::new(Arc::clone(executor), &path)),
        path,
        proxy_env: PROXY
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?)))
            .collect(),
        scratch: settings.root.join("git"),
    }
}

/// What `--version` says after the program's name: package, version, revision. Drivers of buildx take the version to be the third field.
#[must_use]
pub fn version_line() -> String {
    let version = version();
    format!(
        "{} {} {}",
        version.package, version.version, version.revision
    )
}

/// The version that clients are told. Clients compare the version with those of BuildKit, whose features we answer for.
fn version() -> VersionInfo {
    VersionInfo {
        package: "rbuild".into(),
        version: "v0.34.2".into(),
        revision: concat!("rbuild-", env!("CARGO_PKG_VERSION")).into(),
        dockerfile: "1.28.0".into(),
    }
}

/// The worker's id outlives restarts: it is kept in the state directory.
fn worker_id(settings: &Settings) -> String {
    let path = settings.root.join("workerid");
    if let Ok(id) = std::fs::read_to_string(&path)
        && executor::ContainerId::new(id.trim()).is_ok()
    {
        return id.trim().to_owned();
    }
    let id = executor::ContainerId::random().to_string();
    if let Err(error) = std::fs::write(&path, &id) {
        tracing::warn!(%error, "the worker's id cannot be kept, it will be another after a restart");
    }
    id
}

fn labels(settings: &Settings, network: &str, snapshotter: &str) -> BTreeMap<String, String> {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut labels: BTreeMap<String, String> = [
        ("executor", "oci"),
        ("hostname", hostname.trim()),
        ("snapshotter", snapshotter),
        ("network", network),
        ("selinux.enabled", "false"),
        ("oci.process-mode", "sandbox"),
    ]
    .into_iter()
    .map(|(key, value)| {
        (
            format!("org.mobyproject.buildkit.worker.{key}"),
            value.to_owned(),
        )
    })
    .collect();
    labels.extend(settings.worker.labels.clone());
    labels
}

fn policies(settings: &Settings) -> Vec<GcPolicy> {
    let space = |space: DiskSpace| {
        let total = u64::try_from(store::DiskStat::of(&settings.root).total).unwrap_or(0);
        store::DiskSpace::bytes(i64::try_from(space.bytes(total)).unwrap_or(i64::MAX))
    };
    settings
        .worker
        .gc_policies
        .iter()
        .map(|policy| GcPolicy {
            filters: policy.filters.clone(),
            all: policy.all,
            keep_duration: policy.keep_duration,
            reserved: space(policy.reserved),
            max_used: space(policy.max_used),
            min_free: space(policy.min_free),
        })
        .collect()
}
