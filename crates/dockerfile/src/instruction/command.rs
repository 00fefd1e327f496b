//! The typed commands, and the late expansion of their words.

use super::{Device, InstructionError, Mount};
use crate::shell::ShellError;
use crate::syntax::Range;

/// Turns one word into its expanded form.
pub type Expander<'a> = dyn FnMut(&str) -> Result<String, ShellError> + 'a;

/// A command and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Where it was written, and how.
    pub origin: Origin,
    /// The parsed command.
    pub command: Command,
}

/// The place of a command in the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The instruction's name as it was written.
    pub name: String,
    /// The logical line, continuations joined and outer white space gone.
    pub code: String,
    /// One range per source line, heredoc bodies included.
    pub ranges: Vec<Range>,
    /// The comments directly above.
    pub comments: Vec<String>,
}

/// A command of a build stage. `FROM` opens a [`super::Stage`] instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Arg),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Env),
    /// `EXPOSE`
    Expose(Expose),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Label),
    /// `MAINTAINER`
    Maintainer(Maintainer),
    /// `ONBUILD`
    Onbuild(Onbuild),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Shell),
    /// `STOPSIGNAL`
    StopSignal(StopSignal),
    /// `USER`
    User(User),
    /// `VOLUME`
    Volume(Volume),
    /// `WORKDIR`
    Workdir(Workdir),
}

/// A key and its value, in source order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Written as `key value`, without `=`.
    pub no_delim: bool,
}

impl Pair {
    /// Returns `key=value`.
    pub fn joined(&self) -> String {
        format!("{}={}", self.key, self.value)
    }
}

/// An `ARG` and its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgPair {
    /// The name.
    pub key: String,
    /// The default, if one was given; `name=` gives an empty one.
    pub value: Option<String>,
    /// The comment that describes this argument, without its name.
    pub doc_comment: String,
}

/// `ENV key=value…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    /// Keys and values in the order in which they were written.
    pub pairs: Vec<Pair>,
}

/// `LABEL key=value…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Keys and values in the order in which they were written.
    pub pairs: Vec<Pair>,
    /// The label comes from a build option, not from the file: variables in it are not replaced.
    pub no_expand: bool,
}

impl Label {
    /// Builds the instruction for a label that comes from a build option and is not expanded.
    pub fn literal(key: &str, value: &str) -> Instruction {
        let pair = Pair {
            key: key.to_owned(),
            value: value.to_owned(),
            no_delim: false,
        };
        let origin = Origin {
            name: "label".to_owned(),
            code: format!("LABEL {}", pair.joined()),
            ..Origin::default()
        };
        Instruction {
            origin,
            command: Command::Label(Self {
                pairs: vec![pair],
                no_expand: true,
            }),
        }
    }
}

/// `MAINTAINER name`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintainer {
    /// Name of the maintainer.
    pub maintainer: String,
}

/// A heredoc used as a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceContent {
    /// The heredoc's name, which becomes the file's name.
    pub path: String,
    /// The contents, tabs already cut when the heredoc asked for it.
    pub data: String,
    /// The heredoc's name was not quoted: variables in the contents are replaced.
    pub expand: bool,
}

/// Sources and destination of `ADD` and `COPY`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourcesAndDest {
    /// The destination.
    pub dest: String,
    /// Sources that are paths or URLs.
    pub paths: Vec<String>,
    /// Sources that are heredocs.
    pub contents: Vec<SourceContent>,
}

/// `ADD sources… dest`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Add {
    /// Sources and destination.
    pub files: SourcesAndDest,
    /// `--chown`
    pub chown: String,
    /// `--chmod`
    pub chmod: String,
    /// `--link`
    pub link: bool,
    /// `--exclude`, each
    pub exclude: Vec<String>,
    /// `--keep-git-dir`, when given
    pub keep_git_dir: Option<bool>,
    /// `--checksum`
    pub checksum: String,
    /// `--unpack`, when given
    pub unpack: Option<bool>,
}

