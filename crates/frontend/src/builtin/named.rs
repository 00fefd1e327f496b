//! Contexts that replace a stage or an image: `--build-context name=…`.

use gostd::strconv::quote;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockerfile::lower::{ContextQuery, LoadedContext, NamedContext};
use llb::build::{
    Constraints, HttpOpts, ImageOpts, LocalOpts, OciLayoutOpts, State, http, image, local,
    oci_layout, state_from_definition,
};
use oci::{Digest, ImageConfig, Platform, Reference};

use super::Build;
use super::context::{git_context, ignore_of, solve};
use super::resolver::resolve_image;
use crate::bridge::{ImageResolveOpts, OciLayoutResolveOpts, ResolveOpts};
use crate::error::FrontendError;

/// Number of times that policies may replace one context by another.
const MAX_REDIRECTS: usize = 10;

/// Finds the context for a name, first the one for its platform.
pub(crate) fn find(
    opts: &BTreeMap<String, String>,
    name: &str,
    platform: Option<&Platform>,
) -> Result<Option<NamedContext>, FrontendError> {
    let reference = Reference::parse(name).map_err(|error| {
        FrontendError::definition_while(format!("invalid context name {name}"), error)
    })?;
    let familiar = reference.familiar();
    let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let platform_to_find = platform.cloned().unwrap_or_else(Platform::host).normalize();
    let with_platform = format!("{name}::{}", platform_to_find.format_all());
    Ok([with_platform, name.to_owned()]
        .into_iter()
        .find_map(|key| {
            Some(NamedContext {
                input: opts.get(&format!("context:{key}"))?.clone(),
                name: name.to_owned(),
                shared_key: opts
                    .get(&format!("sharedkey:localdir:{key}"))
                    .cloned()
                    .unwrap_or_default(),
                name_with_platform: key,
                platform: platform.cloned(),
            })
        }))
}

/// Loads a context of any kind.
pub(crate) async fn load(
    build: &Build,
    context: &NamedContext,
    query: &ContextQuery,
) -> Result<LoadedContext, FrontendError> {
    let mut input = context.input.clone();
    for _ in 0..=MAX_REDIRECTS {
        let context_name = &context.name_with_platform;
        let Some((scheme, rest)) = input.split_once(':') else {
            return Err(FrontendError::definition(format!(
                "invalid context specifier {input} for {context_name}"
            )));
        };
        let plain = |state| Ok(LoadedContext::State { state, image: None });
        let advice = build.config.lower.git_advice;
        let scheme = if scheme.starts_with("git@") {
            "git"
        } else {
            scheme
        };
        match scheme {
            "docker-image" => match load_image(build, context, query, rest).await? {
                Loaded::Done(loaded) => return Ok(loaded),
                Loaded::Redirect(to) => input = to,
            },
            "git" => {
                let state = git_context(&input, |opts| opts.advice = advice)?;
                return plain(state.ok_or_else(|| {
                    FrontendError::definition(format!("invalid git context {input}"))
                })?);
            }
            "http" | "https" => {
                if let Some(state) = git_context(&input, |opts| opts.advice = advice)? {
                    return plain(state);
                }
                let opts = HttpOpts {
                    checksum: None,
                    filename: "context".into(),
                };
                return plain(http(
                    &input,
                    &opts,
                    Constraints::named(format!("[context {context_name}] {input}")),
                ));
            }
            "oci-layout" => return load_layout(build, context, rest).await,
            "local" => return load_local(build, context, rest).await,
            "input" => return load_input(build, context, rest),
            other => {
                return Err(FrontendError::definition(format!(
                    "unsupported context source {other} for {context_name}"
                )));
            }
        }
    }
    Err(FrontendError::definition(format!(
        "context recursion limit exceeded; this may indicate a cycle in the provided source policies: {input}"
    )))
}

enum Loaded {
    Done(LoadedContext),
    /// A policy replaced the image by a source of another kind, with this identifier.
    Redirect(String),
}

fn config_of(data: &[u8], what: &str) -> Result<ImageConfig, FrontendError> {
    gostd::json::from_slice(data).map_err(|error| FrontendError::definition_while(what, error))
}

async fn load_image(
    build: &Build,
    context: &NamedContext,
    query: &ContextQuery,
    rest: &str,
) -> Result<Loaded, FrontendError> {
    let name = rest.strip_prefix("//").unwrap_or(rest);
    if name == "scratch" {
        return Ok(Loaded::Done(LoadedContext::State {
            state: State::scratch(),
            image: None,
        }));
    }
    let context_name = &context.name_with_platform;
    let reference = Reference::parse(name)
        .map_err(FrontendError::definition)?
        .with_default_tag();
    let opts = ResolveOpts {
        log_name: format!("[context {context_name}] load metadata for {name}"),
        image: Some(ImageResolveOpts {
            platform: context.platform.clone(),
            resolve_mode: query.resolve_mode.clone(),
            ..ImageResolveOpts::default()
        }),
        ..ResolveOpts::default()
    };
    let resolved = resolve_image(
        build,
        &format!("docker-image://{reference}"),
        BTreeMap::new(),
        opts,
    )
    .await?;
    let Some((resolved, _, data)) = resolved.image else {
        let (scheme, rest) = resolved.updated.split_once("://").ok_or_else(|| {
            FrontendError::definition(format!("could not parse ref: {}", resolved.updated))
        })?;
        return Ok(Loaded::Redirect(format!("{scheme}:{rest}")));
    };
    let mut config = config_of(&data, "")?;
    let mut constraints = Constraints::named(format!("[context {context_name}] {name}"));
    constraints.platform.clone_from(&context.platform);
    let state =
        image(&resolved, &ImageOpts::default(), constraints).map_err(FrontendError::definition)?;
    let state = state.with_image_config(&config);
    config.created = None;
    Ok(Loaded::Done(LoadedContext::State {
        state,
        image: Some(Box::new(config)),
    }))
}

