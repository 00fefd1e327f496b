//! The cache config: `application/vnd.buildkit.cacheconfig.v0`.
//!
//! ```text
//! { "layers":  [ { "blob": digest, "parent": index of a layer | -1 } ],
//!   "records": [ { "digest": digest of the key,
//!                  "inputs": [ [ { "selector": digest?, "link": index of a record } ] ],     per input, the links that lead here
//!                  "layers": [ { "layer": index, "createdAt": time } ],                      a layer and all its parents
//!                  "chains": [ { "layers": [ indexes ], "createdAt": time } ] } ] }          these layers, base first
//! ```
//!
//! The order of fields, and which empty ones are left out, are those of BuildKit's encoder: a parent of 0 is not written.

use gostd::Timestamp;
use oci::Digest;
use serde::{Deserialize, Deserializer, Serialize};

/// The media type of the config blob.
pub const CONFIG_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// The records of a cache and the layers that they use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// Layers that records refer to by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<CacheLayer>,
    /// Records that link to each other by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<CacheRecord>,
}

/// A layer on top of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLayer {
    /// The layer's blob, described in the manifest.
    pub blob: Digest,
    /// Index of the layer below, −1 if there is none.
    #[serde(default, rename = "parent", skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// Description of the blob where no manifest has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<LayerAnnotations>,
}

/// The description of a layer without a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerAnnotations {
    /// Media type of the blob.
    #[serde(
        default,
        rename = "mediaType",
        skip_serializing_if = "String::is_empty"
    )]
    pub media_type: String,
    /// Digest of the uncompressed bytes.
    #[serde(default, rename = "diffID", skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// Size of the blob in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: i64,
    /// When the layer was created.
    #[serde(
        rename = "createdAt",
        default = "never",
        deserialize_with = "time_or_never"
    )]
    pub created_at: Timestamp,
}

/// A key with its links and results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Results that are a layer with all its parents.
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<CacheResult>,
    /// Results that list their layers.
    #[serde(default, rename = "chains", skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<ChainedResult>,
    /// Digest of the key.
    pub digest: Digest,
    /// Per input, links from the records that it may come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<CacheInput>>,
}

/// A layer with all its parents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheResult {
    /// Index of the layer.
    #[serde(default)]
    pub layer: i64,
    /// When the result was created.
    #[serde(
        rename = "createdAt",
        default = "never",
        deserialize_with = "time_or_never"
    )]
    pub created_at: Timestamp,
}

/// A result as a list of layers, whatever their parents are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainedResult {
    /// Indexes of the layers, base first.
    #[serde(default)]
    pub layers: Vec<i64>,
    /// When the result was created.
    #[serde(
        rename = "createdAt",
        default = "never",
        deserialize_with = "time_or_never"
    )]
    pub created_at: Timestamp,
}

/// A link from the record of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInput {
    /// Digest of the part of the input that is read; empty for all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Index of the input's record.
    #[serde(default)]
    pub link: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// The zero time of Go, which stands for no time.
pub(crate) fn never() -> Timestamp {
    Timestamp::parse("0001-01-01T00:00:00Z").expect("it is a time")
}

fn time_or_never<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(never))
}

impl CacheConfig {
    /// Sorts layers and records in BuildKit's order, so that equal caches are equal documents.
    pub(crate) fn sort(&mut self) {
        let at = |places: &[usize], index: i64| {
            let place = usize::try_from(index).ok().and_then(|i| places.get(i));
            place.map_or(-1, |p| i64::try_from(*p).unwrap_or(-1))
        };
        let mut order: Vec<usize> = (0..self.layers.len()).collect();
        order.sort_by_key(|i| self.layers.get(*i).map(|l| (l.blob.clone(), l.parent)));
        let layers = inverse(&order);
        let mut sorted: Vec<CacheLayer> = pick(&self.layers, &order);
        for layer in &mut sorted {
            if layer.parent != -1 {
                layer.parent = at(&layers, layer.parent);
            }
        }
        self.layers = sorted;

        let mut order: Vec<usize> = (0..self.records.len()).collect();
        order.sort_by_cached_key(|i| self.records.get(*i).map(|r| self.sort_key(r)));
        let records = inverse(&order);
        let mut sorted: Vec<CacheRecord> = pick(&self.records, &order);
        for record in &mut sorted {
            for result in &mut record.results {
                result.layer = at(&layers, result.layer);
            }
            for inputs in &mut record.inputs {
                for input in inputs.iter_mut() {
                    input.link = at(&records, input.link);
                }
                inputs.sort_by(|a, b| (a.link, &a.selector).cmp(&(b.link, &b.selector)));
            }
        }
        self.records = sorted;
    }