/// `COPY sources… dest`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// Sources and destination.
    pub files: SourcesAndDest,
    /// `--from`
    pub from: String,
    /// `--chown`
    pub chown: String,
    /// `--chmod`
    pub chmod: String,
    /// `--link`
    pub link: bool,
    /// `--exclude`, each
    pub exclude: Vec<String>,
    /// `--parents`
    pub parents: bool,
}

/// `ONBUILD instruction`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The instruction to run later, heredoc bodies included.
    pub expression: String,
}

/// `WORKDIR path`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workdir {
    /// The path.
    pub path: String,
}

/// A heredoc handed to a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// The heredoc's name.
    pub name: String,
    /// The contents, untouched.
    pub data: String,
    /// `<<-`: leading tabs are to be cut.
    pub chomp: bool,
}

/// A command line, in exec or in shell form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The arguments; in shell form one string.
    pub args: Vec<String>,
    /// Heredocs.
    pub files: Vec<InlineFile>,
    /// Shell form: the stage's shell goes in front.
    pub prepend_shell: bool,
}

/// `RUN --network`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// A network of the step's own.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's.
    Host,
}

/// `RUN --security`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecurityMode {
    /// Confined.
    #[default]
    Sandbox,
    /// Privileged; needs an entitlement.
    Insecure,
}

/// `RUN command`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// The command line that runs.
    pub line: CommandLine,
    /// The mounts. Before [`Command::expand`] only what needs no variables is filled in.
    pub mounts: Vec<Mount>,
    /// The mounts as they were written.
    pub mount_words: Vec<String>,
    /// `--device`, each
    pub devices: Vec<Device>,
    /// `--network`
    pub network: NetworkMode,
    /// `--security`
    pub security: SecurityMode,
    /// Names of the flags that were given, sorted.
    pub flags_used: Vec<String>,
}

/// `HEALTHCHECK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// The check.
    pub config: HealthcheckConfig,
}

/// A health check. Times are in nanoseconds, zero means inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthcheckConfig {
    /// `["NONE"]`, `["CMD", args…]` or `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// `--interval`
    pub interval: i64,
    /// `--timeout`
    pub timeout: i64,
    /// `--start-period`
    pub start_period: i64,
    /// `--start-interval`
    pub start_interval: i64,
    /// `--retries`
    pub retries: i32,
}

/// `EXPOSE ports…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expose {
    /// The ports, sorted as text, unexpanded.
    pub ports: Vec<String>,
}

/// `USER user`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub user: String,
}

/// `VOLUME paths…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The paths.
    pub volumes: Vec<String>,
}

/// `STOPSIGNAL signal`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopSignal {
    /// The signal.
    pub signal: String,
}

impl StopSignal {
    /// Refuses the target systems that have no signals.
    pub fn check_platform(&self, os: &str) -> Result<(), InstructionError> {
        if os == "windows" {
            Err(InstructionError::StopSignalOnWindows)
        } else {
            Ok(())
        }
    }
}

/// `ARG name[=default]…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// The arguments.
    pub args: Vec<ArgPair>,
    /// Where it was written; kept here too because arguments also stand outside of stages.
    pub origin: Origin,
}

/// `SHELL ["program", "args"…]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// The shell.
    pub shell: Vec<String>,
}

fn expand_word(word: &mut String, expander: &mut Expander<'_>) -> Result<(), InstructionError> {
    *word = expander(word)?;
    Ok(())
}

fn expand_words(words: &mut [String], expander: &mut Expander<'_>) -> Result<(), InstructionError> {
    words
        .iter_mut()
        .try_for_each(|word| expand_word(word, expander))
}

fn expand_pairs(pairs: &mut [Pair], expander: &mut Expander<'_>) -> Result<(), InstructionError> {
    for pair in pairs {
        expand_word(&mut pair.key, expander)?;
        expand_word(&mut pair.value, expander)?;
    }
    Ok(())
}

impl SourcesAndDest {
    fn expand(&mut self, expander: &mut Expander<'_>) -> Result<(), InstructionError> {
        expand_words(&mut self.paths, expander)?;
        expand_word(&mut self.dest, expander)
    }