async fn load_layout(
    build: &Build,
    context: &NamedContext,
    rest: &str,
) -> Result<LoadedContext, FrontendError> {
    let spec = rest.strip_prefix("//").unwrap_or(rest);
    let (store, digest) = spec.split_once('@').ok_or_else(|| {
        FrontendError::definition(format!(
            "oci-layout reference {} has no digest",
            quote(spec)
        ))
    })?;
    let digest = Digest::parse(digest).map_err(|error| {
        FrontendError::definition_while(
            format!("could not parse oci-layout reference {}", quote(spec)),
            error,
        )
    })?;
    // The tag follows the last slash; a colon before it belongs to a port.
    let store = match store.rfind(':') {
        Some(at) if !store.get(at..).unwrap_or_default().contains('/') => {
            store.get(..at).unwrap_or(store)
        }
        _ => store,
    };
    let mut dummy = Reference::parse(&context.name).map_err(|error| {
        FrontendError::definition_while(
            format!(
                "could not parse oci-layout reference {}",
                quote(&context.name)
            ),
            error,
        )
    })?;
    dummy.digest = Some(digest);
    let dummy = dummy.to_string();
    let context_name = &context.name_with_platform;
    let session_id = &build.request.session_id;
    let opts = ResolveOpts {
        log_name: format!("[context {context_name}] load metadata for {dummy}"),
        oci_layout: Some(OciLayoutResolveOpts {
            platform: context.platform.clone(),
            session_id: session_id.clone(),
            store_id: store.to_owned(),
        }),
        ..ResolveOpts::default()
    };
    let mut attrs = BTreeMap::new();
    for (key, value) in [("oci.session", session_id.as_str()), ("oci.store", store)] {
        if !value.is_empty() {
            attrs.insert(key.to_owned(), value.to_owned());
        }
    }
    let resolved = resolve_image(build, &format!("oci-layout://{dummy}"), attrs, opts).await?;
    let (_, _, data) = resolved
        .image
        .ok_or_else(|| FrontendError::definition(format!("{dummy} is not an image")))?;
    let config = config_of(&data, "could not parse oci-layout image config")?;
    let mut constraints =
        Constraints::named(format!("[context {context_name}] OCI load from client"));
    constraints.platform.clone_from(&context.platform);
    let opts = OciLayoutOpts {
        session_id: session_id.clone(),
        store_id: store.to_owned(),
        layer_limit: None,
    };
    let state = oci_layout(&dummy, &opts, constraints).with_image_config(&config);
    Ok(LoadedContext::State {
        state,
        image: Some(Box::new(config)),
    })
}

async fn load_local(
    build: &Build,
    context: &NamedContext,
    name: &str,
) -> Result<LoadedContext, FrontendError> {
    const DOCKERIGNORE: &str = ".dockerignore";
    let context_name = context.name_with_platform.clone();
    let session_id = build.config.session_of(name, &build.request).clone();
    let opts = LocalOpts {
        session_id: session_id.clone(),
        follow_paths: vec![DOCKERIGNORE.to_owned()],
        shared_key_hint: format!("context:{context_name}-{DOCKERIGNORE}"),
        differ_none: true,
        ..LocalOpts::default()
    };
    let state = local(
        name,
        &opts,
        Constraints::named(format!("[context {context_name}] load {DOCKERIGNORE}")),
    );
    let (reference, _) = solve(build, &state, true, "").await?;
    let exclude = ignore_of(reference.as_ref()).await?;
    let name = name.to_owned();
    let shared_key_hint = format!("context:{context_name}-{}", context.shared_key);
    Ok(LoadedContext::Local(Box::new(move |follow_paths| {
        let opts = LocalOpts {
            session_id,
            exclude,
            follow_paths,
            shared_key_hint,
            ..LocalOpts::default()
        };
        local(
            &name,
            &opts,
            Constraints::named(format!("[context {context_name}] load from client")),
        )
    })))
}

fn load_input(
    build: &Build,
    context: &NamedContext,
    name: &str,
) -> Result<LoadedContext, FrontendError> {
    let context_name = &context.name_with_platform;
    let definition = build.request.inputs.get(name).ok_or_else(|| {
        FrontendError::definition(format!("invalid input {name} for {context_name}"))
    })?;
    let state = state_from_definition(definition).map_err(FrontendError::definition)?;
    let Some(metadata) = build.request.opts.get(&format!("input-metadata:{name}")) else {
        return Ok(LoadedContext::State { state, image: None });
    };
    let values: BTreeMap<String, String> =
        gostd::json::from_slice(metadata.as_bytes()).map_err(|error| {
            FrontendError::definition_while(
                format!("failed to parse input metadata {metadata}"),
                error,
            )
        })?;
    let Some(config) = values.get("containerimage.config") else {
        return Ok(LoadedContext::State { state, image: None });
    };
    let data = STANDARD.decode(config).map_err(|error| {
        FrontendError::definition_while(format!("failed to parse input metadata {metadata}"), error)
    })?;
    let config = config_of(
        &data,
        &format!("failed to parse image config for {context_name}"),
    )?;
    Ok(LoadedContext::State {
        state: state.with_image_config(&config),
        image: Some(Box::new(config)),
    })
}
