//! Annotations as attributes and metadata carry them: `annotation[-<where>][\[<platform>\]].<key>`.

use std::collections::BTreeMap;

use oci::Platform;

use crate::error::{ExportAttributeError, ExportError};

/// Annotations by key.
type AnnotationMap = BTreeMap<String, String>;

/// Annotations of one image, by the document or descriptor that carries them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// In the index.
    pub index: AnnotationMap,
    /// On the descriptor of the index.
    pub index_descriptor: AnnotationMap,
    /// In the manifest.
    pub manifest: AnnotationMap,
    /// On the descriptor of the manifest.
    pub manifest_descriptor: AnnotationMap,
}

impl Annotations {
    fn extend(&mut self, other: &Self) {
        let copy = |to: &mut AnnotationMap, from: &AnnotationMap| {
            to.extend(from.iter().map(|(k, v)| (k.clone(), v.clone())))
        };
        copy(&mut self.index, &other.index);
        copy(&mut self.index_descriptor, &other.index_descriptor);
        copy(&mut self.manifest, &other.manifest);
        copy(&mut self.manifest_descriptor, &other.manifest_descriptor);
    }
}

/// Annotations by platform; the empty name stands for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnotationGroup(BTreeMap<String, Annotations>);

impl AnnotationGroup {
    /// Adds one attribute if it is an annotation, and returns whether it is one.
    pub(crate) fn take(&mut self, key: &str, value: &str) -> Result<bool, ExportError> {
        let Some((place, platform, name)) = split(key) else {
            return Ok(false);
        };
        let platform = if platform.is_empty() {
            String::new()
        } else {
            Platform::parse(platform)?.normalize().format_all()
        };
        let entry = self.0.entry(platform).or_default();
        let map = match place {
            "" | "manifest" => &mut entry.manifest,
            "manifest-descriptor" => &mut entry.manifest_descriptor,
            "index" => &mut entry.index,
            "index-descriptor" => &mut entry.index_descriptor,
            _ => {
                let place = place.to_owned();
                return Err(ExportAttributeError::AnnotationPlace { place }.into());
            }
        };
        map.insert(name.to_owned(), value.to_owned());
        Ok(true)
    }

    /// Adds the annotations of `other`; where both have a key, its value is that of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (platform, annotations) in &other.0 {
            self.0
                .entry(platform.clone())
                .or_default()
                .extend(annotations);
        }
    }

    /// The annotations for one platform; without one, those that name no platform.
    pub(crate) fn of(&self, platform: Option<&Platform>) -> Annotations {
        let mut out = Annotations::default();
        let copy = |to: &mut AnnotationMap, from: &AnnotationMap| {
            to.extend(from.iter().map(|(k, v)| (k.clone(), v.clone())))
        };
        for annotations in self.0.values() {
            copy(&mut out.index, &annotations.index);
            copy(&mut out.index_descriptor, &annotations.index_descriptor);
        }
        let platform_key = platform.map(Platform::format_all);
        for key in std::iter::once("").chain(platform_key.as_deref()) {
            if let Some(annotations) = self.0.get(key) {
                copy(&mut out.manifest, &annotations.manifest);
                copy(
                    &mut out.manifest_descriptor,
                    &annotations.manifest_descriptor,
                );
            }
        }
        out
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Annotations)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }
}

/// Splits `annotation-manifest[linux/amd64].key` into place, platform and key; `None` if it is not of that form.
fn split(key: &str) -> Option<(&str, &str, &str)> {
    let rest = key.strip_prefix("annotation")?;
    let (place, rest) = match rest.strip_prefix('-') {
        Some(rest) => {
            let end = rest
                .find(|c: char| !(c.is_ascii_lowercase() || c == '-'))
                .unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            rest.split_at(end)
        }
        None => ("", rest),
    };
    let (platform, rest) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (platform, rest) = rest.split_once(']')?;
            let word = |c: char| c.is_ascii_alphanumeric() || "_/-".contains(c);
            if platform.is_empty() || !platform.chars().all(word) {
                return None;
            }
            (platform, rest)
        }
        None => ("", rest),
    };
    let name = rest.strip_prefix('.')?;
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some((place, platform, name))
}

#[cfg(test)]
mod tests {
    use super::{AnnotationGroup, split};
    use oci::Platform;

    #[test]
    fn annotation_keys_are_read_with_place_and_platform() {
        assert_eq!(split("annotation.org.x"), Some(("", "", "org.x")));
        assert_eq!(
            split("annotation-index-descriptor.a"),
            Some(("index-descriptor", "", "a"))
        );
        assert_eq!(
            split("annotation-manifest[linux/arm64].a"),
            Some(("manifest", "linux/arm64", "a"))
        );
        for key in [
            "name",
            "annotation",
            "annotations.x",
            "annotation-.x",
            "annotation[].x",
            "annotation.",
            "annotation.a b",
        ] {
            assert_eq!(split(key), None, "{key}");
        }
        let mut group = AnnotationGroup::default();
        assert!(group.take("annotation[linux/arm64/v8].k", "v").unwrap());
        assert!(group.take("annotation.all", "x").unwrap());
        assert!(group.take("annotation-nowhere.k", "v").is_err());
        let arm = group.of(Some(&Platform::new("linux", "arm64", "")));
        assert_eq!(arm.manifest.len(), 2);
        assert_eq!(
            group
                .of(Some(&Platform::new("linux", "amd64", "")))
                .manifest
                .len(),
            1
        );
    }
}