    /// Expands the heredocs among the sources; the expander must keep quotes and escapes.
    pub fn expand_raw(&mut self, expander: &mut Expander<'_>) -> Result<(), InstructionError> {
        for content in self.contents.iter_mut().filter(|content| content.expand) {
            expand_word(&mut content.data, expander)?;
        }
        Ok(())
    }
}

impl Arg {
    /// Replaces variables in names and defaults.
    pub fn expand(&mut self, expander: &mut Expander<'_>) -> Result<(), InstructionError> {
        for arg in &mut self.args {
            expand_word(&mut arg.key, expander)?;
            if let Some(value) = &mut arg.value {
                expand_word(value, expander)?;
            }
        }
        Ok(())
    }
}

impl Run {
    /// Parses the mounts again, now with variables.
    pub fn expand(&mut self, expander: &mut Expander<'_>) -> Result<(), InstructionError> {
        self.mounts = self
            .mount_words
            .iter()
            .map(|word| Mount::expanded(word, expander))
            .collect::<Result<_, _>>()?;
        Ok(())
    }
}

impl Command {
    /// Returns the instruction's name in lower case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Arg(_) => "arg",
            Self::Cmd(_) => "cmd",
            Self::Copy(_) => "copy",
            Self::Entrypoint(_) => "entrypoint",
            Self::Env(_) => "env",
            Self::Expose(_) => "expose",
            Self::Healthcheck(_) => "healthcheck",
            Self::Label(_) => "label",
            Self::Maintainer(_) => "maintainer",
            Self::Onbuild(_) => "onbuild",
            Self::Run(_) => "run",
            Self::Shell(_) => "shell",
            Self::StopSignal(_) => "stopsignal",
            Self::User(_) => "user",
            Self::Volume(_) => "volume",
            Self::Workdir(_) => "workdir",
        }
    }

    /// Replaces variables in the words of a command that supports it.
    ///
    /// `CMD`, `ENTRYPOINT`, `SHELL`, `HEALTHCHECK`, `MAINTAINER`, `ONBUILD` take their words literally, `RUN` leaves its
    /// command line to the shell, and `EXPOSE` splits after expansion, which is left to the caller.
    pub fn expand(&mut self, expander: &mut Expander<'_>) -> Result<(), InstructionError> {
        match self {
            Self::Add(add) => {
                expand_word(&mut add.chown, expander)?;
                expand_word(&mut add.chmod, expander)?;
                expand_word(&mut add.checksum, expander)?;
                add.files.expand(expander)
            }
            Self::Copy(copy) => {
                expand_word(&mut copy.chown, expander)?;
                expand_word(&mut copy.chmod, expander)?;
                copy.files.expand(expander)
            }
            Self::Arg(arg) => arg.expand(expander),
            Self::Env(env) => expand_pairs(&mut env.pairs, expander),
            Self::Label(label) if label.no_expand => Ok(()),
            Self::Label(label) => expand_pairs(&mut label.pairs, expander),
            Self::Run(run) => run.expand(expander),
            Self::StopSignal(stop) => expand_word(&mut stop.signal, expander),
            Self::User(user) => expand_word(&mut user.user, expander),
            Self::Volume(volume) => expand_words(&mut volume.volumes, expander),
            Self::Workdir(workdir) => expand_word(&mut workdir.path, expander),
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Expose(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Shell(_) => Ok(()),
        }
    }

    /// Replaces variables in heredoc contents, keeping quotes and escapes.
    pub fn expand_raw(&mut self, expander: &mut Expander<'_>) -> Result<(), InstructionError> {
        match self {
            Self::Add(add) => add.files.expand_raw(expander),
            Self::Copy(copy) => copy.files.expand_raw(expander),
            Self::Arg(_)
            | Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Env(_)
            | Self::Expose(_)
            | Self::Healthcheck(_)
            | Self::Label(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Run(_)
            | Self::Shell(_)
            | Self::StopSignal(_)
            | Self::User(_)
            | Self::Volume(_)
            | Self::Workdir(_) => Ok(()),
        }
    }
}
