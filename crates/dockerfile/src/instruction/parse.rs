//! The tree to stages.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::command::{
    Add, Arg, ArgPair, Command, CommandLine, Copy, Env, Expose, Healthcheck, HealthcheckConfig,
    InlineFile, Instruction, Label, Maintainer, NetworkMode, Onbuild, Origin, Pair, Run,
    SecurityMode, Shell, SourceContent, SourcesAndDest, StopSignal, User, Volume, Workdir,
};
use super::flag::{Flags, Kind};
use super::number::int32;
use super::{Device, InstructionError, Mount, NAMES, ParseError, Stage};
use crate::lint::{Finding, Linter};
use crate::suggest::nearest;
use crate::syntax::{Heredoc, Node, chomp, parse_heredoc};

/// An instruction, or the start of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A `FROM`.
    Stage(Stage),
    /// An instruction of a stage.
    Instruction(Instruction),
}

type Checked<T> = Result<T, InstructionError>;

/// Parses a file's tree into its stages and the arguments in front of the first.
pub fn parse(root: &Node, linter: &Linter) -> Result<(Vec<Stage>, Vec<Arg>), ParseError> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut meta_args = Vec::new();
    for node in &root.children {
        let parsed = parse_instruction(node, linter).map_err(|error| ParseError {
            line: Some(node.start_line),
            ..error
        })?;
        match (parsed, stages.last_mut()) {
            (Parsed::Stage(stage), _) => stages.push(stage),
            (
                Parsed::Instruction(Instruction {
                    command: Command::Arg(arg),
                    ..
                }),
                None,
            ) => meta_args.push(arg),
            (Parsed::Instruction(instruction), Some(stage)) => stage.commands.push(instruction),
            (Parsed::Instruction(_), None) => {
                return Err(ParseError {
                    line: None,
                    reason: InstructionError::NoStage,
                    ranges: node.ranges(),
                });
            }
        }
    }
    Ok((stages, meta_args))
}

/// Parses one instruction. The error's text does not name the line.
pub fn parse_instruction(node: &Node, linter: &Linter) -> Result<Parsed, ParseError> {
    let linter = linter.with_comments(&node.comments);
    for carriage_return in &node.carriage_returns {
        let heredoc = carriage_return.heredoc.clone();
        linter.report(Finding::CarriageReturn { heredoc }, &carriage_return.ranges);
    }
    let request = Request {
        args: node.words(),
        node,
    };
    let origin = Origin {
        name: node.value.clone(),
        code: node.original.trim().to_owned(),
        ranges: node.ranges(),
        comments: node.comments.clone(),
    };
    let result = if node.value.eq_ignore_ascii_case("from") {
        request.lint_from(&linter);
        request.from(origin).map(Parsed::Stage)
    } else {
        request
            .command(&origin, &linter)
            .map(|command| Parsed::Instruction(Instruction { origin, command }))
    };
    let parsed = result.map_err(|reason| ParseError {
        line: None,
        reason,
        ranges: node.ranges(),
    })?;
    match &parsed {
        Parsed::Stage(stage) if !stage.name.is_empty() => {
            request.lint_description("FROM", &[stage.name.as_str()], &linter)
        }
        Parsed::Instruction(Instruction {
            command: Command::Arg(arg),
            ..
        }) => {
            let names: Vec<&str> = arg.args.iter().map(|arg| arg.key.as_str()).collect();
            request.lint_description("ARG", &names, &linter);
        }
        Parsed::Stage(_) | Parsed::Instruction(_) => {}
    }
    Ok(parsed)
}

struct Request<'a> {
    node: &'a Node,
    args: Vec<String>,
}

