//! The command line of `buildctl` (upstream `cmd/buildctl`).

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// build utility
#[derive(Debug, Parser)]
#[command(
    name = "buildctl",
    disable_version_flag = true,
    args_override_self = true,
    max_term_width = 100
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// print the version
    #[arg(long, short = 'v')]
    pub(super) version: bool,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// How a daemon is reached.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// enable debug output in logs
    #[arg(long, global = true)]
    debug: bool,
    /// buildkitd address (default: $BUILDKIT_HOST, else unix:///run/buildkit/buildkitd.sock)
    #[arg(long, global = true, value_name = "ADDRESS")]
    addr: Option<String>,
    /// log formatter: json or text
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// buildkitd server name for certificate validation
    #[arg(long, global = true, value_name = "NAME")]
    tlsservername: Option<String>,
    /// CA certificate for validation
    #[arg(long, global = true, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// client certificate
    #[arg(long, global = true, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// client key
    #[arg(long, global = true, value_name = "FILE")]
    tlskey: Option<PathBuf>,
    /// directory with ca.pem, cert.pem and key.pem, or ca.crt, tls.crt and tls.key
    #[arg(long, global = true, value_name = "DIR", conflicts_with_all = ["tlscacert", "tlscert", "tlskey"])]
    tlsdir: Option<PathBuf>,
    /// timeout backend connection after value seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 5)]
    timeout: u64,
    /// block RPCs until the connection becomes available
    #[arg(long, global = true)]
    wait: bool,
}

impl Connection {
    pub(super) fn log_format(&self) -> &str {
        &self.log_format
    }

    pub(super) fn debug(&self) -> bool {
        self.debug
    }

    /// The same in the terms of `rbuild`.
    pub(super) fn reach(&self) -> crate::args::Connection {
        crate::args::Connection {
            addr: self.addr.clone().filter(|addr| !addr.is_empty()),
            tlscacert: self.tlscacert.clone(),
            tlscert: self.tlscert.clone(),
            tlskey: self.tlskey.clone(),
            tlsdir: self.tlsdir.clone(),
            tlsservername: self.tlsservername.clone(),
            debug: self.debug,
        }
    }

    /// How long a daemon may take to answer, and whether it may still have to start.
    pub(super) fn patience(&self) -> crate::connection::Patience {
        let limit = (self.timeout > 0).then(|| Duration::from_secs(self.timeout));
        if self.wait {
            crate::connection::Patience::UntilThere(limit)
        } else {
            crate::connection::Patience::Once(limit)
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// disk usage
    Du(Du),
    /// clean up build cache
    Prune(Prune),
    /// clean up build histories
    PruneHistories {
        /// Go template of a line, e.g. '{{json .}}'
        #[arg(long, value_name = "TEMPLATE")]
        format: Option<String>,
    },
    /// build
    #[command(visible_alias = "b")]
    Build(Box<Build>),
    /// debug utilities
    Debug {
        #[command(subcommand)]
        what: Debug,
    },
    /// Proxy the stdio stream to the daemon connection. Should not be invoked manually.
    #[command(hide = true)]
    DialStdio,
}

#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct Du {
    /// Filter records
    #[arg(long, short)]
    pub(super) filter: Vec<String>,
    /// Verbose output
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// Go template of the list, e.g. '{{json .}}'
    #[arg(long, value_name = "TEMPLATE")]
    pub(super) format: Option<String>,
}

#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct Prune {
    /// Keep data newer than this limit
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub(super) keep_duration: String,
    /// Keep data below this limit (in MB)
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub(super) keep_storage: f64,
    /// Always allow data above this limit (in MB)
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub(super) keep_storage_min: f64,
    /// Keep free data below this limit (in MB)
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub(super) free_storage: f64,
    /// Filter records
    #[arg(long, short)]
    pub(super) filter: Vec<String>,
    /// Include internal/frontend references
    #[arg(long)]
    pub(super) all: bool,
    /// Verbose output
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// Go template of a line, e.g. '{{json .}}'
    #[arg(long, value_name = "TEMPLATE")]
    pub(super) format: Option<String>,
}

