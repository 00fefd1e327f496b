//! The image config of an export: what the frontend gave, with layers and history filled in.
//!
//! Every other field is passed on as it came, byte for byte apart from blanks and Go's escapes, under sorted keys: that is
//! how the reference's encoder treats a map of raw values, and it keeps fields that we know nothing of.

use std::collections::BTreeMap;

use gostd::Timestamp;
use oci::{Digest, History, Platform};
use serde::Serialize;

use crate::error::{ExportError, ImageConfigError};

/// One layer as the config sees it.
#[derive(Debug, Clone)]
pub(crate) struct LayerFacts {
    pub(crate) diff_id: Digest,
    pub(crate) description: String,
    pub(crate) created: Option<Timestamp>,
}

/// One history entry in Go's field order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HistoryEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    empty_layer: bool,
}

/// The member `rootfs` of a config.
#[derive(Serialize)]
pub(crate) struct ConfigRootFs<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// `null` without layers, as an empty Go slice is.
    diff_ids: Option<Vec<&'a Digest>>,
}

impl<'a> ConfigRootFs<'a> {
    pub(crate) fn new(diff_ids: Vec<&'a Digest>) -> Self {
        Self {
            kind: "layers",
            diff_ids: (!diff_ids.is_empty()).then_some(diff_ids),
        }
    }
}

/// What an export adds to the frontend's config.
#[derive(Debug, Default)]
pub(crate) struct Patch<'a> {
    pub(crate) layers: &'a [LayerFacts],
    /// No time in the config is later than this.
    pub(crate) epoch: Option<Timestamp>,
    /// The config of the base image, whose history keeps its times.
    pub(crate) base: Option<&'a [u8]>,
    /// The inline cache, as the JSON that is embedded.
    pub(crate) inline_cache: Option<&'a [u8]>,
}

/// The members of a config, unparsed, as in Go's `map[string]json.RawMessage`: of a repeated name, the last value.
type RawFields = BTreeMap<String, Vec<u8>>;

/// The members of a config that decide something here. As with every Go struct, the case of their names does not count.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct ConfigFacts {
    os: String,
    architecture: String,
    history: Option<Vec<History>>,
}

/// Fills in layers, history and times.
pub(crate) fn patch(config: &[u8], patch: &Patch<'_>) -> Result<Vec<u8>, ExportError> {
    let members = gostd::json::raw_members(config)
        .map_err(|e| ExportError::malformed("failed to parse image config for patch", e))?
        .ok_or(ImageConfigError::Null)?;
    let members = members.into_iter();
    let mut fields: RawFields = members.map(|(key, raw)| (key, raw.to_vec())).collect();
    let facts: ConfigFacts = gostd::json::from_slice(config)
        .map_err(|e| ExportError::malformed("invalid image config for export", e))?;
    if facts.os.is_empty() {
        return Err(ImageConfigError::NoOs.into());
    }
    if facts.architecture.is_empty() {
        return Err(ImageConfigError::NoArchitecture.into());
    }
    let mut history = entries(facts.history)?;
    complete(&mut history, patch.layers);
    let rootfs = ConfigRootFs::new(patch.layers.iter().map(|l| &l.diff_id).collect());
    set(&mut fields, "rootfs", &rootfs);
    if let (Some(epoch), Some(history)) = (&patch.epoch, &mut history) {
        clamp(history, epoch, patch.base)?;
    }
    set(&mut fields, "history", &history);
    match (fields.get("created"), &patch.epoch) {
        (Some(raw), Some(epoch)) => {
            let created: Option<String> = gostd::json::from_slice(raw)
                .map_err(|e| ExportError::malformed("failed to unmarshal creation time", e))?;
            if let Some(text) = created {
                let Some(time) = Timestamp::parse(&text) else {
                    return Err(ImageConfigError::Created { text }.into());
                };
                if time.is_after(epoch) {
                    set(&mut fields, "created", epoch);
                }
            }
        }
        (Some(_), None) => {}
        (None, _) => {
            let latest = history
                .iter()
                .flatten()
                .filter_map(|h| h.created)
                .next_back();
            set(&mut fields, "created", &latest);
        }
    }
    if let Some(cache) = patch.inline_cache {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(cache);
        set(&mut fields, "moby.buildkit.cache.v0", &text);
    }
    Ok(encode(&fields))
}

