//! References as source identifiers carry them: `host/path[:tag][@digest]`, already normalized.

use std::fmt;

use oci::Digest;
use registry::RepositoryName;

use crate::error::{SourceError, cause};

/// A parsed reference. Unlike a reference that people write, it is not completed: the first component is the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Host with port.
    pub host: String,
    /// Repository below the host.
    pub path: String,
    /// Tag, if any.
    pub tag: Option<String>,
    /// Digest, if any.
    pub digest: Option<Digest>,
}

impl Spec {
    /// Parses an identifier's reference; a tag or digest is required.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let bad = |reason: &str| SourceError::Reference {
            reference: text.to_owned(),
            source: cause(reason),
        };
        let (host, name) = text.split_once('/').ok_or_else(|| bad("object required"))?;
        if host.is_empty() || host.contains(['@', '?', '#', '\\', ' ']) {
            return Err(bad("hostname required"));
        }
        let (path, object) = match name.find([':', '@']) {
            Some(at) => name.split_at(at),
            None => return Err(bad("object required")),
        };
        let is_name_char =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let component =
            |c: &str| !c.is_empty() && c != ".." && c != "." && c.chars().all(is_name_char);
        if !path.split('/').all(component) {
            return Err(bad("invalid reference"));
        }
        let (tag, digest) = match object.split_once('@') {
            Some((tag, digest)) => {
                let what = "digest of reference";
                let digest = Digest::parse(digest).map_err(|source| SourceError::Digest {
                    what,
                    text: digest.to_owned(),
                    source,
                })?;
                (tag, Some(digest))
            }
            None => (object, None),
        };
        let tag = tag.strip_prefix(':').unwrap_or(tag);
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !tag.chars().all(word) || tag.len() > 128 || tag.starts_with(['.', '-']) {
            return Err(bad("invalid reference"));
        }
        let tag = (!tag.is_empty()).then(|| tag.to_owned());
        if tag.is_none() && digest.is_none() {
            return Err(bad("object required"));
        }
        Ok(Self {
            host: host.to_owned(),
            path: path.to_owned(),
            tag,
            digest,
        })
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> RepositoryName {
        RepositoryName {
            domain: self.host.clone(),
            path: self.path.clone(),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Spec;

    #[test]
    fn references_are_taken_as_they_are_and_checked() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [
            "docker.io/library/busybox:latest".to_owned(),
            "localhost:5000/a/b_c.d:V1".to_owned(),
            format!("docker.io/library/busybox:latest@{digest}"),
            format!("example.com/layout@{digest}"),
        ] {
            assert_eq!(Spec::parse(&text).unwrap().to_string(), text);
        }
        for bad in [
            "busybox",
            "docker.io/x",
            "docker.io/../x:y",
            "docker.io/x:y@sha256:12",
            "a@b/x:y",
            "h/x:-y",
            "h/x:y?z",
            "h/X:y",
        ] {
            assert!(Spec::parse(bad).is_err(), "{bad}");
        }
    }
}
