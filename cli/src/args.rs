//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  rbuild build .                              build the Dockerfile here, see that it works
  rbuild build -t app --load .                … and give the image to docker
  rbuild build -t registry.example/app --push .
  rbuild build -o out .                       … and write the files of the result to ./out
  rbuild build -o type=oci,dest=app.tar .     … and write an image archive
  rbuild du                                   what is kept, and how large it is
  rbuild prune                                remove what nothing uses

No daemon is needed: without --addr, a daemon on the default socket is used if one answers,
and otherwise the build runs inside this process, with its state in /var/lib/rbuild.

Environment:
  RBUILD_HOST, BUILDKIT_HOST   address of a daemon
  RBUILD_ROOT                  state directory of builds without a daemon
  DOCKER_CONFIG                directory of docker's config.json (logins)
  BUILDKIT_PROGRESS            what --progress is without the flag
  BUILDKIT_TTY_LOG_LINES       lines of output below each running step (6)
  PROGRESS_NO_TRUNC            0 cuts long names of steps in plain progress
  NO_COLOR                     no colours";

const BUILD_EXAMPLES: &str = "\
Examples:
  rbuild build .
  rbuild build -f docker/app.Dockerfile --target release --build-arg VERSION=1.2 .
  rbuild build --secret id=npm,src=$HOME/.npmrc .          RUN --mount=type=secret,id=npm …
  rbuild build --secret id=token,env=TOKEN .               from an environment variable
  rbuild build --ssh default .                             RUN --mount=type=ssh …
  rbuild build --platform linux/amd64,linux/arm64 -t registry.example/app --push .
  rbuild build --build-context base=docker-image://alpine:3.20 .
  rbuild build --build-context base=oci-layout://./layout:1 .
  rbuild build --cache-to type=local,dest=cache --cache-from type=local,src=cache .
  rbuild build --check .                                   what is wrong with the Dockerfile
  rbuild build --call outline .                            arguments, secrets, agents; targets lists the stages
  rbuild build https://github.com/user/project.git#main:dir
  tar c . | rbuild build -                                 context from standard input
  rbuild build - < Dockerfile                              Dockerfile only, empty context

Outputs (-o):
  DIR                             files of the result into a directory
  -                               files of the result as a tar to standard output
  type=local,dest=DIR             the same as DIR (mode=delete removes what the result does not have; device files,
                                  set-user-id bits and capabilities are left out unless special=true)
  type=tar,dest=FILE              files of the result as a tar
  type=oci,dest=FILE              image archive (OCI layout); tar=false,dest=DIR writes the layout as files
  type=docker,dest=FILE           image archive for `docker load`
  type=image,name=REF,push=true   image to a registry
  type=cacheonly                  only build

Exit code: 0 when all went well, 1 when the build failed (whatever the step's own code was), what the frontend
says for --check and --call (1 for findings), 2 for a wrong command line, 130 when interrupted.";

/// Headings of the groups of flags.
const BUILD: &str = "Build options";
const OUTPUT: &str = "Output options";
const CACHE: &str = "Cache options";
const SECURITY: &str = "Security options";
const CONNECTION: &str = "Connection options";

/// Builds container images from Dockerfiles, with a daemon or without one
///
/// rbuild takes a Dockerfile and a folder and makes an image, files or an archive of them. It speaks the API of BuildKit:
/// `rbuildd` and `buildkitd` are daemons for it, and without either it builds inside its own process.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// How to reach a daemon.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach a daemon.
#[derive(Debug, Clone, Default, Args)]
pub struct Connection {
    /// Address of a daemon: unix:///path or tcp://host:port
    #[arg(help_heading = CONNECTION, long, global = true, env = "RBUILD_HOST", value_name = "ADDRESS")]
    pub addr: Option<String>,
    /// Authority that the daemon's certificate comes from
    #[arg(help_heading = CONNECTION, long, global = true, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// Certificate of this client
    #[arg(help_heading = CONNECTION, long, global = true, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Key of that certificate
    #[arg(help_heading = CONNECTION, long, global = true, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)
    #[arg(help_heading = CONNECTION, long, global = true, value_name = "DIR", conflicts_with_all = ["tlscacert", "tlscert", "tlskey"])]
    pub tlsdir: Option<PathBuf>,
    /// Name in the daemon's certificate, if it is not the host's
    #[arg(help_heading = CONNECTION, long, global = true, value_name = "NAME")]
    pub tlsservername: Option<String>,
    /// Log what this program does
    #[arg(long, global = true)]
    pub debug: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "parsed once")]