fn set(fields: &mut RawFields, key: &str, value: &impl Serialize) {
    fields.insert(key.to_owned(), gostd::json::to_vec(value));
}

fn encode(fields: &RawFields) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (at, (key, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend(gostd::json::to_vec(key));
        out.push(b':');
        gostd::json::compact(value, &mut out);
    }
    out.push(b'}');
    out
}

fn entries(history: Option<Vec<History>>) -> Result<Option<Vec<HistoryEntry>>, ExportError> {
    let Some(history) = history else {
        return Ok(None);
    };
    let mut out = Vec::with_capacity(history.len());
    for entry in history {
        let created = match entry.created {
            Some(text) => match Timestamp::parse(&text) {
                Some(time) => Some(time),
                None => return Err(ImageConfigError::HistoryTime { text }.into()),
            },
            None => None,
        };
        out.push(HistoryEntry {
            created,
            created_by: entry.created_by,
            author: entry.author,
            comment: entry.comment,
            empty_layer: entry.empty_layer,
        });
    }
    Ok(Some(out))
}

/// Makes history and layers agree, and gives every entry a time.
fn complete(history: &mut Option<Vec<HistoryEntry>>, layers: &[LayerFacts]) {
    let described = history.iter().flatten().filter(|h| !h.empty_layer).count();
    if described > layers.len() {
        // A config that claims more layers than there are: the surplus entries become empty ones.
        let mut unassigned = layers.len();
        for entry in history.iter_mut().flatten() {
            if unassigned == 0 {
                entry.empty_layer = true;
            }
            if !entry.empty_layer {
                unassigned -= 1;
            }
        }
    }
    if let Some(missing) = layers.get(described..).filter(|m| !m.is_empty()) {
        history
            .get_or_insert_with(Vec::new)
            .extend(missing.iter().map(|layer| HistoryEntry {
                created: layer.created,
                created_by: layer.description.clone(),
                author: String::new(),
                comment: "buildkit.exporter.image.v0".into(),
                empty_layer: false,
            }));
    }
    let Some(history) = history else { return };
    let mut layer = layers.iter();
    for entry in history.iter_mut().filter(|h| !h.empty_layer) {
        let facts = layer.next();
        if entry.created.is_none() {
            entry.created = facts.and_then(|l| l.created);
        }
    }
    // Entries without a time get that of the first new layer, or of the entry before them.
    let mut created = None;
    let mut gap = false;
    for entry in history.iter() {
        if entry.created.is_some() {
            created = entry.created;
            if gap {
                break;
            }
        } else {
            gap = true;
        }
    }
    gap = false;
    for entry in history.iter_mut() {
        if entry.created.is_some() {
            if gap {
                created = entry.created;
            }
        } else {
            gap = true;
            entry.created = created;
        }
    }
}

/// Holds times down to the epoch, except in the entries that the base image has as well.
fn clamp(
    history: &mut [HistoryEntry],
    epoch: &Timestamp,
    base: Option<&[u8]>,
) -> Result<(), ExportError> {
    let base = match base {
        Some(config) => {
            let facts: ConfigFacts = gostd::json::from_slice(config)
                .map_err(|e| ExportError::malformed("failed to unmarshal base image config", e))?;
            entries(facts.history)?.unwrap_or_default()
        }
        None => Vec::new(),
    };
    let unchanged = history
        .iter()
        .zip(&base)
        .take_while(|(entry, base_entry)| entry == base_entry)
        .count();
    for entry in history.iter_mut().skip(unchanged) {
        if entry.created.is_none_or(|created| created.is_after(epoch)) {
            entry.created = Some(*epoch);
        }
    }
    Ok(())
}

/// The config of an image for which the frontend gave none.
pub(crate) fn default_config() -> Vec<u8> {
    #[derive(Serialize)]
    struct DefaultConfig {
        #[serde(flatten)]
        platform: Platform,
        config: oci::ContainerConfig,
        rootfs: ConfigRootFs<'static>,
    }
    let config = oci::ContainerConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        working_dir: "/".into(),
        ..oci::ContainerConfig::default()
    };
    gostd::json::to_vec(&DefaultConfig {
        platform: Platform::host(),
        config,
        rootfs: ConfigRootFs::new(Vec::new()),
    })
}

#[cfg(test)]
mod tests;
