//! The line `# syntax=`, which names the frontend that builds a file.

use std::collections::BTreeMap;

use dockerfile::syntax::directive::detect_syntax;
use oci::{ErrorKind, Reference};

use super::context::Entrypoint;
use super::{Build, named};
use crate::bridge::{FrontendCall, FrontendResult, SolveInput, SolveRequest};
use crate::error::FrontendError;
use crate::places::{SourceLocation, wire_ranges};

/// Minor version N of the language docker/dockerfile 1.N that this frontend builds.
const MAX_LANGUAGE_MINOR: u32 = 28;

/// Channels that are released beside the stable one, each with its own tags (`labs`, `1-labs`, `1.3.1-labs`). Features that they once
/// had before the stable language are stable now: in BuildKit v0.34.2 the lists of build tags of both releases
/// (`frontend/dockerfile/release/{mainline,labs}/tags`) are empty, and `experimental` ended with 1.1. So the language does not
/// depend on the channel.
const CHANNELS: [&str; 2] = ["labs", "experimental"];

/// Whether the image is a released Dockerfile frontend whose language this frontend builds. `docker/dockerfile-upstream` is not: it
/// has features newer than any release.
// DIFFERS: BuildKit pulls and runs the image; this frontend builds the file itself, unless configured otherwise.
fn is_built_in_language(image: &str) -> bool {
    let Ok(reference) = Reference::parse(image) else {
        return false;
    };
    if reference.domain != "docker.io" || reference.path != "docker/dockerfile" {
        return false;
    }
    let tag = match (&reference.tag, &reference.digest) {
        (Some(tag), _) => tag.as_str(),
        (None, None) => "latest",
        (None, Some(_)) => return false,
    };
    let version = match tag.rsplit_once('-') {
        Some((version, channel)) if CHANNELS.contains(&channel) => version,
        None if CHANNELS.contains(&tag) || tag == "latest" || tag == "stable" => return true,
        _ => tag,
    };
    let numbers: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([1]) => true,
        Some([1, minor] | [1, minor, _]) => *minor <= MAX_LANGUAGE_MINOR,
        _ => false,
    }
}

impl Build {
    /// Runs the frontend that the file or an option names; none if this frontend is to build the file.
    pub(crate) async fn other_frontend(
        &self,
        entrypoint: &Entrypoint,
        answers_syntax: bool,
    ) -> Result<Option<FrontendResult>, FrontendError> {
        let opts = &self.request.opts;
        if opts.contains_key("cmdline") {
            return Ok(None);
        }
        let (image, cmdline, at) = match opts.get("build-arg:BUILDKIT_SYNTAX") {
            Some(cmdline) => {
                let image = cmdline.trim().split(' ').next().unwrap_or_default();
                (image.to_owned(), cmdline.clone(), Vec::new())
            }
            None => {
                let Some(syntax) = detect_syntax(&entrypoint.map.data) else {
                    return Ok(None);
                };
                let ranges = wire_ranges(&syntax.ranges);
                (
                    syntax.word,
                    syntax.value,
                    vec![SourceLocation {
                        info: entrypoint.map.to_info(),
                        ranges,
                    }],
                )
            }
        };
        // A context in the place of the image says which program builds the file, so its user wants that one.
        let is_replaced = || named::find(opts, &image, None).is_ok_and(|context| context.is_some());
        if answers_syntax && is_built_in_language(&image) && !is_replaced() {
            return Ok(None);
        }
        let mut frontend_opts: BTreeMap<String, String> = opts.clone();
        frontend_opts.insert("cmdline".into(), cmdline);
        frontend_opts.insert("source".into(), image.clone());
        let request = SolveRequest {
            input: SolveInput::Frontend(FrontendCall {
                frontend: "gateway.v0".into(),
                opts: frontend_opts,
                inputs: self.request.inputs.clone(),
            }),
            ..SolveRequest::default()
        };
        match self.bridge.solve(request).await {
            Ok(result) => Ok(Some(result)),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Err(FrontendError::GatewayFrontend { image, at })
            }
            Err(source) => Err(FrontendError::Bridge {
                context: String::new(),
                source,
                at,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_built_in_language;

    #[test]
    fn released_versions_are_built_in_whatever_their_channel() {
        for (image, want) in [
            ("docker/dockerfile", true),
            ("docker/dockerfile:1", true),
            ("docker.io/docker/dockerfile:1.7", true),
            ("docker/dockerfile:1.7.1", true),
            ("docker/dockerfile:1.28", true),
            ("docker/dockerfile:1.29", false),
            ("docker/dockerfile:1.999", false),
            ("docker/dockerfile:2", false),
            ("docker/dockerfile:labs", true),
            ("docker/dockerfile:1-labs", true),
            ("docker.io/docker/dockerfile:1.2-labs", true),
            ("docker/dockerfile:1.3.1-labs", true),
            ("docker/dockerfile:1.28-labs", true),
            ("docker/dockerfile:1.29-labs", false),
            ("docker/dockerfile:2-labs", false),
            ("docker/dockerfile:latest-labs", false),
            ("docker/dockerfile:1-labs-labs", false),
            ("docker/dockerfile:1.7-rc1", false),
            ("docker/dockerfile:experimental", true),
            ("docker/dockerfile:1.0-experimental", true),
            ("docker/dockerfile:1.1.7-experimental", true),
            ("docker/dockerfile:master", false),
            ("docker/dockerfile:master-labs", false),
            ("docker/dockerfile-upstream:master", false),
            ("docker/dockerfile-upstream:master-labs", false),
            ("docker/dockerfile-upstream:1.7", false),
            ("docker/dockerfile-upstream", false),
            ("example.com/docker/dockerfile:1", false),
            ("example.com/docker/dockerfile:1-labs", false),
            (
                "docker/dockerfile@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                false,
            ),
        ] {
            assert_eq!(is_built_in_language(image), want, "{image}");
        }
    }
}
