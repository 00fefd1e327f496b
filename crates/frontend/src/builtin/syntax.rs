//! `# syntax=`: who answers for the language of a file.

use std::collections::BTreeMap;

use dockerfile::syntax::directive::detect_syntax;
use oci::Reference;

use super::Build;
use super::context::{Entrypoint, wire_ranges};
use crate::bridge::{FrontendResult, SolveRequest};
use crate::error::{Fault, FrontendError, SourceLocation};

/// The language we speak is that of docker/dockerfile 1.N.
const MINOR: u32 = 28;

/// Whether the image is a stable Dockerfile frontend whose language we speak.
// DIFFERS: BuildKit pulls and runs the image; we answer ourselves, unless told not to.
fn is_ours(image: &str) -> bool {
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
    if tag == "latest" || tag == "stable" {
        return true;
    }
    let mut parts = tag.split('.');
    let numbers: Option<Vec<u32>> = parts.by_ref().map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([1]) => true,
        Some([1, minor] | [1, minor, _]) => *minor <= MINOR,
        _ => false,
    }
}

impl Build {
    /// Hands the build to the frontend that the file or an option names, unless that is us.
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
                let Some(found) = detect_syntax(&entrypoint.map.data) else {
                    return Ok(None);
                };
                let ranges = wire_ranges(&found.ranges);
                (
                    found.word,
                    found.value,
                    vec![SourceLocation {
                        info: entrypoint.map.to_info(),
                        ranges,
                    }],
                )
            }
        };
        if answers_syntax && is_ours(&image) {
            return Ok(None);
        }
        let mut frontend_opts: BTreeMap<String, String> = opts.clone();
        frontend_opts.insert("cmdline".into(), cmdline);
        frontend_opts.insert("source".into(), image.clone());
        let request = SolveRequest {
            frontend: "gateway.v0".into(),
            frontend_opts,
            frontend_inputs: self.request.inputs.clone(),
            ..SolveRequest::default()
        };
        match self.bridge.solve(request).await {
            Ok(result) => Ok(Some(result)),
            Err(error) if error.fault() == Fault::Unimplemented => {
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
    use super::is_ours;

    #[test]
    fn stable_versions_are_answered_here() {
        for (image, want) in [
            ("docker/dockerfile", true),
            ("docker/dockerfile:1", true),
            ("docker.io/docker/dockerfile:1.7", true),
            ("docker/dockerfile:1.7.1", true),
            ("docker/dockerfile:1.999", false),
            ("docker/dockerfile:2", false),
            ("docker/dockerfile:1-labs", false),
            ("docker/dockerfile-upstream:master", false),
            ("example.com/docker/dockerfile:1", false),
            (
                "docker/dockerfile@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                false,
            ),
        ] {
            assert_eq!(is_ours(image), want, "{image}");
        }
    }
}
