//! Commands, one after the other, on the state and image of their stage.

use llb::build::{Chown, Constraints, Env, FileChain};
use llb::pb;
use oci::{Healthcheck, History};

use super::error::{LowerError, LowerErrorKind};
use super::graph::{Lowering, NON_ENV_ARGS};
use super::name;
use super::path::PathRules;
use super::reach::ENV_ENTRY_BYTES;
use super::stage::{ArgInfo, Step};
use gostd::Timestamp;
use gostd::strconv::quote_list;
use gostd::time::format_duration;

use super::text::{plain_list, uppercase_command};
use crate::check;
use crate::instruction::{self, Command, CommandLine, HealthcheckConfig, Instruction, Origin};
use crate::lint::{Finding, Linter};
use crate::shell::{Lexer, ShellError};
use crate::syntax::Range;

/// The note in history entries made by this frontend; clients look for it.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// The wire form of places in the file.
pub(crate) fn wire_ranges(ranges: &[Range]) -> Vec<pb::Range> {
    let position = |position: crate::syntax::Position| pb::Position {
        line: i32::try_from(position.line).unwrap_or(i32::MAX),
        character: i32::try_from(position.character).unwrap_or(i32::MAX),
    };
    ranges
        .iter()
        .map(|range| pb::Range {
            start: Some(position(range.start)),
            end: Some(position(range.end)),
        })
        .collect()
}