pub enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Build),
    /// Show what is kept on disk
    Du {
        /// Only records for which this holds (type==regular, id~=…, unused-for=…)
        #[arg(long, short = 'f', value_name = "FILTER")]
        filter: Vec<String>,
        /// Show everything about each record
        #[arg(long, short)]
        verbose: bool,
    },
    /// Remove what nothing uses
    Prune(Prune),
    /// Ask a daemon about itself
    Debug {
        /// About what.
        #[command(subcommand)]
        what: Debug,
    },
    /// Say what this host lacks for builds, what mends it, and what is used instead
    Doctor {
        /// The state directory; the one that a daemon would use when not given
        #[arg(long, value_name = "DIR")]
        root: Option<std::path::PathBuf>,
    },
    /// Connect standard input and output to the daemon's socket
    DialStdio,
}

impl Command {
    /// Whether this process itself works on a state directory if `embeds`: no daemon was named and none answers.
    pub(crate) fn works_on_state(&self, embeds: impl FnOnce() -> bool) -> bool {
        match self {
            // It looks before it enters anything.
            Self::DialStdio | Self::Doctor { .. } => false,
            Self::Debug {
                what: Debug::Fsck { .. },
            } => true,
            Self::Build(_) | Self::Du { .. } | Self::Prune(_) | Self::Debug { .. } => embeds(),
        }
    }
}

/// About what.
#[derive(Debug, Clone, Subcommand)]
pub enum Debug {
    /// List the workers
    Workers {
        /// Show everything
        #[arg(long, short)]
        verbose: bool,
    },
    /// Show the version
    Info,
    /// Check the state directory of a daemon that does not run
    Fsck {
        /// The state directory
        #[arg(long, value_name = "DIR")]
        root: std::path::PathBuf,
        /// Read every blob and compare its digest
        #[arg(long)]
        deep: bool,
    },
}

/// Flags of `prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// Also what is internal or used by frontends
    #[arg(long)]
    pub all: bool,
    /// Only records for which this holds
    #[arg(long, short = 'f', value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Keep what was used within this time (12h, 7d)
    #[arg(long, value_name = "TIME", default_value = "0s")]
    pub keep_duration: String,
    /// Keep this many megabytes
    #[arg(
        long,
        visible_alias = "keep-storage",
        value_name = "MB",
        default_value_t = 0.0
    )]
    pub reserved_space: f64,
    /// Stop when no more than this many megabytes are used
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub max_used_space: f64,
    /// Stop when this many megabytes are free
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub min_free_space: f64,
    /// Show everything about each record
    #[arg(long, short)]
    pub verbose: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum ProgressMode {
    /// As the terminal allows
    #[default]
    Auto,
    /// A view that is redrawn
    Tty,
    /// Lines
    Plain,
    /// JSON, a line for each change
    Rawjson,
    /// Errors only
    Quiet,
}

