//! Records in an image's config, which name the image's layers by index.

use std::collections::HashMap;
use std::sync::Arc;

use oci::Digest;
use solver::export::ExportMode;
use solver::{KeyInfo, OpCtx};
use store::{CompressionAttributes, CompressionSpec};

use crate::CacheDomain;
use crate::chains::RecordChains;
use crate::error::CacheError;
use crate::export::{CacheRecords, ExportOptions, LayerForm};
use crate::format::{CacheRecord, ChainedResult, never};
use crate::import::UNCOMPRESSED;

impl CacheRecords {
    /// Returns the records of a result that an image with its layers, given by their diff ids, may carry; none if no record fits
    /// the image.
    pub async fn inline<D: CacheDomain>(
        keys: &[KeyInfo<D>],
        layers: &[Digest],
        compression: CompressionSpec,
        ctx: &OpCtx<D>,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        let options = ExportOptions {
            mode: ExportMode::Min,
            compression: CompressionAttributes {
                compression,
                is_named: false,
            },
            form: LayerForm::OfImages,
        };
        let mut gathered = Self::default();
        gathered.add(keys, options, ctx).await?;
        let records = of_image(&gathered.chains, layers)?;
        Ok(records.map(|records| gostd::json::to_vec(&records)))
    }
}

fn of_image(
    chains: &RecordChains,
    image: &[Digest],
) -> Result<Option<Vec<CacheRecord>>, CacheError> {
    let (config, blobs) = chains.config();
    // Indexes of layers in the image by blob; the bytes are the same in any compression.
    let mut places: HashMap<Digest, Vec<i64>> = HashMap::new();
    let mut described = HashMap::new();
    for (place, layer) in (0..).zip(image) {
        for (digest, desc) in &blobs {
            let uncompressed = desc.annotations.get(UNCOMPRESSED);
            if digest == layer || uncompressed.is_some_and(|u| u == layer.as_str()) {
                places.entry(digest.clone()).or_default().push(place);
                described.insert(digest.clone(), Arc::clone(desc));
            }
        }
    }
    let mut fitting = RecordChains::default();
    fitting.add_config(&config, &described)?;
    let (mut config, _) = fitting.config();
    if config.layers.is_empty() {
        tracing::warn!("no record of the build is about layers of the image: it carries none");
        return Ok(None);
    }
    let mut records = std::mem::take(&mut config.records);
    for record in &mut records {
        for mut result in std::mem::take(&mut record.results) {
            let blobs = config.blobs(result.layer);
            let in_order = (0..).zip(&blobs).all(|(place, blob)| {
                let places_of_blob = places.get(blob);
                places_of_blob.is_some_and(|p| p.contains(&place))
            });
            if in_order {
                result.layer = i64::try_from(blobs.len()).unwrap_or(i64::MAX) - 1;
                record.results.push(result);
                continue;
            }
            let mut layers = Vec::with_capacity(blobs.len());
            for blob in &blobs {
                let place = places.get(blob).and_then(|p| p.last());
                layers.push(*place.ok_or_else(|| {
                    CacheError::records(format!("failed to find blob {blob} in layers"))
                })?);
            }
            record.chains.push(ChainedResult {
                layers,
                created_at: never(),
            });
        }
    }
    Ok(Some(records))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use oci::{Descriptor, media_type};

    use super::*;
    use crate::chains::ChainResult;

    fn digest(name: &str) -> Digest {
        Digest::sha256(name)
    }

    fn chains(results: &[(&str, &[&str])]) -> RecordChains {
        let mut out = RecordChains::default();
        for (name, layers) in results {
            let base = out.add(&digest("base"), &[], Vec::new()).unwrap().unwrap();
            let layers = layers.iter().map(|l| {
                let mut desc = Descriptor::new(media_type::OCI_LAYER_GZIP, digest(l), 1);
                let plain = digest(&format!("{l} uncompressed")).to_string();
                desc.annotations.insert(UNCOMPRESSED.into(), plain);
                Arc::new(desc)
            });
            let result = ChainResult {
                created: UNIX_EPOCH + Duration::from_secs(1),
                layers: layers.collect(),
            };
            let way = vec![(base, String::new())];
            out.add(&digest(name), &[way], vec![result]).unwrap();
        }
        out
    }

    fn shape(records: Option<Vec<CacheRecord>>) -> Vec<(Vec<i64>, Vec<Vec<i64>>)> {
        let mut out: Vec<_> = records
            .unwrap_or_default()
            .into_iter()
            .map(|r| {
                let results = r.results.iter().map(|r| r.layer).collect::<Vec<_>>();
                let chains = r.chains.into_iter().map(|c| c.layers).collect::<Vec<_>>();
                (results, chains)
            })
            .filter(|(results, chains)| results.len() + chains.len() > 0)
            .collect();
        out.sort();
        out
    }

    #[test]
    fn results_are_named_by_the_indexes_of_their_layers() {
        let chains_of_steps = chains(&[
            ("run", &["a", "b"]),
            ("copy", &["b"]),
            ("other", &["a", "x"]),
        ]);
        let image = [digest("a"), digest("b")];
        let records = shape(of_image(&chains_of_steps, &image).unwrap());
        assert_eq!(records, [(vec![], vec![vec![1]]), (vec![1], vec![])]);
    }

    #[test]
    fn an_uncompressed_image_fits_records_of_the_same_layers() {
        let chains_of_steps = chains(&[("run", &["a"])]);
        let plain = digest("a uncompressed");
        assert_eq!(
            shape(of_image(&chains_of_steps, &[plain]).unwrap()),
            [(vec![0], vec![])]
        );
        assert_eq!(of_image(&chains_of_steps, &[digest("z")]).unwrap(), None);
    }
}
