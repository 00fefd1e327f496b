//! `SOURCE_DATE_EPOCH`: a number, `context`, a named context, or a stage that only fetches one thing.

use std::collections::BTreeMap;

use llb::build::{Constraints, Env, GitOpts, HttpOpts, State, git, http};
use llb::git_url::GitRef;
use oci::Digest;

use super::copy::{is_http_source, url_filename};
use super::error::{LowerError, LowerErrorKind};
use super::graph::SCRATCH;
use super::{ContextQuery, LoadedContext, LowerOptions, MetaResolver};
use crate::instruction::{Add, Arg, Command, Stage};
use crate::shell::Lexer;

const EPOCH_ARG: &str = "SOURCE_DATE_EPOCH";
const NOT_ONE_REMOTE_ADD: &str = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD";

/// Returns the time that `value` stands for, in seconds since the epoch.
pub(crate) async fn resolve(
    value: &str,
    options: &LowerOptions,
    stages: &[Stage],
    args: &Env,
    lex: &Lexer,
    host: &dyn MetaResolver,
) -> Result<Option<i64>, LowerError> {
    if value.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = value.parse::<i64>() {
        return Ok(Some(seconds));
    }
    if value == "context" {
        let state = host.main_context(Vec::new()).await?;
        return Ok(host
            .source_time(&state, "[internal] resolve main build context metadata")
            .await?);
    }
    if let Some(context) = host.named_context(value, None)? {
        let name = format!("[internal] resolve SOURCE_DATE_EPOCH named context {value}");
        let state = match host.load_context(&context, ContextQuery::default()).await? {
            LoadedContext::State { state, .. } => state,
            LoadedContext::Local(make) => make(Vec::new()),
        };
        return Ok(host.source_time(&state, &name).await?);
    }
    let Some(stage) = stages
        .iter()
        .find(|stage| stage.name.eq_ignore_ascii_case(value))
    else {
        return Err(LowerErrorKind::Epoch(value.to_owned()).into());
    };
    let state = stage_source(stage, options, &args.unset(EPOCH_ARG), lex)
        .map_err(|error| error.at(&stage.origin.ranges))?;
    let name = format!(
        "[internal] resolve SOURCE_DATE_EPOCH source stage {}",
        stage.name
    );
    Ok(host.source_time(&state, &name).await?)
}

/// Replaces the value of `SOURCE_DATE_EPOCH` by the resolved time.
pub(crate) fn settle(
    epoch: Option<i64>,
    build_args: &mut BTreeMap<String, String>,
    args: Env,
) -> Env {
    let text = epoch.map(|seconds| seconds.to_string());
    if build_args.contains_key(EPOCH_ARG) {
        match &text {
            Some(text) => build_args.insert(EPOCH_ARG.into(), text.clone()),
            None => build_args.remove(EPOCH_ARG),
        };
    }
    match (args.get(EPOCH_ARG), &text) {
        (None, _) => args,
        (Some(_), Some(text)) => args.set(EPOCH_ARG, text),
        (Some(_), None) => args.unset(EPOCH_ARG),
    }
}

fn stage_source(
    stage: &Stage,
    options: &LowerOptions,
    args: &Env,
    lex: &Lexer,
) -> Result<State, LowerError> {
    let stage_error = |text: &str| LowerError::from(LowerErrorKind::EpochStage(text.to_owned()));
    if lex.process_word(&stage.base_name, args)? != SCRATCH {
        return Err(stage_error("SOURCE_DATE_EPOCH stage must use FROM scratch"));
    }
    let mut env = args.clone();
    let mut source = None;
    for instruction in &stage.commands {
        let command = &instruction.command;
        if let Command::Arg(arg) = command {
            env = declare(arg, env, options, lex)?;
        } else if let Command::Add(add) = command {
            if source.is_some() {
                return Err(stage_error(NOT_ONE_REMOTE_ADD));
            }
            source = Some(add_source(add, options, &env, lex)?);
        } else {
            return Err(stage_error(&format!(
                "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {} instruction",
                instruction.origin.name
            )));
        }
    }
    source.ok_or_else(|| stage_error(NOT_ONE_REMOTE_ADD))
}

fn declare(
    arg: &Arg,
    mut env: Env,
    options: &LowerOptions,
    lex: &Lexer,
) -> Result<Env, LowerError> {
    for pair in &arg.args {
        env = match (options.build_args.get(&pair.key), &pair.value) {
            (Some(value), _) => env.set(&pair.key, value),
            (None, Some(default)) => env.set(&pair.key, &lex.process_word(default, &env)?),
            (None, None) => env,
        };
    }
    Ok(env)
}

fn add_source(
    add: &Add,
    options: &LowerOptions,
    env: &Env,
    lex: &Lexer,
) -> Result<State, LowerError> {
    let stage_error = |text: &str| LowerError::from(LowerErrorKind::EpochStage(text.to_owned()));
    let ([path], []) = (add.files.paths.as_slice(), add.files.contents.as_slice()) else {
        return Err(stage_error(
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source",
        ));
    };
    let path = lex.process_word(path, env)?;
    let checksum = lex.process_word(&add.checksum, env)?;
    if is_http_source(&path) {
        let checksum = (!checksum.is_empty())
            .then(|| Digest::parse(&checksum))
            .transpose();
        let opts = HttpOpts {
            checksum: checksum.map_err(LowerErrorKind::Checksum)?,
            filename: url_filename(&path),
        };
        return Ok(http(&path, &opts, Constraints::new()));
    }
    match GitRef::parse(&path).map_err(LowerErrorKind::GitRef)? {
        Some(git_ref) if !git_ref.like_local => {
            let mut opts = GitOpts {
                advice: options.git_advice,
                mtime: String::new(),
                ..GitOpts::from(&git_ref)
            };
            opts.keep_git_dir |= add.keep_git_dir == Some(true);
            opts.fetch_by_commit = false;
            if !checksum.is_empty() {
                opts.checksum = checksum;
            }
            Ok(git(&git_ref.remote, &opts, Constraints::new()))
        }
        Some(_) | None => Err(stage_error(
            "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD",
        )),
    }
}