/// Flags of `build`.
#[derive(Debug, Args)]
#[command(after_help = BUILD_EXAMPLES)]
pub struct Build {
    /// Folder, git or http URL, or - for a tar or a Dockerfile on standard input
    #[arg(default_value = ".", value_name = "PATH|URL|-")]
    pub context: String,
    /// Dockerfile (default PATH/Dockerfile; - for standard input)
    #[arg(help_heading = BUILD, short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// Stage to build
    #[arg(help_heading = BUILD, long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Name of the image, name[:tag]
    #[arg(help_heading = OUTPUT, short, long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// Value of an ARG; without =value it is taken from the environment
    #[arg(help_heading = BUILD, long, value_name = "KEY[=VALUE]")]
    pub build_arg: Vec<String>,
    /// More contexts: a folder, URL, docker-image://, oci-layout:// or target
    #[arg(help_heading = BUILD, long, value_name = "NAME=SOURCE")]
    pub build_context: Vec<String>,
    /// Platforms to build for
    #[arg(help_heading = BUILD, long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Run every step again
    #[arg(help_heading = CACHE, long)]
    pub no_cache: bool,
    /// Run the steps of these stages again
    #[arg(help_heading = CACHE, long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Where cached steps may come from: a reference or type=…
    #[arg(help_heading = CACHE, long, value_name = "SPEC")]
    pub cache_from: Vec<String>,
    /// Where cached steps go: a reference or type=…
    #[arg(help_heading = CACHE, long, value_name = "SPEC")]
    pub cache_to: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]
    #[arg(help_heading = SECURITY, long, value_name = "SPEC")]
    pub secret: Vec<String>,
    /// Agent for RUN --mount=type=ssh: default|ID[=SOCKET]
    #[arg(help_heading = SECURITY, long, value_name = "SPEC")]
    pub ssh: Vec<String>,
    /// What to do with the result
    #[arg(help_heading = OUTPUT, short, long, value_name = "SPEC")]
    pub output: Vec<String>,
    /// How progress is shown
    #[arg(help_heading = OUTPUT, long,
        value_enum,
        default_value_t,
        env = "BUILDKIT_PROGRESS",
        value_name = "MODE"
    )]
    pub progress: ProgressMode,
    /// Only print the image's id
    #[arg(help_heading = OUTPUT, short, long)]
    pub quiet: bool,
    /// Write what the build says about its result to this file
    #[arg(help_heading = OUTPUT, long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Write the image's id to this file
    #[arg(help_heading = OUTPUT, long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Send the image to its registry
    #[arg(help_heading = OUTPUT, long)]
    pub push: bool,
    /// Give the image to docker
    #[arg(help_heading = OUTPUT, long)]
    pub load: bool,
    /// Label of the image
    #[arg(help_heading = BUILD, long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Annotation of the image
    #[arg(help_heading = BUILD, long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Network of RUN steps: default, none or host
    #[arg(help_heading = BUILD, long, value_name = "MODE")]
    pub network: Option<String>,
    /// What steps may do: network.host, security.insecure
    #[arg(help_heading = SECURITY, long, value_name = "NAME", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// Container that runs beside the build, for its steps: daemons refuse it so far
    #[arg(help_heading = BUILD, long, value_name = "NAME=IMAGE")]
    pub service: Vec<String>,
    /// More lines of /etc/hosts
    #[arg(help_heading = BUILD, long, value_name = "HOST:IP")]
    pub add_host: Vec<String>,
    /// Size of /dev/shm
    #[arg(help_heading = BUILD, long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Limits of RUN steps: name=soft[:hard]
    #[arg(help_heading = BUILD, long, value_name = "SPEC")]
    pub ulimit: Vec<String>,
    /// Parent cgroup of RUN steps
    #[arg(help_heading = BUILD, long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// Always ask registries for newer base images
    #[arg(help_heading = BUILD, long)]
    pub pull: bool,
    /// Provenance attestation: true, false or mode=min|max
    #[arg(help_heading = OUTPUT, long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub provenance: Option<String>,
    /// SBOM attestation: true, false or generator=IMAGE
    #[arg(help_heading = OUTPUT, long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub sbom: Option<String>,
    /// What to ask of the Dockerfile in the place of a build: build, check, outline or targets
    #[arg(help_heading = BUILD, long, value_name = "METHOD")]
    pub call: Option<String>,
    /// Check the Dockerfile (--call=check)
    #[arg(help_heading = BUILD, long, conflicts_with = "call")]
    pub check: bool,
    /// Option of the frontend
    #[arg(help_heading = BUILD, long, value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    pub builder: Option<String>,
    /// Accepted for docker's sake
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub rm: Option<String>,
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    pub force_rm: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The help of `rbuild`, or of one of its commands.
    fn help(command: Option<&str>) -> String {
        let mut program = Cli::command();
        program.build();
        let program = match command {
            Some(name) => program.find_subcommand_mut(name).expect("a command"),
            None => &mut program,
        };
        program.render_long_help().to_string()
    }

    #[test]
    fn the_help_opens_with_what_the_program_is_for() {
        let help = help(None);
        assert!(help.starts_with("Builds container images"), "{help}");
    }

    #[test]
    fn every_flag_of_build_is_in_a_group_and_the_connection_comes_last() {
        let help = help(Some("build"));
        let places: Vec<usize> = [BUILD, OUTPUT, CACHE, SECURITY, CONNECTION]
            .iter()
            .map(|heading| help.find(&format!("\n{heading}:")).expect("a heading"))
            .collect();
        assert!(places.is_sorted(), "{help}");
        let connection = &help[places[4]..];
        for flag in [
            "--addr",
            "--tlscacert",
            "--tlscert",
            "--tlskey",
            "--tlsdir",
            "--tlsservername",
        ] {
            let place = help.find(&format!("{flag} <")).expect("a flag");
            assert!(place > places[4], "{flag} is not in {connection}");
        }
        let mut program = Cli::command();
        program.build();
        let build = program.find_subcommand("build").expect("a command");
        let ungrouped: Vec<&str> = build
            .get_arguments()
            .filter(|arg| arg.get_help_heading().is_none() && !arg.is_hide_set())
            .filter_map(|arg| arg.get_long())
            .collect();
        assert_eq!(ungrouped, ["debug", "help"]);
    }
}
