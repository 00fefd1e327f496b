//! `type=local`: the files of a result into a folder of the client.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use fstree::walk::{Filter, Walk};

use crate::client;
use crate::error::{ExportError, ExportResultError};
use crate::manager::{ExportContext, ExportSource, Exporter, ExporterInstance};
use crate::tree::{self, ExportTree, TreeOptions, TreeOutput, open};

/// Exports trees into a folder of the client.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalExporter;

impl Exporter for LocalExporter {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn resolve(
        &self,
        id: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        tree::resolve::<Self>(id, attrs)
    }
}

#[async_trait]
impl TreeOutput for LocalExporter {
    const KIND: &'static str = "local";
    const NAME: &'static str = "exporting to client directory";

    async fn send(
        ctx: &ExportContext,
        id: usize,
        source: &ExportSource,
        options: &TreeOptions,
    ) -> Result<(), ExportError> {
        let trees = open(source, options).await?;
        if trees.len() > 1 && trees.iter().all(|t| t.folder.is_none()) {
            refuse_clashes(&trees).await?;
        }
        client::send_trees(ctx, id, trees, options.delete).await?;
        Ok(())
    }
}

/// Refuses trees of several platforms that would overwrite each other's files.
async fn refuse_clashes(trees: &[ExportTree]) -> Result<(), ExportError> {
    let roots: Vec<_> = trees
        .iter()
        .map(|t| {
            let extra_paths: Vec<_> = t.extra.iter().map(|e| e.stat.path.clone()).collect();
            (t.id.clone(), t.root.clone(), extra_paths)
        })
        .collect();
    task::blocking("export", move || {
        let mut platform_of_path: HashMap<PathBuf, String> = HashMap::new();
        let mut claim = |path: PathBuf, id: &str| {
            if let Some(first) = platform_of_path.get(&path) {
                let (first, second) = (first.clone(), id.to_owned());
                return Err(ExportResultError::Overwrite {
                    path,
                    first,
                    second,
                });
            }
            platform_of_path.insert(path, id.to_owned());
            Ok(())
        };
        for (id, root, extra_paths) in roots {
            let failed = |e: fstree::walk::WalkError| {
                ExportError::io("walk result", std::io::Error::other(e))
            };
            for path in extra_paths {
                claim(path, &id)?;
            }
            let Some(root) = root else { continue };
            for stat in Walk::new(&root, &Filter::default()).map_err(failed)? {
                let stat = stat.map_err(failed)?;
                if !stat.is_dir() {
                    claim(stat.path, &id)?;
                }
            }
        }
        Ok(())
    })
    .await
}
