//! `type=local`: the files of a result into a folder of the client.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use fstree::walk::{Filter, Walk};
use store::CompressionSpec;

use crate::client;
use crate::error::ExportError;
use crate::manager::{ExportContext, ExportSource, Exported, Exporter, ExporterInstance};
use crate::tree::{Tree, TreeOptions, open};

/// Exports trees.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalExporter;

#[derive(Debug)]
struct Instance {
    id: usize,
    attrs: BTreeMap<String, String>,
    options: TreeOptions,
}

impl Exporter for LocalExporter {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn resolve(
        &self,
        id: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        Ok(Arc::new(Instance {
            id,
            attrs: attrs.clone(),
            options: TreeOptions::load(attrs)?,
        }))
    }
}

#[async_trait]
impl ExporterInstance for Instance {
    fn id(&self) -> usize {
        self.id
    }

    fn kind(&self) -> &'static str {
        "local"
    }

    fn name(&self) -> String {
        "exporting to client directory".into()
    }

    fn attrs(&self) -> &BTreeMap<String, String> {
        &self.attrs
    }

    fn compression(&self) -> Option<CompressionSpec> {
        None
    }

    async fn export(
        &self,
        ctx: &ExportContext,
        source: &ExportSource,
    ) -> Result<Exported, ExportError> {
        let trees = open(source, &self.options).await?;
        if trees.len() > 1 && trees.iter().all(|t| t.folder.is_none()) {
            no_clashes(&trees).await?;
        }
        client::send_trees(ctx, self.id, trees, self.options.delete).await?;
        Ok(Exported::default())
    }
}

/// Refuses trees of several platforms that would overwrite each other's files.
async fn no_clashes(trees: &[Tree]) -> Result<(), ExportError> {
    let roots: Vec<_> = trees
        .iter()
        .map(|t| {
            let extra: Vec<_> = t.extra.iter().map(|e| e.stat.path.clone()).collect();
            (t.id.clone(), t.root.clone(), extra)
        })
        .collect();
    task::blocking("export", move || {
        let mut platform_of_path: HashMap<PathBuf, String> = HashMap::new();
        let mut see = |path: PathBuf, id: &str| {
            if let Some(other) = platform_of_path.get(&path) {
                let path = path.display();
                let reason = format!(
                    "cannot overwrite {path} from {other} with {id} when split option is disabled"
                );
                return Err(ExportError::result(reason));
            }
            platform_of_path.insert(path, id.to_owned());
            Ok(())
        };
        for (id, root, extra) in roots {
            let failed = |e: fstree::walk::WalkError| {
                ExportError::io("walk result", std::io::Error::other(e))
            };
            for path in extra {
                see(path, &id)?;
            }
            let Some(root) = root else { continue };
            for stat in Walk::new(&root, &Filter::default()).map_err(failed)? {
                let stat = stat.map_err(failed)?;
                if !stat.is_dir() {
                    see(stat.path, &id)?;
                }
            }
        }
        Ok(())
    })
    .await
}
