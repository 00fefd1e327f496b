//! A daemon inside this process, for as long as one command.

use std::path::Path;

use clap::Parser;
use daemon::{Args, DaemonError, Defaults, Settings, SettingsError};
use oci::ErrorKind;
use task::Task;
use tokio::sync::oneshot;

/// A daemon that runs inside this process.
#[derive(Debug)]
pub(crate) struct Embedded {
    address: String,
    stop: oneshot::Sender<()>,
    running: Task<Result<(), DaemonError>>,
    // The private folder of the socket.
    _folder: tempfile::TempDir,
}

/// Why no daemon could be started in this process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmbeddedError {
    #[error("cannot make a folder for the daemon's socket: {source}")]
    Folder { source: std::io::Error },
    #[error(transparent)]
    Args { source: clap::Error },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot start a daemon in this process: {source}")]
    Start { source: DaemonError },
    #[error(transparent)]
    Rootless(#[from] daemon::rootless::RootlessError),
    #[error("the daemon in this process ended before it was ready")]
    Ended,
}

impl EmbeddedError {
    /// What kind of error it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Folder { source } => ErrorKind::of_host(source),
            // The arguments are made here.
            Self::Args { .. } => ErrorKind::Bug,
            Self::Settings(error) => error.kind(),
            Self::Start { source } => source.kind(),
            Self::Rootless(error) => error.kind(),
            Self::Ended => ErrorKind::Unavailable,
        }
    }
}

impl Embedded {
    /// Starts a daemon and waits until it answers.
    pub(crate) async fn start(root: &Path, allow: &[String]) -> Result<Self, EmbeddedError> {
        let folder = tempfile::Builder::new()
            .prefix("rbuild-")
            .tempdir()
            .map_err(|source| EmbeddedError::Folder { source })?;
        let address = format!("unix://{}", folder.path().join("rbuildd.sock").display());
        let mut argv = vec![
            "rbuildd".to_owned(),
            "--root".into(),
            root.display().to_string(),
            "--addr".into(),
            address.clone(),
            // Who interrupts the command does not want its build to go on.
            "--drain-timeout".into(),
            "0s".into(),
        ];
        for name in allow {
            argv.extend(["--allow-insecure-entitlement".into(), name.clone()]);
        }
        let args = Args::try_parse_from(argv).map_err(|source| EmbeddedError::Args { source })?;
        let settings = Settings::load(&args, &Defaults::here("rbuildd"))?;
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut running = task::spawn("embedded daemon", async move {
            let until = async move {
                // A sender that is gone means stop as well.
                let _stop = stopped.await;
            };
            Box::pin(daemon::run(settings, ready, until)).await
        });
        tokio::select! {
            done = &mut running => Err(match done {
                Err(source) => EmbeddedError::Start { source },
                Ok(()) => EmbeddedError::Ended,
            }),
            readiness = is_ready => {
                if readiness.is_err() {
                    return Err(match running.await {
                        Err(source) => EmbeddedError::Start { source },
                        Ok(()) => EmbeddedError::Ended,
                    });
                }
                Ok(Self { address, stop, running, _folder: folder })
            }
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Stops the daemon in order and waits for its end.
    pub(crate) async fn stop(self) {
        let _gone = self.stop.send(());
        if let Err(error) = self.running.await {
            tracing::warn!(%error, "the daemon in this process ended badly");
        }
    }
}