    /// Orders by digest, number of inputs, number of links of each, then the links themselves.
    fn sort_key(&self, record: &CacheRecord) -> impl Ord + use<> {
        type Ways = Vec<(usize, Vec<(String, Option<Digest>)>)>;
        let ways: Ways = record
            .inputs
            .iter()
            .map(|inputs| {
                let ways = inputs.iter().map(|input| {
                    let from = usize::try_from(input.link).ok();
                    let from = from.and_then(|i| self.records.get(i));
                    (input.selector.clone(), from.map(|r| r.digest.clone()))
                });
                (inputs.len(), ways.collect())
            })
            .collect();
        (record.digest.clone(), record.inputs.len(), ways)
    }

    /// The blobs of a layer and its parents, base first. The config must be one that this crate wrote.
    pub(crate) fn blobs(&self, layer: i64) -> Vec<Digest> {
        let mut out = Vec::new();
        let mut next = usize::try_from(layer).ok();
        while let Some(layer) = next.and_then(|i| self.layers.get(i)) {
            out.push(layer.blob.clone());
            if out.len() > self.layers.len() {
                break;
            }
            next = usize::try_from(layer.parent).ok();
        }
        out.reverse();
        out
    }
}

fn inverse(order: &[usize]) -> Vec<usize> {
    let mut out = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        if let Some(place) = out.get_mut(*old) {
            *place = new;
        }
    }
    out
}

fn pick<T: Clone>(from: &[T], order: &[usize]) -> Vec<T> {
    order.iter().filter_map(|i| from.get(*i).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_written_as_it_was_read() {
        let digest = |n: u8| format!("sha256:{}", format!("{n:x}").repeat(64));
        let (a, b, c) = (digest(0xa), digest(0xb), digest(0xc));
        let text = format!(
            "{{\"layers\":[{{\"blob\":\"{a}\",\"parent\":-1}},{{\"blob\":\"{b}\"}}],\
             \"records\":[{{\"digest\":\"{a}\"}},{{\"layers\":[{{\"layer\":1,\"createdAt\":\"2026-01-02T03:04:05.6Z\"}}],\
             \"digest\":\"{b}\",\"inputs\":[[{{\"selector\":\"{c}\",\"link\":0}}]]}},\
             {{\"chains\":[{{\"layers\":[1,0],\"createdAt\":\"0001-01-01T00:00:00Z\"}}],\"digest\":\"{c}\",\"inputs\":[[{{\"link\":1}}]]}}]}}"
        );
        let mut read: CacheConfig = gostd::json::from_slice(text.as_bytes()).unwrap();
        assert_eq!(read.layers[1].parent, 0);
        read.sort();
        assert_eq!(String::from_utf8(gostd::json::to_vec(&read)).unwrap(), text);
    }

    #[test]
    fn sorting_keeps_all_references() {
        let digest = |text: &str| Digest::sha256(text);
        let record = |name: &str, layer: Option<i64>, links: &[i64]| CacheRecord {
            results: layer
                .into_iter()
                .map(|layer| CacheResult {
                    layer,
                    created_at: never(),
                })
                .collect(),
            chains: Vec::new(),
            digest: digest(name),
            inputs: if links.is_empty() {
                Vec::new()
            } else {
                vec![
                    links
                        .iter()
                        .map(|link| CacheInput {
                            selector: String::new(),
                            link: *link,
                        })
                        .collect(),
                ]
            },
        };
        let layer = |name: &str, parent| CacheLayer {
            blob: digest(name),
            parent,
            annotations: None,
        };
        let mut config = CacheConfig {
            layers: vec![layer("one", -1), layer("two", 0), layer("three", 1)],
            records: vec![
                record("base", None, &[]),
                record("mid", Some(1), &[0]),
                record("top", Some(2), &[1, 0]),
            ],
        };
        config.sort();
        let top = config
            .records
            .iter()
            .find(|r| r.digest == digest("top"))
            .unwrap();
        assert_eq!(
            config.blobs(top.results[0].layer),
            [digest("one"), digest("two"), digest("three")]
        );
        let mut below: Vec<_> = top.inputs[0]
            .iter()
            .map(|i| {
                config.records[usize::try_from(i.link).unwrap()]
                    .digest
                    .clone()
            })
            .collect();
        below.sort();
        let mut want = vec![digest("base"), digest("mid")];
        want.sort();
        assert_eq!(below, want);
    }
}
