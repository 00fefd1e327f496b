//! A host whose images, contexts and settings a case names, and what lowering with it comes to, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use dockerfile::lint::LintConfig;
use dockerfile::lower::{
    self, ContextQuery, HostError, ImageQuery, LoadedContext, LowerOptions, MetaResolver,
    NamedContext, ResolvedImage,
};
use llb::build::{Constraints, ImageOpts, LocalOpts, State, image, local};
use llb::pb;
use oci::{ImageConfig, Platform, Reference};
use parking_lot::Mutex;

use crate::dump;

/// What a case says about the world: words of the form `key=value`, separated by blanks.
///
/// | word | meaning |
/// |---|---|
/// | `target=`, `platform=`, `network=` | options of the build |
/// | `arg:NAME=`, `label:NAME=` | `--build-arg`, `--label` |
/// | `context:NAME=` | a named context: `local` or an image |
/// | `ignore=` | patterns of the ignore file, separated by commas |
/// | `check=` | check options that win over the file's |
/// | `fresh=` | a stage that is built without cache |
/// | `multi`, `all` | several platforms are built; all stages are lowered |
/// | `alpine` | the file is below `FROM alpine`, whose step (`0`) is not shown |
/// | `image`, `warnings`, `only` | the config of the image and findings are shown; the definition is not |
#[derive(Debug, Default)]
struct World {
    contexts: BTreeMap<String, String>,
    ignore: Vec<String>,
    fresh: String,
    shows_image: bool,
    shows_warnings: bool,
    hides_definition: bool,
    on_alpine: bool,
}

/// The config of an image: those with `onbuild` in their names have triggers, `windows` is for Windows, and `gone` is not there.
fn config(name: &str, platform: &Platform) -> String {
    let rest = r#""rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"history":[{"created_by":"base"}]"#;
    let (os, env) = match name.contains("windows") {
        true => ("windows", r"PATH=C:\\Windows"),
        false => ("linux", "PATH=/bin"),
    };
    let more = match () {
        () if name.contains("onbuild") => {
            r#","OnBuild":["RUN trigger","COPY --from=tools /x /y","ENV ON=build"]"#
        }
        () if name.contains("full") => {
            r#","User":"app","WorkingDir":"/srv","Entrypoint":["/init"],"Labels":{"from":"base"},"ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}},"StopSignal":"SIGINT","Healthcheck":{"Test":["CMD","old"]},"Shell":["/bin/bash","-c"]"#
        }
        () => "",
    };
    let architecture = &platform.architecture;
    format!(
        r#"{{"architecture":"{architecture}","os":"{os}","config":{{"Env":["{env}"],"Cmd":["sh"]{more}}},{rest}}}"#
    )
}

#[async_trait]
impl MetaResolver for World {
    async fn image_config(
        &self,
        reference: &str,
        query: ImageQuery,
    ) -> Result<ResolvedImage, HostError> {
        if reference.contains("gone") {
            return Err(Arc::new(std::io::Error::other("there is no such image")));
        }
        let platform = query
            .platform
            .unwrap_or_else(|| Platform::new("linux", "amd64", ""));
        Ok(ResolvedImage {
            reference: reference.to_owned(),
            digest: None,
            config: config(reference, &platform).into_bytes(),
        })
    }

    fn named_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>, HostError> {
        // Images are asked for by their full names.
        let short = name.parse().map(|image: Reference| image.familiar());
        let name = short.as_deref().unwrap_or(name);
        let name = name.strip_suffix(":latest").unwrap_or(name);
        Ok(self.contexts.get(name).map(|input| NamedContext {
            input: input.clone(),
            name: name.to_owned(),
            name_with_platform: name.to_owned(),
            shared_key: name.to_owned(),
            platform: platform.cloned(),
        }))
    }

    async fn load_context(
        &self,
        context: &NamedContext,
        _query: ContextQuery,
    ) -> Result<LoadedContext, HostError> {
        if context.input == "local" {
            let name = context.name.clone();
            return Ok(LoadedContext::Local(Box::new(move |follow_paths| {
                let opts = LocalOpts {
                    follow_paths,
                    ..LocalOpts::default()
                };
                local(&name, &opts, Constraints::named(format!("context {name}")))
            })));
        }
        let platform = context
            .platform
            .clone()
            .unwrap_or_else(|| Platform::new("linux", "amd64", ""));
        let constraints = Constraints::named(format!("context {}", context.name));
        let state = image(
            &context.input,
            &ImageOpts::default(),
            constraints.platform(&platform),
        );
        let config: ImageConfig =
            gostd::json::from_slice(config(&context.input, &platform).as_bytes())
                .expect("it is a config");
        Ok(LoadedContext::State {
            state: state.expect("it is a reference"),
            image: Some(Box::new(config)),
        })
    }

    async fn main_context(&self, follow_paths: Vec<String>) -> Result<State, HostError> {
        let opts = LocalOpts {
            follow_paths,
            ..LocalOpts::default()
        };
        Ok(local(
            "context",
            &opts,
            Constraints::internal("load build context"),
        ))
    }

    async fn ignore_patterns(&self) -> Result<Vec<String>, HostError> {
        Ok(self.ignore.clone())
    }

