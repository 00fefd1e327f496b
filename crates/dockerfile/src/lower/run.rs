//! `RUN`.

use std::collections::HashMap;

use llb::build::exec::{Mount as Bind, MountContent, Run};
use llb::build::{Constraints, Env, FileChain, State};
use llb::pb;

use super::error::{LowerError, LowerErrorKind};
use super::graph::Lowering;
use super::name;
use super::reach::ENV_ENTRY_BYTES;
use super::text::{plain_list, summarize_heredoc};
use crate::instruction::{self, ArgPair, MountType, NetworkMode, Origin, SecurityMode};
use crate::shell::{self, Lexer};
use crate::syntax::{chomp, parse_heredoc};

/// Where inline scripts are mounted.
const SCRIPTS_DIR: &str = "/dev/pipes/";

impl Lowering<'_> {
    pub(crate) fn run_step(
        &mut self,
        at: usize,
        origin: &Origin,
        run: instruction::Run,
        sources: &[usize],
    ) -> Result<(), LowerError> {
        let mut text = origin.code.clone();
        // A process can read anything.
        let used = self.stages[at].paths;
        self.paths[used].insert("/".into());

        let (mut args, script) = self.heredoc(at, &run, &mut text)?;
        if run.line.prepend_shell {
            args = self.with_shell(at, &args);
        }
        let env = self.stages[at].state.env().clone();
        let lex = Lexer {
            raw_quotes: true,
            raw_escapes: true,
            skip_unset_env: true,
            ..self.lex.clone()
        };
        let masked = Masked::new(&run, &env);
        let expanded_text = self.shown(&lex, &text, &masked);
        let mounts = self.mounts(at, origin, &run, sources)?;

        let multi = self.options.multi_platform;
        let stage = &mut self.stages[at];
        let platform = stage.state.get_platform().cloned();
        let name = name::prefix(stage, &expanded_text, multi, platform.as_ref(), &env);
        let ignore_cache = stage.ignore_cache;
        let constraints = Constraints::named(name)
            .describe("com.docker.dockerfile.v1.command", origin.code.clone())
            .at(
                self.options.source_map.as_ref(),
                super::dispatch::wire_ranges(&origin.ranges),
            )
            .ignore_cache(ignore_cache)
            .resources(self.options.resources.clone());
        let base = self.stages[at].state.clone();
        let mut process = Run::new(&base, args.clone(), constraints).proxy(self.proxy.clone());
        if let Some(script) = script {
            process = process.mount(script);
        }
        process = mounts.add_to(process);
        process = process.with(|state| self.settings(state, &run));
        for device in &self.options.devices {
            process = process.device(&device.name, device.optional);
        }
        for device in &run.devices {
            process = process.device(&device.name, !device.required);
        }
        if self.options.shm_size > 0 {
            let mut shm = Bind::new("/dev/shm", &State::scratch());
            shm.content = MountContent::Tmpfs {
                size: self.options.shm_size,
            };
            process = process.mount(shm);
        }
        let stage = &mut self.stages[at];
        stage.state = process.root_of(&base);
        let args_of_stage = stage.build_args.len();
        self.charge(args_of_stage * ENV_ENTRY_BYTES)?;
        let message = history(&args, &self.stages[at].build_args, &env);
        self.commit(at, format!("RUN {message} # buildkit"), true);
        Ok(())
    }

    /// The state with the settings of options and flags that apply to this process only.
    fn settings(&self, state: &State, run: &instruction::Run) -> State {
        let mut state = match run.security {
            SecurityMode::Insecure => state.security(pb::SecurityMode::Insecure),
            SecurityMode::Sandbox => state.security(pb::SecurityMode::Sandbox),
        };
        state = match run.network {
            NetworkMode::Default => state,
            NetworkMode::None => state.network(pb::NetMode::None),
            NetworkMode::Host => state.network(pb::NetMode::Host),
        };
        for ulimit in &self.options.ulimits {
            state = state.ulimit(ulimit.clone());
        }
        for (host, ip) in &self.options.extra_hosts {
            state = state.extra_host(host, *ip);
        }
        if !self.options.cgroup_parent.is_empty() {
            state = state.cgroup_parent(&self.options.cgroup_parent);
        }
        state
    }

    /// Arguments with heredocs put in: as text for the shell, or as a file with its own interpreter.
    fn heredoc(
        &self,
        at: usize,
        run: &instruction::Run,
        text: &mut String,
    ) -> Result<(Vec<String>, Option<Bind>), LowerError> {
        let line = &run.line;
        let Some(first) = line.files.first() else {
            return Ok((line.args.clone(), None));
        };
        let [word] = line.args.as_slice() else {
            return Err(LowerErrorKind::RunHeredoc(plain_list(&line.args)).into());
        };
        if !line.prepend_shell {
            return Err(LowerErrorKind::RunHeredoc(plain_list(&line.args)).into());
        }
        if !matches!(parse_heredoc(word), Ok(Some(_))) {
            let mut whole = word.clone();
            for file in &line.files {
                whole.push('\n');
                whole.push_str(&file.data);
                whole.push_str(&file.name);
            }
            return Ok((vec![whole], None));
        }
        text.push_str(&format!(" ({})", summarize_heredoc(&first.data)));
        let data = if first.chomp {
            chomp(&first.data)
        } else {
            first.data.clone()
        };
        if self.stages[at].image.platform.os == "windows" || !data.starts_with("#!") {
            return Ok((vec![data], None));
        }
        let mut constraints = Constraints::internal("preparing inline document");
        constraints.platform.clone_from(&self.stages[at].platform);
        let files = FileChain::new()
            .mkfile(&first.name, 0o755, data)
            .on(&State::scratch().dir("/"), constraints);
        let mut script = Bind::new(SCRIPTS_DIR, &files);
        script.selector = "/".into();
        script.readonly = true;
        Ok((
            vec![gostd::path::join(&[SCRIPTS_DIR, &first.name])],
            Some(script),
        ))
    }
}

/// The command in a history entry: arguments in force, then the command line.
fn history(args: &[String], build_args: &[ArgPair], env: &Env) -> String {
    let mut values: Vec<(&str, &str)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for arg in build_args {
        let value = env
            .get(&arg.key)
            .unwrap_or_else(|| arg.value.as_deref().unwrap_or_default());
        let place = *places.entry(&arg.key).or_insert(values.len());
        match values.get_mut(place) {
            Some(old) => old.1 = value,
            None => values.push((&arg.key, value)),
        }
    }
    let mut words = Vec::new();
    if !values.is_empty() {
        words.push(format!("|{}", values.len()));
        words.extend(
            values
                .into_iter()
                .map(|(key, value)| format!("{key}={value}")),
        );
    }
    words.extend(args.iter().cloned());
    words.join(" ")
}

/// An environment in which variables from secrets show as stars.
struct Masked<'a> {
    env: &'a Env,
    secrets: Vec<&'a str>,
}

impl<'a> Masked<'a> {
    fn new(run: &'a instruction::Run, env: &'a Env) -> Self {
        let secrets = run
            .mounts
            .iter()
            .filter(|mount| mount.kind == MountType::Secret)
            .filter_map(|mount| mount.env.as_deref())
            .collect();
        Self { env, secrets }
    }
}

impl shell::Env for Masked<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if self.secrets.contains(&key) {
            Some("****")
        } else {
            self.env.get(key)
        }
    }

    fn keys(&self) -> Vec<&str> {
        let mut keys = self.env.keys();
        keys.retain(|key| !self.secrets.contains(key));
        keys.extend(&self.secrets);
        keys
    }
}
