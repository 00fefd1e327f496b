//! Which platforms a result is for.

use std::collections::BTreeMap;

use oci::Platform;
use serde::Deserialize;

use crate::error::ExportError;

/// One platform of a result and the id its refs and metadata go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformEntry {
    /// The id, as `linux/amd64`.
    pub id: String,
    /// The platform in normal form.
    pub platform: Platform,
}

/// The folder of a platform's files, whatever its id is: one name.
pub(crate) fn folder_name(id: &str) -> String {
    match id {
        "." | ".." => "_".repeat(id.len()),
        _ => id.replace(['/', '\\', ':'], "_"),
    }
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "Platforms", default)]
    platforms: Vec<WireEntry>,
}

#[derive(Deserialize)]
struct WireEntry {
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
        let wire = if bytes.is_empty() {
            Wire {
                platforms: Vec::new(),
            }
        } else {
            gostd::json::from_slice::<Option<Wire>>(bytes)
                .map_err(|e| {
                    let what = "failed to parse platforms passed to provenance processor";
                    ExportError::malformed(what, e)
                })?
                .unwrap_or(Wire {
                    platforms: Vec::new(),
                })
        };
        if wire.platforms.is_empty() {
            return Err(ExportError::result(
                "invalid empty platforms index for exporter",
            ));
        }
        let mut out = Vec::with_capacity(wire.platforms.len());
        for entry in wire.platforms {
            if entry.id.is_empty() {
                return Err(ExportError::result(
                    "invalid empty platform key for exporter",
                ));
            }
            let platform = entry.platform.unwrap_or_default();
            if platform.os.is_empty() || platform.architecture.is_empty() {
                return Err(ExportError::result(format!(
                    "invalid platform value {} for exporter",
                    entry.id
                )));
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
                return Err(ExportError::result(
                    "invalid image config: os and architecture must be specified together",
                ));
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
            .map(|all| {
                all.into_iter()
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
