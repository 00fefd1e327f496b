//! Finds a daemon, or starts one in this process.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use client::{Address, Client, ConnectError, TlsFiles};
use daemon::Defaults;

use crate::args::Connection;
use crate::embedded::Embedded;
use crate::failure::CliError;

/// A connection to a daemon, which may run inside this process.
#[derive(Debug)]
pub(crate) struct DaemonConnection {
    client: Client,
    embedded: Option<Embedded>,
}

fn named_address(connection: &Connection) -> Option<String> {
    let host = || env::var_os("BUILDKIT_HOST").and_then(|v| v.into_string().ok());
    connection
        .addr
        .clone()
        .or_else(host)
        .filter(|a| !a.is_empty())
}

/// The address that was named, or the default one of the program's name.
pub(crate) fn address(connection: &Connection, program: &str) -> Result<Address, CliError> {
    let text = named_address(connection).unwrap_or_else(|| default_address(program));
    Ok(text.parse()?)
}

/// The socket of the program's daemon: a user's own if it is there, else the machine's.
fn default_address(program: &str) -> String {
    let daemon = if program.ends_with("buildctl") {
        "buildkitd"
    } else {
        "rbuildd"
    };
    let (own, machine) = (Defaults::here(daemon), Defaults::of(daemon));
    let is_there = |address: &str| {
        let path = address.strip_prefix("unix://");
        path.is_some_and(|path| std::path::Path::new(path).exists())
    };
    if is_there(&own.address) || !is_there(&machine.address) {
        own.address
    } else {
        machine.address
    }
}

/// Where a daemon in this process keeps its state.
pub(crate) fn state_directory() -> PathBuf {
    env::var_os("RBUILD_ROOT")
        .filter(|root| !root.is_empty())
        .map_or_else(|| Defaults::here("rbuildd").root, PathBuf::from)
}

/// Whether a daemon will have to be started in this process: none was named, and none answers. Blocks for as long as a local socket takes.
pub(crate) fn will_embed(connection: &Connection, program: &str) -> bool {
    let address = default_address(program);
    let path = address.strip_prefix("unix://").unwrap_or_default();
    named_address(connection).is_none() && std::os::unix::net::UnixStream::connect(path).is_err()
}

fn tls(connection: &Connection) -> TlsFiles {
    let mut files = TlsFiles {
        ca: connection.tlscacert.clone(),
        cert: connection.tlscert.clone(),
        key: connection.tlskey.clone(),
        server_name: connection.tlsservername.clone(),
    };
    if let Some(folder) = &connection.tlsdir {
        // Two ways to call them: buildctl's, and that of secrets in a cluster.
        let of = |names: [&str; 2]| {
            let files_of_kind = names.map(|n| folder.join(n));
            let file = files_of_kind.iter().find(|f| f.exists()).cloned();
            file.or_else(|| files_of_kind.into_iter().next())
        };
        files.ca = of(["ca.pem", "ca.crt"]);
        files.cert = of(["cert.pem", "tls.crt"]);
        files.key = of(["key.pem", "tls.key"]);
    }
    files
}

/// How long a daemon may take to answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// Tries once; without a limit it waits as long as the connection does.
    Once(Option<Duration>),
    /// Tries until somebody listens, or the time is over.
    UntilThere(Option<Duration>),
}

/// How long it waits before it tries again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Connects to the daemon that was named, or that has the default socket of the program's name. None is started.
pub(crate) async fn named_or_default(
    connection: &Connection,
    program: &str,
    patience: Patience,
) -> Result<Client, CliError> {
    let files = tls(connection);
    let address = address(connection, program)?;
    let (limit, is_patient) = match patience {
        Patience::Once(limit) => (limit, false),
        Patience::UntilThere(limit) => (limit, true),
    };
    let connecting = async {
        loop {
            match Client::connect(&address, &files).await {
                Err(ConnectError::Transport { .. }) if is_patient => {
                    task::clock::sleep(RETRY_PAUSE).await;
                }
                outcome => return Ok(outcome?),
            }
        }
    };
    match limit {
        Some(limit) => tokio::time::timeout(limit, connecting)
            .await
            .unwrap_or_else(|_| {
                Err(CliError::Usage(format!(
                    "no daemon answers at {address} within {} s",
                    limit.as_secs()
                )))
            }),
        None => connecting.await,
    }
}

impl DaemonConnection {
    /// Connects to the named daemon, else to one on the default socket, else starts one that allows `allow`.
    pub(crate) async fn open(
        connection: &Connection,
        program: &str,
        allow: &[String],
    ) -> Result<Self, CliError> {
        let files = tls(connection);
        let address = address(connection, program)?;
        let client = Client::connect(&address, &files).await;
        if named_address(connection).is_some() {
            return Ok(Self {
                client: client?,
                embedded: None,
            });
        }
        if let Ok(client) = client {
            return Ok(Self {
                client,
                embedded: None,
            });
        }
        let root = state_directory();
        let embedded = Box::pin(Embedded::start(&root, allow)).await?;
        let client = Client::connect(&embedded.address().parse()?, &TlsFiles::default()).await?;
        Ok(Self {
            client,
            embedded: Some(embedded),
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Stops a daemon that was started.
    pub(crate) async fn close(self) {
        drop(self.client);
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}
/// The span that this command is a part of, as whoever started it says (W3C Trace Context in the environment); empty for none.
pub(crate) fn trace_parent() -> String {
    let text = std::env::var_os("TRACEPARENT").unwrap_or_default();
    text.into_string().unwrap_or_default()
}
