//! Finds a daemon, or starts one in this process.

use std::env;
use std::path::PathBuf;

use client::{Address, Client, TlsFiles};
use daemon::Defaults;

use crate::args::Connection;
use crate::embedded::Embedded;
use crate::failure::CliError;

/// A daemon to talk to.
#[derive(Debug)]
pub(crate) struct Connected {
    client: Client,
    embedded: Option<Embedded>,
}

fn named(connection: &Connection) -> Option<String> {
    let host = || env::var_os("BUILDKIT_HOST").and_then(|v| v.into_string().ok());
    connection
        .addr
        .clone()
        .or_else(host)
        .filter(|a| !a.is_empty())
}

/// The address that was named, or the default one of the program's name.
pub(crate) fn address(connection: &Connection, program: &str) -> Result<Address, CliError> {
    let text = named(connection).unwrap_or_else(|| defaults(program).address);
    Ok(text.parse()?)
}

fn defaults(program: &str) -> Defaults {
    Defaults::of(if program.ends_with("buildctl") {
        "buildkitd"
    } else {
        "rbuildd"
    })
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
            let there = names.map(|n| folder.join(n));
            let found = there.iter().find(|f| f.exists()).cloned();
            found.or_else(|| there.into_iter().next())
        };
        files.ca = of(["ca.pem", "ca.crt"]);
        files.cert = of(["cert.pem", "tls.crt"]);
        files.key = of(["key.pem", "tls.key"]);
    }
    files
}

impl Connected {
    /// Connects to the named daemon, else to one on the default socket, else starts one that allows `allow`.
    pub(crate) async fn open(
        connection: &Connection,
        program: &str,
        allow: &[String],
    ) -> Result<Self, CliError> {
        let files = tls(connection);
        let address = address(connection, program)?;
        let client = Client::connect(&address, &files).await;
        if named(connection).is_some() {
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
        let root = env::var_os("RBUILD_ROOT")
            .filter(|r| !r.is_empty())
            .map_or_else(|| Defaults::of("rbuildd").root, PathBuf::from);
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