impl Lowering<'_> {
    /// Sets a stage up from the image it starts with.
    pub(crate) fn prepare(&mut self, at: usize) -> Result<(), LowerError> {
        let target = self.platforms.target.clone();
        let stage = &mut self.stages[at];
        let os = stage.platform.get_or_insert(target).os.clone();
        let has_path = stage
            .image
            .config
            .env
            .iter()
            .any(|entry| entry == "PATH" || entry.starts_with("PATH="));
        if !has_path && os != "windows" {
            stage
                .image
                .config
                .env
                .push(format!("PATH={}", llb::build::exec::default_path(&os)));
        }
        for variable in &stage.image.config.env {
            let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
            stage.state = stage.state.add_env(key, value);
        }
        if !self.options.hostname.is_empty() {
            stage.state = stage.state.hostname(&self.options.hostname);
        }
        let (dir, user) = (
            stage.image.config.working_dir.clone(),
            stage.image.config.user.clone(),
        );
        if !dir.is_empty() {
            self.set_dir(at, &dir)?;
        }
        let stage = &mut self.stages[at];
        if !user.is_empty() {
            stage.state = stage.state.user(&user);
        }
        stage.state = stage.state.network(self.options.network);
        Ok(())
    }

    /// Runs one command.
    pub(crate) fn dispatch(&mut self, at: usize, step: Step) -> Result<(), LowerError> {
        let Step {
            mut instruction,
            sources,
            on_build,
        } = step;
        let lint = if self.stages[at].silent {
            Linter::silent()
        } else {
            self.lint.with_comments(&instruction.origin.comments)
        };
        self.stages[at].cmd_is_onbuild = on_build;
        self.expand(at, &mut instruction, &lint)?;
        let Instruction { origin, command } = instruction;
        match command {
            Command::Maintainer(maintainer) => {
                self.stages[at]
                    .image
                    .author
                    .clone_from(&maintainer.maintainer);
                self.commit(at, format!("MAINTAINER {}", maintainer.maintainer), false);
            }
            Command::Env(env) => {
                check::legacy_pairs(&origin, &env.pairs, &lint);
                let mut message = String::from("ENV");
                for pair in &env.pairs {
                    check::secret_name("ENV", &pair.key, &origin.ranges, &lint);
                    message.push(' ');
                    message.push_str(&pair.joined());
                    let stage = &mut self.stages[at];
                    stage.state = stage.state.add_env(&pair.key, &pair.value);
                    stage.set_env(&pair.key, &pair.value);
                }
                self.commit(at, message, false);
            }
            Command::Run(run) => self.run_step(at, &origin, run, &sources)?,
            Command::Workdir(workdir) => self.workdir(at, &origin, &workdir.path, &lint)?,
            Command::Add(add) => self.add_step(at, &origin, add, &lint)?,
            Command::Copy(copy) => self.copy_step(at, &origin, copy, &sources, &lint)?,
            Command::Label(label) => {
                check::legacy_pairs(&origin, &label.pairs, &lint);
                let mut message = String::from("LABEL");
                for pair in label.pairs {
                    message.push(' ');
                    message.push_str(&pair.joined());
                    self.stages[at]
                        .image
                        .config
                        .labels
                        .insert(pair.key, pair.value);
                }
                self.commit(at, message, false);
            }
            Command::Onbuild(onbuild) => self.stages[at]
                .image
                .config
                .on_build
                .push(onbuild.expression),
            Command::Cmd(line) => {
                self.stages[at].cmd.mark(&origin, &lint);
                self.stages[at].cmd_set = true;
                let args = self.command_line(at, &origin, line, &lint);
                let message = format!("CMD {}", quote_list(&args));
                let config = &mut self.stages[at].image.config;
                config.cmd = args;
                config.args_escaped = true;
                self.commit(at, message, false);
            }
            Command::Entrypoint(line) => {
                self.stages[at].entrypoint.mark(&origin, &lint);
                let args = self.command_line(at, &origin, line, &lint);
                let message = format!("ENTRYPOINT {}", quote_list(&args));
                let stage = &mut self.stages[at];
                stage.image.config.entrypoint = args;
                if !stage.cmd_set {
                    stage.image.config.cmd.clear();
                }
                self.commit(at, message, false);
            }
            Command::Healthcheck(check) => {
                self.stages[at].healthcheck.mark(&origin, &lint);
                let message = healthcheck_text(&check.config);
                self.stages[at].image.config.healthcheck = Some(Healthcheck {
                    test: check.config.test,
                    interval: check.config.interval,
                    timeout: check.config.timeout,
                    start_period: check.config.start_period,
                    start_interval: check.config.start_interval,
                    retries: i64::from(check.config.retries),
                });
                self.commit(at, message, false);
            }
            Command::Expose(expose) => self.expose(at, &origin, &expose.ports, &lint)?,
            Command::User(user) => {
                let stage = &mut self.stages[at];
                stage.state = stage.state.user(&user.user);
                stage.image.config.user.clone_from(&user.user);
                self.commit(at, format!("USER {}", user.user), false);
            }
            Command::Volume(volume) => {
                for path in &volume.volumes {
                    if path.is_empty() {
                        return Err(LowerErrorKind::EmptyVolume.into());
                    }
                    self.stages[at]
                        .image
                        .config
                        .volumes
                        .insert(path.clone(), oci::image::Empty {});
                }
                self.commit(at, format!("VOLUME {}", plain_list(&volume.volumes)), false);
            }
            Command::StopSignal(stop) => {
                if !is_signal(&stop.signal) {
                    return Err(LowerErrorKind::Signal(stop.signal).into());
                }
                self.stages[at]
                    .image
                    .config
                    .stop_signal
                    .clone_from(&stop.signal);
                self.commit(at, format!("STOPSIGNAL {}", stop.signal), false);
            }
            Command::Shell(shell) => {
                let message = format!("SHELL {}", plain_list(&shell.shell));
                self.stages[at].image.config.shell = shell.shell;
                self.commit(at, message, false);
            }
            Command::Arg(arg) => self.arg(at, &origin, arg, &lint)?,
        }
        Ok(())
    }

    /// Replaces variables in a command's words. `ARG` does so itself, since an option may win over its default.
    fn expand(
        &self,
        at: usize,
        instruction: &mut Instruction,
        lint: &Linter,
    ) -> Result<(), LowerError> {
        let env = self.stages[at].state.env().clone();
        let ranges = &instruction.origin.ranges;
        if !matches!(instruction.command, Command::Arg(_)) {
            instruction
                .command
                .expand(&mut |word| self.expanded(at, &self.lex, word, &env, ranges, lint))?;
        }
        let raw = Lexer {
            escape: '\\',
            skip_process_quotes: true,
            ..self.lex.clone()
        };
        instruction
            .command
            .expand_raw(&mut |word| self.expanded(at, &raw, word, &env, ranges, lint))?;
        Ok(())
    }

    /// Expands a word and reports what is not set, also when it does not expand.
    fn expanded(
        &self,
        at: usize,
        lex: &Lexer,
        word: &str,
        env: &Env,
        ranges: &[Range],
        lint: &Linter,
    ) -> Result<String, ShellError> {
        let processed = lex.process(word, env);
        let so_far = processed.as_ref().unwrap_or_else(|error| &error.so_far);
        self.undefined(at, &so_far.unmatched, env, ranges, lint);
        processed.map(|word| word.result)
    }

    fn undefined(
        &self,
        at: usize,
        unmatched: &std::collections::BTreeSet<String>,
        env: &Env,
        ranges: &[Range],
        lint: &Linter,
    ) {
        let declared = &self.stages[at].build_args;
        let is_known =
            |name: &str| NON_ENV_ARGS.contains(&name) || declared.iter().any(|arg| arg.key == name);
        check::undefined_vars(unmatched, env, is_known, ranges, lint);
    }

    /// Adds a history entry.
    ///
    /// DIFFERS: the reference writes user and password of an address into the image.
    pub(crate) fn commit(&mut self, at: usize, created_by: String, layer: bool) {
        let created_by = oci::address::redacted(created_by);
        let created = self
            .epoch
            .map(|seconds| Timestamp::from_seconds(seconds).to_string());
        self.note_copied(ENV_ENTRY_BYTES + created_by.len());
        self.stages[at].image.history.push(History {
            created,
            created_by,
            comment: HISTORY_COMMENT.into(),
            empty_layer: !layer,
            ..History::default()
        });
    }

    /// The text of a step for its name, variables replaced.
    pub(crate) fn shown(&self, lex: &Lexer, text: &str, env: &dyn crate::shell::Env) -> String {
        uppercase_command(
            &lex.process_word(text, env)
                .unwrap_or_else(|_| text.to_owned()),
        )
    }

    /// A constraint with name and place of a step.
    pub(crate) fn constraints(&self, name: String, origin: &Origin) -> Constraints {
        Constraints::named(name).at(
            self.options.source_map.as_ref(),
            wire_ranges(&origin.ranges),
        )
    }

    /// The shell in front of a shell-form command line.
    pub(crate) fn with_shell(&self, at: usize, args: &[String]) -> Vec<String> {
        let image = &self.stages[at].image;
        let mut line = if !image.config.shell.is_empty() {
            image.config.shell.clone()
        } else if image.platform.os == "windows" {
            ["cmd", "/S", "/C"].map(String::from).to_vec()
        } else {
            ["/bin/sh", "-c"].map(String::from).to_vec()
        };
        line.push(args.join(" "));
        line
    }

    fn command_line(
        &self,
        at: usize,
        origin: &Origin,
        line: CommandLine,
        lint: &Linter,
    ) -> Vec<String> {
        if !line.prepend_shell {
            return line.args;
        }
        if self.stages[at].image.config.shell.is_empty() {
            lint.report(
                Finding::JsonArgsRecommended {
                    instruction: origin.name.clone(),
                },
                &origin.ranges,
            );
        }
        self.with_shell(at, &line.args)
    }

    /// The rules for paths in a stage's image.
    pub(crate) fn path_rules(&self, at: usize) -> PathRules {
        let platform = self.stages[at].platform.as_ref();
        PathRules::of(&platform.unwrap_or(&self.platforms.target).os)
    }

    /// Sets the directory of image and state; gives it, with slashes.
    fn set_dir(&mut self, at: usize, path: &str) -> Result<String, LowerError> {
        let rules = self.path_rules(at);
        let stage = &mut self.stages[at];
        let dir = rules
            .absolute(&stage.image.config.working_dir, path, false)
            .map_err(LowerErrorKind::Workdir)?;
        // A Windows program is started in what the config says, which takes backslashes only.
        stage.image.config.working_dir = rules.native(&dir);
        let dir = rules.slashes(&dir).into_owned();
        stage.state = stage.state.dir(&dir);
        Ok(dir)
    }

    fn workdir(
        &mut self,
        at: usize,
        origin: &Origin,
        path: &str,
        lint: &Linter,
    ) -> Result<(), LowerError> {
        let rules = self.path_rules(at);
        let stage = &mut self.stages[at];
        if !stage.workdir_set && !rules.is_absolute(path) {
            lint.report(
                Finding::WorkdirRelativePath {
                    path: path.to_owned(),
                },
                &origin.ranges,
            );
        }
        stage.workdir_set = true;
        let dir = self.set_dir(at, path)?;
        let mut layer = false;
        if dir != "/" {
            let env = self.stages[at].state.env().clone();
            let text = self.shown(&self.lex, &origin.code, &env);
            let multi = self.options.multi_platform;
            let stage = &mut self.stages[at];
            let platform = stage
                .platform
                .clone()
                .unwrap_or_else(|| self.platforms.target.clone());
            let name = name::prefix(stage, &text, multi, Some(&platform), &env);
            let user = stage.image.config.user.clone();
            let owner = (!user.is_empty()).then(|| Chown::parse(&user));
            let created = self
                .epoch
                .map(|seconds| seconds.saturating_mul(1_000_000_000));
            let constraints = self.constraints(name, origin).platform(&platform);
            let stage = &mut self.stages[at];
            stage.state = FileChain::new()
                .mkdir(&dir, 0o755, true, owner, created)
                .on(&stage.state, constraints);
            layer = true;
        }
        self.commit(at, format!("WORKDIR {dir}"), layer);
        Ok(())
    }

    fn arg(
        &mut self,
        at: usize,
        origin: &Origin,
        arg: instruction::Arg,
        lint: &Linter,
    ) -> Result<(), LowerError> {
        let mut texts = Vec::with_capacity(arg.args.len());
        for mut pair in arg.args {
            check::secret_name("ARG", &pair.key, &origin.ranges, lint);
            let option = self.options.build_args.get(&pair.key).cloned();
            let default = pair.value.clone();
            let mut inherited = false;
            pair.value = match (option, default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => {
                    let env = self.stages[at].state.env().clone();
                    Some(self.expanded(at, &self.lex, &default, &env, &origin.ranges, lint)?)
                }
                (None, None) => {
                    let global = self.global_args.get(&pair.key).map(str::to_owned);
                    inherited = global.is_some();
                    global
                }
            };
            let stage = &mut self.stages[at];
            if let Some(value) = &pair.value
                && !NON_ENV_ARGS.contains(&pair.key.as_str())
            {
                stage.state = stage.state.add_env(&pair.key, value);
            }
            if !inherited {
                let info = ArgInfo {
                    value: pair.value.clone().unwrap_or_default(),
                    definition: pair.clone(),
                    deps: Default::default(),
                    ranges: origin.ranges.clone(),
                };
                stage.outline.all_args.insert(pair.key.clone(), info);
            }
            stage.outline.used_args.insert(pair.key.clone());
            texts.push(match &pair.value {
                Some(value) => format!("{}={value}", pair.key),
                None => pair.key.clone(),
            });
            stage.build_args.push(pair);
        }
        self.commit(at, format!("ARG {}", texts.join(" ")), false);
        Ok(())
    }
}

fn healthcheck_text(check: &HealthcheckConfig) -> String {
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&check.test),
        format_duration(check.interval),
        format_duration(check.timeout),
        format_duration(check.start_period),
        format_duration(check.start_interval),
        check.retries
    )
}

const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// A signal by number or name, with or without `SIG`.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, most: u8| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.parse::<u8>().is_ok_and(|n| (1..=most).contains(&n)))
    };
    SIGNALS.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}