#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(super) struct Build {
    /// Define exports for build result, e.g. --output type=image,name=registry.example/image,push=true
    #[arg(long, short)]
    pub(super) output: Vec<String>,
    /// Set type of progress (auto, plain, tty, rawjson). Use plain to show container output
    #[arg(long, value_enum, default_value_t)]
    pub(super) progress: crate::args::ProgressMode,
    /// Path to trace file. Defaults to no tracing.
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
    /// Allow build access to the local directory
    #[arg(long, value_name = "NAME=DIR")]
    pub(super) local: Vec<String>,
    /// Allow build access to the local OCI layout
    #[arg(long, value_name = "NAME=DIR")]
    pub(super) oci_layout: Vec<String>,
    /// Define frontend used for build
    #[arg(long, default_value = "")]
    pub(super) frontend: String,
    /// Define custom options for frontend, e.g. --opt target=foo --opt build-arg:foo=bar
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) opt: Vec<String>,
    /// Disable cache for all the vertices
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Export build cache, e.g. --export-cache type=registry,ref=example.com/foo/bar, or type=local,dest=path/to/dir
    #[arg(long)]
    pub(super) export_cache: Vec<String>,
    /// Import build cache, e.g. --import-cache type=registry,ref=example.com/foo/bar, or type=local,src=path/to/dir
    #[arg(long)]
    pub(super) import_cache: Vec<String>,
    /// Secret value exposed to the build. Format id=secretname,src=filepath
    #[arg(long)]
    pub(super) secret: Vec<String>,
    /// Allow extra privileged entitlement, e.g. network.host, security.insecure, device
    #[arg(long)]
    pub(super) allow: Vec<String>,
    /// Allow forwarding SSH agent or a raw Unix socket to the builder. Format default|<id>[=<socket>]
    #[arg(long)]
    pub(super) ssh: Vec<String>,
    /// Output build metadata (e.g., image digest) to a file as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Read source policy file from a JSON file
    #[arg(long, value_name = "FILE")]
    pub(super) source_policy_file: Option<PathBuf>,
    /// Run build with proxy network enforcement
    #[arg(long)]
    pub(super) proxy_network: bool,
    /// Write build ref to a file
    #[arg(long, value_name = "FILE")]
    pub(super) ref_file: Option<PathBuf>,
    /// Overwrite TLS configuration when authenticating with registries
    #[arg(long)]
    pub(super) registry_auth_tlscontext: Vec<String>,
    /// Where to output json cache metrics: stdout, stderr or a file
    #[arg(long, value_name = "PLACE")]
    pub(super) debug_json_cache_metrics: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Debug {
    /// dump LLB in human-readable format
    DumpLlb,
    /// dump the meta in human-readable format
    DumpMetadata,
    /// list workers
    Workers {
        /// containerd-style filter string slice
        #[arg(long, short)]
        filter: Vec<String>,
        /// Verbose output
        #[arg(long, short)]
        verbose: bool,
        /// Go template of the list, e.g. '{{json .}}'
        #[arg(long, value_name = "TEMPLATE")]
        format: Option<String>,
    },
    /// display internal information
    Info {
        /// Go template, e.g. '{{json .}}'
        #[arg(long, value_name = "TEMPLATE")]
        format: Option<String>,
    },
    /// display build events
    Monitor {
        /// show completed builds
        #[arg(long)]
        completed: bool,
        /// show events for a specific build
        #[arg(long, value_name = "REF", default_value = "")]
        r#ref: String,
    },
    /// display build logs
    Logs {
        #[arg(value_name = "REF")]
        build: String,
        /// progress output type
        #[arg(long, value_enum, default_value_t)]
        progress: crate::args::ProgressMode,
        /// show opentelemetry trace
        #[arg(long)]
        trace: bool,
    },
    /// control build records
    Ctl {
        #[arg(value_name = "REF")]
        build: String,
        /// pin build so it will not be garbage collected
        #[arg(long)]
        pin: bool,
        /// unpin build so it will be garbage collected
        #[arg(long, conflicts_with = "pin")]
        unpin: bool,
        /// delete build record
        #[arg(long, conflicts_with_all = ["pin", "unpin"])]
        delete: bool,
    },
    /// retrieve a blob from contentstore
    Get {
        #[arg(value_name = "DIGEST")]
        digest: String,
    },
    /// list build records
    Histories {
        /// Go template of a line, e.g. '{{json .}}'
        #[arg(long, value_name = "TEMPLATE")]
        format: Option<String>,
    },
}
