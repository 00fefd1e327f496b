//! Which platforms a result is for.

use std::collections::BTreeMap;

use oci::Platform;
use serde::Deserialize;

use crate::error::{ExportError, ExportResultError};

/// One platform of a result, and the id under which its ref and metadata are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformEntry {
    /// The id, as `linux/amd64`.
    pub id: String,
    /// The platform in normal form.
    pub platform: Platform,
}

/// The folder of a platform's files: a single path component, whatever the id contains.
pub(crate) fn folder_name(id: &str) -> String {
    match id {
        "." | ".." => "_".repeat(id.len()),
        _ => id.replace(['/', '\\', ':'], "_"),
    }
}

/// The metadata `refs.platforms`, in the JSON of frontends.
#[derive(Deserialize)]
struct RefsPlatforms {
    #[serde(rename = "Platforms", default)]
    platforms: Vec<RefsPlatform>,
}

#[derive(Deserialize)]
struct RefsPlatform {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Platform", default)]
    platform: Option<Platform>,
}

/// The platforms that the frontend named; else that of the image config; else the host's.
pub fn platforms_of(
    metadata: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<PlatformEntry>, ExportError> {
    if let Some(bytes) = metadata.get("refs.platforms") {
        let refs_platforms = if bytes.is_empty() {
            RefsPlatforms {
                platforms: Vec::new(),
            }
        } else {
            gostd::json::from_slice::<Option<RefsPlatforms>>(bytes)
                .map_err(|e| {
                    let what = "failed to parse platforms passed to provenance processor";
                    ExportError::malformed(what, e)
                })?
                .unwrap_or(RefsPlatforms {
                    platforms: Vec::new(),
                })
        };
        if refs_platforms.platforms.is_empty() {
            return Err(ExportResultError::EmptyPlatforms.into());
        }
        let mut out = Vec::with_capacity(refs_platforms.platforms.len());
        for entry in refs_platforms.platforms {
            if entry.id.is_empty() {
                return Err(ExportResultError::EmptyPlatformId.into());
            }
            let platform = entry.platform.unwrap_or_default();
            if platform.os.is_empty() || platform.architecture.is_empty() {
                return Err(ExportResultError::IncompletePlatform { id: entry.id }.into());
            }
            out.push(PlatformEntry {
                id: entry.id,
                platform: platform.normalize(),
            });
        }
        return Ok(out);
    }
    let platform = match metadata.get("containerimage.config") {
        Some(config) => {
            let platform: Option<Platform> = gostd::json::from_slice(config)
                .map_err(|e| ExportError::malformed("invalid image config", e))?;
            let platform = platform.unwrap_or_default();
            if platform.os.is_empty() != platform.architecture.is_empty() {
                return Err(ExportResultError::IncompleteConfigPlatform.into());
            }
            platform
        }
        None => Platform::host(),
    };
    let platform = platform.normalize();
    Ok(vec![PlatformEntry {
        id: platform.format_all(),
        platform,
    }])
}

#[cfg(test)]
mod tests {
    use super::platforms_of;
    use std::collections::BTreeMap;

    fn check(key: &str, value: &str) -> Result<Vec<String>, String> {
        let metadata = BTreeMap::from([(key.to_owned(), value.as_bytes().to_vec())]);
        platforms_of(&metadata)
            .map(|platforms| {
                platforms
                    .into_iter()
                    .map(|p| format!("{}={}", p.id, p.platform))
                    .collect()
            })
            .map_err(|e| e.to_string())
    }

    #[test]
    fn an_id_is_one_name() {
        for (id, want) in [
            ("linux/amd64", "linux_amd64"),
            ("..\\out", ".._out"),
            ("windows/amd64:C", "windows_amd64_C"),
            ("..", "__"),
        ] {
            assert_eq!(super::folder_name(id), want);
        }
    }

    #[test]
    fn platforms_come_from_the_map_or_the_config() {
        let both = r#"{"Platforms":[{"ID":"a","Platform":{"architecture":"arm64","os":"linux","variant":"v8"}},{"ID":"b","Platform":{"architecture":"x86_64","os":"linux"}}]}"#;
        assert_eq!(
            check("refs.platforms", both).unwrap(),
            ["a=linux/arm64", "b=linux/amd64"]
        );
        assert_eq!(
            check(
                "containerimage.config",
                r#"{"os":"linux","architecture":"s390x"}"#
            )
            .unwrap(),
            ["linux/s390x=linux/s390x"]
        );
        assert_eq!(
            check("refs.platforms", "").unwrap_err(),
            "invalid empty platforms index for exporter"
        );
        assert_eq!(
            check("refs.platforms", "null").unwrap_err(),
            "invalid empty platforms index for exporter"
        );
        assert_eq!(
            check("refs.platforms", r#"{"Platforms":[{"ID":""}]}"#).unwrap_err(),
            "invalid empty platform key for exporter"
        );
        assert!(
            check("containerimage.config", r#"{"os":"linux"}"#)
                .unwrap_err()
                .contains("together")
        );
    }
}