impl Request<'_> {
    fn command(&self, origin: &Origin, linter: &Linter) -> Checked<Command> {
        Ok(match self.node.value.to_lowercase().as_str() {
            "add" => Command::Add(self.add()?),
            "arg" => Command::Arg(self.arg(origin)?),
            "cmd" => Command::Cmd(self.plain_flags().map(|()| self.command_line())?),
            "copy" => Command::Copy(self.copy()?),
            "entrypoint" => Command::Entrypoint(self.plain_flags().map(|()| self.command_line())?),
            "env" => Command::Env(Env {
                pairs: self.pairs("ENV")?,
            }),
            "expose" => Command::Expose(self.expose()?),
            "healthcheck" => Command::Healthcheck(self.healthcheck()?),
            "label" => Command::Label(Label {
                pairs: self.pairs("LABEL")?,
                no_expand: false,
            }),
            "maintainer" => {
                linter.report(Finding::MaintainerDeprecated, &origin.ranges);
                Command::Maintainer(Maintainer {
                    maintainer: self.one_word("MAINTAINER", true)?,
                })
            }
            "onbuild" => Command::Onbuild(self.onbuild()?),
            "run" => Command::Run(self.run()?),
            "shell" => Command::Shell(self.shell()?),
            "stopsignal" => Command::StopSignal(StopSignal {
                signal: self.one_word("STOPSIGNAL", false)?,
            }),
            "user" => Command::User(User {
                user: self.one_word("USER", true)?,
            }),
            "volume" => Command::Volume(self.volume()?),
            "workdir" => Command::Workdir(Workdir {
                path: self.one_word("WORKDIR", true)?,
            }),
            _ => {
                let name = self.node.value.clone();
                return Err(InstructionError::UnknownInstruction {
                    near: nearest(&name, NAMES, false),
                    name,
                });
            }
        })
    }

    fn flags(&self, known: &[(&'static str, Kind)]) -> Checked<Flags> {
        Flags::parse(&self.node.flags, known)
    }

    /// Refuses all flags.
    fn plain_flags(&self) -> Checked<()> {
        self.flags(&[]).map(|_| ())
    }

    fn one_word(&self, name: &'static str, check_flags: bool) -> Checked<String> {
        let [word] = self.args.as_slice() else {
            return Err(InstructionError::ExactlyOneArgument(name));
        };
        if check_flags {
            self.plain_flags()?;
        }
        Ok(word.clone())
    }

    fn some_words(&self, name: &'static str) -> Checked<()> {
        if self.args.is_empty() {
            Err(InstructionError::AtLeastOneArgument(name))
        } else {
            Ok(())
        }
    }

    fn pairs(&self, name: &'static str) -> Checked<Vec<Pair>> {
        self.plain_flags()?;
        self.some_words(name)?;
        let (groups, rest) = self.args.as_chunks::<3>();
        if !rest.is_empty() {
            return Err(InstructionError::TooManyArguments(name));
        }
        let pair = |[key, value, delim]: &[String; 3]| {
            if key.is_empty() {
                return Err(InstructionError::BlankName(name));
            }
            Ok(Pair {
                key: key.clone(),
                value: value.clone(),
                no_delim: delim.is_empty(),
            })
        };
        groups.iter().map(pair).collect()
    }

    fn from(&self, origin: Origin) -> Checked<Stage> {
        static NAME: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new("^[a-z][a-z0-9-_.]*$").expect("the pattern is well formed")
        });
        let (base_name, name) = match self.args.as_slice() {
            [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
                let lower = name.to_lowercase();
                if !NAME.is_match(&lower) {
                    return Err(InstructionError::InvalidStageName(name.clone()));
                }
                (base, lower)
            }
            [base] => (base, String::new()),
            _ => return Err(InstructionError::FromArguments),
        };
        let flags = self.flags(&[("platform", Kind::Text)])?;
        let doc_comment = doc_comment(&self.node.comments, &name);
        Ok(Stage {
            name,
            base_name: base_name.clone(),
            platform: flags.text("platform"),
            commands: Vec::new(),
            doc_comment,
            origin,
        })
    }

    fn sources_and_dest(&self, name: &'static str) -> Checked<SourcesAndDest> {
        let Some((dest, sources)) = self.args.split_last() else {
            return Err(InstructionError::NoDestination(name));
        };
        if heredoc(dest).is_some() {
            return Err(InstructionError::HeredocDestination(name));
        }
        let mut files = SourcesAndDest {
            dest: dest.clone(),
            ..SourcesAndDest::default()
        };
        let bodies: HashMap<&str, &str> = self
            .node
            .heredocs
            .iter()
            .map(|body| (body.name.as_str(), body.content.as_str()))
            .collect();
        for source in sources {
            let Some(heredoc) = heredoc(source) else {
                files.paths.push(source.clone());
                continue;
            };
            let body = bodies
                .get(heredoc.name.as_str())
                .copied()
                .unwrap_or_default();
            let data = if heredoc.chomp {
                chomp(body)
            } else {
                body.to_owned()
            };
            files.contents.push(SourceContent {
                path: heredoc.name,
                data,
                expand: heredoc.expand,
            });
        }
        Ok(files)
    }

    fn add(&self) -> Checked<Add> {
        if self.args.len() < 2 {
            return Err(InstructionError::NoDestination("ADD"));
        }
        let flags = self.flags(&[
            ("chown", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("keep-git-dir", Kind::Bool),
            ("checksum", Kind::Text),
            ("unpack", Kind::Bool),
            ("exclude", Kind::List),
        ])?;
        Ok(Add {
            files: self.sources_and_dest("ADD")?,
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.bool("link").unwrap_or_default(),
            exclude: flags.list("exclude"),
            keep_git_dir: flags.bool("keep-git-dir"),
            checksum: flags.text("checksum"),
            unpack: flags.bool("unpack"),
        })
    }

    fn copy(&self) -> Checked<Copy> {
        if self.args.len() < 2 {
            return Err(InstructionError::NoDestination("COPY"));
        }
        let flags = self.flags(&[
            ("chown", Kind::Text),
            ("from", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("exclude", Kind::List),
            ("parents", Kind::Bool),
        ])?;
        Ok(Copy {
            files: self.sources_and_dest("COPY")?,
            from: flags.text("from"),
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.bool("link").unwrap_or_default(),
            exclude: flags.list("exclude"),
            parents: flags.bool("parents").unwrap_or_default(),
        })
    }

    fn onbuild(&self) -> Checked<Onbuild> {
        self.some_words("ONBUILD")?;
        self.plain_flags()?;
        let trigger = self
            .args
            .first()
            .map(|word| word.trim().to_uppercase())
            .unwrap_or_default();
        match trigger.as_str() {
            "ONBUILD" => return Err(InstructionError::ChainedOnbuild),
            "MAINTAINER" | "FROM" => return Err(InstructionError::OnbuildTrigger(trigger)),
            _ => {}
        }
        let line = self.node.original.trim_start();
        let mut expression = line
            .get("ONBUILD".len()..)
            .unwrap_or_default()
            .trim_start()
            .to_owned();
        for heredoc in &self.node.heredocs {
            expression.push('\n');
            expression.push_str(&heredoc.content);
            expression.push_str(&heredoc.name);
        }
        Ok(Onbuild { expression })
    }

    /// In shell form the words are one string again; they were cut at blanks only where the syntax says so.
    fn json_args(&self, args: &[String]) -> Vec<String> {
        if args.is_empty() || self.node.json {
            args.to_vec()
        } else {
            vec![args.join(" ")]
        }
    }

    fn command_line(&self) -> CommandLine {
        let file = |heredoc: &Heredoc| InlineFile {
            name: heredoc.name.clone(),
            data: heredoc.content.clone(),
            chomp: heredoc.chomp,
        };
        CommandLine {
            args: self.json_args(&self.args),
            files: self.node.heredocs.iter().map(file).collect(),
            prepend_shell: !self.node.json,
        }
    }

    fn run(&self) -> Checked<Run> {
        let flags = self.flags(&[
            ("mount", Kind::List),
            ("network", Kind::Text),
            ("security", Kind::Text),
            ("device", Kind::List),
        ])?;
        // The order of the checks decides which of several errors is told; BuildKit's is device, mount, network, security.
        let devices = flags
            .list("device")
            .iter()
            .map(|word| Device::parse(word))
            .collect::<Checked<_>>()?;
        let mount_words = flags.list("mount");
        let mounts = mount_words
            .iter()
            .map(|word| Mount::deferred(word))
            .collect::<Checked<_>>()?;
        let used = flags.used();
        let value_of = |name: &str| {
            used.iter()
                .any(|used| used == name)
                .then(|| flags.text(name))
        };
        let network = match value_of("network").as_deref() {
            None | Some("default") => NetworkMode::Default,
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            Some(mode) => return Err(InstructionError::NetworkMode(mode.to_owned())),
        };
        let security = match value_of("security").as_deref() {
            None | Some("sandbox") => SecurityMode::Sandbox,
            Some("insecure") => SecurityMode::Insecure,
            Some(mode) => return Err(InstructionError::SecurityMode(mode.to_owned())),
        };
        Ok(Run {
            line: self.command_line(),
            mounts,
            mount_words,
            devices,
            network,
            security,
            flags_used: used,
        })
    }

    fn healthcheck(&self) -> Checked<Healthcheck> {
        let Some((kind, args)) = self.args.split_first() else {
            return Err(InstructionError::AtLeastOneArgument("HEALTHCHECK"));
        };
        let kind = kind.to_uppercase();
        if kind == "NONE" {
            if !args.is_empty() {
                return Err(InstructionError::HealthcheckNone);
            }
            return Ok(Healthcheck {
                config: HealthcheckConfig {
                    test: vec![kind],
                    ..HealthcheckConfig::default()
                },
            });
        }
        let flags = self.flags(&[
            ("interval", Kind::Text),
            ("timeout", Kind::Text),
            ("start-period", Kind::Text),
            ("start-interval", Kind::Text),
            ("retries", Kind::Text),
        ])?;
        if kind != "CMD" {
            return Err(InstructionError::HealthcheckType(kind));
        }
        let args = self.json_args(args);
        if args.is_empty() {
            return Err(InstructionError::HealthcheckWithoutCommand);
        }
        let mut test = vec![if self.node.json {
            kind
        } else {
            "CMD-SHELL".to_owned()
        }];
        test.extend(args);
        let config = HealthcheckConfig {
            test,
            interval: interval(&flags, "interval")?,
            timeout: interval(&flags, "timeout")?,
            start_period: interval(&flags, "start-period")?,
            start_interval: interval(&flags, "start-interval")?,
            retries: match flags.text("retries").as_str() {
                "" => 0,
                text => int32(text)?,
            },
        };
        if config.retries < 0 {
            return Err(InstructionError::NegativeRetries(config.retries.into()));
        }
        Ok(Healthcheck { config })
    }

    fn expose(&self) -> Checked<Expose> {
        self.some_words("EXPOSE")?;
        self.plain_flags()?;
        let mut ports = self.args.clone();
        ports.sort();
        Ok(Expose { ports })
    }

    fn volume(&self) -> Checked<Volume> {
        self.some_words("VOLUME")?;
        self.plain_flags()?;
        let volumes: Vec<String> = self
            .args
            .iter()
            .map(|word| word.trim().to_owned())
            .collect();
        if volumes.iter().any(String::is_empty) {
            return Err(InstructionError::EmptyVolume);
        }
        Ok(Volume { volumes })
    }

    fn arg(&self, origin: &Origin) -> Checked<Arg> {
        self.some_words("ARG")?;
        let pair = |word: &String| {
            let (key, value) = word
                .split_once('=')
                .map_or((word.as_str(), None), |(key, value)| {
                    (key, Some(value.to_owned()))
                });
            if key.is_empty() {
                return Err(InstructionError::BlankName("ARG"));
            }
            Ok(ArgPair {
                key: key.to_owned(),
                value,
                doc_comment: doc_comment(&self.node.comments, key),
            })
        };
        Ok(Arg {
            args: self.args.iter().map(pair).collect::<Checked<_>>()?,
            origin: origin.clone(),
        })
    }

    fn shell(&self) -> Checked<Shell> {
        self.plain_flags()?;
        self.some_words("SHELL")?;
        if !self.node.json {
            return Err(InstructionError::NotJson("SHELL"));
        }
        Ok(Shell {
            shell: self.args.clone(),
        })
    }

    fn lint_from(&self, linter: &Linter) {
        let ranges = self.node.ranges();
        let [_, keyword, name, rest @ ..] = self.args.as_slice() else {
            return;
        };
        if rest.is_empty() && *name != name.to_lowercase() {
            linter.report(Finding::StageNameCasing { name: name.clone() }, &ranges);
        }
        // Mixed case of the instruction itself is another rule's matter.
        let from = &self.node.value;
        let (lower, upper) = (*from == from.to_lowercase(), *from == from.to_uppercase());
        let matches = match (lower, upper) {
            (false, false) => true,
            (true, _) => *keyword == keyword.to_lowercase(),
            (false, true) => *keyword == keyword.to_uppercase(),
        };
        if !matches {
            linter.report(
                Finding::FromAsCasing {
                    from: from.clone(),
                    keyword: keyword.clone(),
                },
                &ranges,
            );
        }
    }

    fn lint_description(&self, instruction: &'static str, names: &[&str], linter: &Linter) {
        let (Some(comment), Some(first)) = (self.node.comments.last(), names.first()) else {
            return;
        };
        let word = comment.split(' ').next().unwrap_or_default();
        if names.contains(&word) {
            return;
        }
        let name = if names.len() > 1 { "<arg_key>" } else { first };
        linter.report(
            Finding::InvalidDefinitionDescription {
                instruction,
                name: name.to_owned(),
            },
            &self.node.ranges(),
        );
    }
}

/// A word that starts a heredoc. One that does not lex is a word like any other.
fn heredoc(word: &str) -> Option<Heredoc> {
    parse_heredoc(word).ok().flatten()
}

fn interval(flags: &Flags, name: &'static str) -> Checked<i64> {
    let text = flags.text(name);
    if text.is_empty() {
        return Ok(0);
    }
    let time = gostd::time::parse_duration(&text)?;
    if time != 0 && time < 1_000_000 {
        return Err(InstructionError::IntervalTooShort(name));
    }
    Ok(time)
}

fn doc_comment(comments: &[String], name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    comments
        .iter()
        .find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_default()
        .to_owned()
}