    fn is_no_cache(&self, stage: &str) -> bool {
        !self.fresh.is_empty() && self.fresh == stage
    }

    async fn source_time(&self, _state: &State, _log_name: &str) -> Result<Option<i64>, HostError> {
        Ok(Some(1_700_000_000))
    }
}

fn read(with: &str) -> (World, LowerOptions) {
    let mut world = World::default();
    let mut options = LowerOptions {
        build_platforms: vec![Platform::new("linux", "amd64", "")],
        ..LowerOptions::default()
    };
    for word in with.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let value = value.to_owned();
        match key.split_once(':').unwrap_or((key, "")) {
            ("target", _) => options.target = value,
            ("platform", _) => {
                options.target_platform = Some(Platform::parse(&value).expect("a platform"))
            }
            ("network", _) => {
                options.network = match value.as_str() {
                    "host" => pb::NetMode::Host,
                    _ => pb::NetMode::None,
                }
            }
            ("hostname", _) => options.hostname = value,
            ("cgroup", _) => options.cgroup_parent = value,
            ("namespace", _) => options.cache_id_namespace = value,
            ("host", name) => options
                .extra_hosts
                .push((name.to_owned(), value.parse().expect("an address"))),
            ("ulimit", name) => {
                let soft = value.parse().expect("a number");
                options.ulimits.push(pb::Ulimit {
                    name: name.to_owned(),
                    soft,
                    hard: soft,
                });
            }
            ("shm", _) => options.shm_size = value.parse().expect("a number"),
            ("arg", name) => drop(options.build_args.insert(name.to_owned(), value)),
            ("label", name) => drop(options.labels.insert(name.to_owned(), value)),
            ("context", name) => drop(world.contexts.insert(name.to_owned(), value)),
            ("ignore", _) => world.ignore = value.split(',').map(str::to_owned).collect(),
            ("check", _) => options.lint = Some(LintConfig::parse(&value).expect("check options")),
            ("fresh", _) => world.fresh = value,
            ("multi", _) => options.multi_platform = true,
            ("all", _) => options.all_stages = true,
            ("image", _) => world.shows_image = true,
            ("warnings", _) => world.shows_warnings = true,
            ("only", _) => world.hides_definition = true,
            ("alpine", _) => world.on_alpine = true,
            _ => panic!("{word} means nothing"),
        }
    }
    (world, options)
}

/// What lowering a file comes to.
pub(crate) fn outcome(with: &str, file: &str) -> String {
    let (world, options) = read(with);
    let file = if world.on_alpine {
        format!("FROM alpine\n{file}")
    } else {
        file.to_owned()
    };
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&warnings);
    let warn =
        Arc::new(move |warning: dockerfile::lint::Warning| sink.lock().push(warning.short()));
    let lowered = lower::lower(file.as_bytes(), options, &world, Some(warn));
    let mut out = String::new();
    match futures::executor::block_on(lowered) {
        Ok(lowered) => {
            if !world.hides_definition {
                let definition = lowered.definition().expect("it can be written");
                let steps = dump::definition(&definition);
                out.push_str(if world.on_alpine {
                    below_alpine(&steps)
                } else {
                    &steps
                });
            }
            if world.shows_image {
                out.push_str(&image_text(&lowered.image));
            }
        }
        Err(error) => {
            let lines: Vec<usize> = error
                .locations
                .iter()
                .flatten()
                .map(|range| range.start.line)
                .collect();
            let _ = writeln!(out, "error: {error} {lines:?}");
        }
    }
    if world.shows_warnings {
        for warning in warnings.lock().iter() {
            let _ = writeln!(out, "{warning}");
        }
    }
    out
}

/// The steps of a definition without the first, which must be the image `alpine`.
fn below_alpine(steps: &str) -> &str {
    let (image, rest) = steps.split_once('\n').expect("a definition has steps");
    let (name, rest) = rest.split_once('\n').expect("a step has a name");
    assert_eq!(
        image,
        "0: docker-image://docker.io/library/alpine:latest for linux/amd64"
    );
    assert!(
        name.starts_with("   # [1/") && name.ends_with("] FROM docker.io/library/alpine:latest"),
        "{name}"
    );
    rest
}

/// The parts of a config that are set, one a line.
fn image_text(image: &ImageConfig) -> String {
    let json = serde_json::to_value(&image.config).expect("a config is JSON");
    let mut out = format!("{} by {:?}\n", image.platform.format_all(), image.author);
    for (key, value) in json.as_object().expect("it is an object") {
        let _ = writeln!(out, "{key}: {value}");
    }
    for entry in &image.history {
        let empty = if entry.empty_layer { " (no layer)" } else { "" };
        let _ = writeln!(out, "by: {}{empty}", entry.created_by);
    }
    out
}

/// Lowers each file in its world and compares what that comes to: world, file, outcome.
#[track_caller]
pub(crate) fn check(cases: &[(&str, &str, &str)]) {
    let mut differences = String::new();
    for (with, file, want) in cases {
        let actual = outcome(with, file.trim_start_matches('\n'));
        if actual != want.trim_start_matches('\n') {
            let _ = write!(
                differences,
                "@@@ {with}\n{file}\n@@@ comes to\n{actual}@@@ end\n"
            );
        }
    }
    assert!(differences.is_empty(), "{differences}");
}
