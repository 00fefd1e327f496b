//! The image config of an export: what the frontend gave, with layers and history filled in.
//!
//! Every other field is passed on as it came, byte for byte apart from blanks and Go's escapes, under sorted keys: that is
//! how the reference's encoder treats a map of raw values, and it keeps fields that we know nothing of.

use std::collections::BTreeMap;

use gostd::Timestamp;
use oci::{Digest, History, Platform};
use serde::Serialize;

use crate::error::ExportError;

/// One layer as the config sees it.
#[derive(Debug, Clone)]
pub(crate) struct LayerFacts {
    pub(crate) diff_id: Digest,
    pub(crate) description: String,
    pub(crate) created: Option<Timestamp>,
}

/// One history entry in Go's field order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
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

#[derive(Serialize)]
struct RootFs<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// `null` without layers, as an empty Go slice is.
    diff_ids: Option<Vec<&'a Digest>>,
}

/// What goes into a config besides the frontend's.
#[derive(Debug, Default)]
pub(crate) struct Patch<'a> {
    pub(crate) layers: &'a [LayerFacts],
    /// No time in the config is later than this.
    pub(crate) epoch: Option<Timestamp>,
    /// The config of the base image, whose history keeps its times.
    pub(crate) base: Option<&'a [u8]>,
    /// Cache records to embed.
    pub(crate) inline_cache: Option<&'a [u8]>,
}

/// As Go's `map[string]json.RawMessage`: of a name that is there twice, the last value.
type Fields = BTreeMap<String, Vec<u8>>;

/// What of a config is looked at; as with every struct, whatever the case of the names is.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct ConfigFacts {
    os: String,
    architecture: String,
    history: Option<Vec<History>>,
}

/// Fills in layers, history and times.
pub(crate) fn patch(config: &[u8], patch: &Patch<'_>) -> Result<Vec<u8>, ExportError> {
    let bad = |reason: String| ExportError::Config { reason };
    let members = gostd::json::raw_members(config)
        .map_err(|e| ExportError::malformed("failed to parse image config for patch", e))?
        .ok_or_else(|| bad("invalid null image config for export".into()))?;
    let members = members.into_iter();
    let mut fields: Fields = members.map(|(key, raw)| (key, raw.to_vec())).collect();
    let facts: ConfigFacts = gostd::json::from_slice(config)
        .map_err(|e| ExportError::malformed("invalid image config for export", e))?;
    if facts.os.is_empty() {
        return Err(bad("invalid image config for export: missing os".into()));
    }
    if facts.architecture.is_empty() {
        return Err(bad(
            "invalid image config for export: missing architecture".into()
        ));
    }
    let mut history = entries(facts.history)?;
    complete(&mut history, patch.layers);
    let rootfs = RootFs {
        kind: "layers",
        diff_ids: (!patch.layers.is_empty())
            .then(|| patch.layers.iter().map(|l| &l.diff_id).collect()),
    };
    set(&mut fields, "rootfs", &rootfs);
    if let (Some(epoch), Some(history)) = (&patch.epoch, &mut history) {
        clamp(history, epoch, patch.base)?;
    }
    set(&mut fields, "history", &history);
    match (fields.get("created"), &patch.epoch) {
        (Some(raw), Some(epoch)) => {
            let written: Option<String> = gostd::json::from_slice(raw)
                .map_err(|e| ExportError::malformed("failed to unmarshal creation time", e))?;
            if let Some(written) = written {
                let time = Timestamp::parse(&written)
                    .ok_or_else(|| bad(format!("failed to unmarshal creation time {written:?}")))?;
                if time.is_after(epoch) {
                    set(&mut fields, "created", epoch);
                }
            }
        }
        (Some(_), None) => {}
        (None, _) => {
            let last = history
                .iter()
                .flatten()
                .filter_map(|h| h.created)
                .next_back();
            set(&mut fields, "created", &last);
        }
    }
    if let Some(cache) = patch.inline_cache {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(cache);
        set(&mut fields, "moby.buildkit.cache.v0", &text);
    }
    Ok(encode(&fields))
}

fn set(fields: &mut Fields, key: &str, value: &impl Serialize) {
    fields.insert(key.to_owned(), gostd::json::to_vec(value));
}

fn encode(fields: &Fields) -> Vec<u8> {
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

fn entries(read: Option<Vec<History>>) -> Result<Option<Vec<Entry>>, ExportError> {
    let bad = |reason: String| ExportError::Config { reason };
    let Some(read) = read else { return Ok(None) };
    let mut out = Vec::with_capacity(read.len());
    for entry in read {
        let created = match entry.created {
            Some(text) => Some(Timestamp::parse(&text).ok_or_else(|| {
                bad(format!(
                    "failed to unmarshal history from config: parsing time {text:?}"
                ))
            })?),
            None => None,
        };
        out.push(Entry {
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
fn complete(history: &mut Option<Vec<Entry>>, layers: &[LayerFacts]) {
    let counted = history.iter().flatten().filter(|h| !h.empty_layer).count();
    if counted > layers.len() {
        // A config that claims more layers than there are: the surplus is said to be empty.
        let mut left = layers.len();
        for entry in history.iter_mut().flatten() {
            if left == 0 {
                entry.empty_layer = true;
            }
            if !entry.empty_layer {
                left -= 1;
            }
        }
    }
    if let Some(missing) = layers.get(counted..).filter(|m| !m.is_empty()) {
        history
            .get_or_insert_with(Vec::new)
            .extend(missing.iter().map(|layer| Entry {
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

fn clamp(history: &mut [Entry], epoch: &Timestamp, base: Option<&[u8]>) -> Result<(), ExportError> {
    let base = match base {
        Some(config) => {
            let read: ConfigFacts = gostd::json::from_slice(config)
                .map_err(|e| ExportError::malformed("failed to unmarshal base image config", e))?;
            entries(read.history)?.unwrap_or_default()
        }
        None => Vec::new(),
    };
    let unchanged = history
        .iter()
        .zip(&base)
        .take_while(|(own, base)| own == base)
        .count();
    for entry in history.iter_mut().skip(unchanged) {
        if entry.created.is_none_or(|created| created.is_after(epoch)) {
            entry.created = Some(*epoch);
        }
    }
    Ok(())
}

/// The config of an image of which the frontend said nothing.
pub(crate) fn default_config() -> Vec<u8> {
    #[derive(Serialize)]
    struct Config {
        #[serde(flatten)]
        platform: Platform,
        config: oci::ContainerConfig,
        rootfs: RootFs<'static>,
    }
    let config = oci::ContainerConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        working_dir: "/".into(),
        ..oci::ContainerConfig::default()
    };
    gostd::json::to_vec(&Config {
        platform: Platform::host(),
        config,
        rootfs: RootFs {
            kind: "layers",
            diff_ids: None,
        },
    })
}

#[cfg(test)]
mod tests;
