//! The trees of a result as a client gets them: one for each platform, some in folders of their own.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::iter::Peekable;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use fstree::walk::{Filter, Walk};
use fstree::{Root, Stat};
use gostd::Timestamp;
use oci::{Digest, Digester};
use session::diffcopy::order::compare_paths;
use session::diffcopy::{SendError, TreeSource};
use store::{CompressionSpec, ImmutableRef};

use crate::error::{ExportAttributeError, ExportError, ExportResultError};
use crate::manager::{About, ExportContext, ExportSource, Exported, ExporterInstance};
use crate::options::{Epoch, parse_bool};
use crate::platforms::folder_name;

/// The attributes of the exporters of trees.
#[derive(Debug, Clone, Default)]
pub(crate) struct TreeOptions {
    pub(crate) epoch: Epoch,
    /// Whether each platform has a folder; the default is yes where there are several.
    pub(crate) platform_split: Option<bool>,
    /// The folder of the result to export; empty is all of it.
    pub(crate) source: String,
    /// Whether files of the client's folder that are not in the result are deleted.
    pub(crate) delete: bool,
    /// Before the name of every file with a statement.
    pub(crate) attestation_prefix: String,
}

impl TreeOptions {
    pub(crate) fn load(attrs: &BTreeMap<String, String>) -> Result<Self, ExportError> {
        let mut out = Self::default();
        for (key, value) in attrs {
            match key.as_str() {
                "source-date-epoch" => out.epoch = Epoch::from_attr(value)?,
                "platform-split" => {
                    let split = parse_bool(key, value).map_err(|_| {
                        let value = value.clone();
                        ExportAttributeError::PlatformSplit { value }
                    })?;
                    out.platform_split = Some(split);
                }
                "mode" => {
                    out.delete = match value.as_str() {
                        "" | "copy" => false,
                        "delete" => true,
                        _ => {
                            let mode = value.clone();
                            return Err(ExportAttributeError::LocalMode { mode }.into());
                        }
                    }
                }
                "attestation-prefix" => out.attestation_prefix = value.clone(),
                "src" => {
                    if value.is_empty() {
                        return Err(ExportAttributeError::EmptySource.into());
                    }
                    out.source = value.clone();
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

/// An exporter of trees: its names, and how the trees reach the client.
#[async_trait]
pub(crate) trait TreeOutput: std::fmt::Debug + Send + Sync + 'static {
    /// The value of `type`.
    const KIND: &'static str;
    /// What the step of the export is called.
    const NAME: &'static str;

    /// Sends the trees of a result; `id` tells the use of the exporter from others in the same request.
    async fn send(
        ctx: &ExportContext,
        id: usize,
        source: &ExportSource,
        options: &TreeOptions,
    ) -> Result<(), ExportError>;
}

/// One use of an exporter of trees.
#[derive(Debug)]
struct TreeExport<O> {
    id: usize,
    attrs: BTreeMap<String, String>,
    options: TreeOptions,
    output: PhantomData<O>,
}

/// Reads the attributes of one use of an exporter of trees.
pub(crate) fn resolve<O: TreeOutput>(
    id: usize,
    attrs: &BTreeMap<String, String>,
) -> Result<Arc<dyn ExporterInstance>, ExportError> {
    Ok(Arc::new(TreeExport::<O> {
        id,
        attrs: attrs.clone(),
        options: TreeOptions::load(attrs)?,
        output: PhantomData,
    }))
}

#[async_trait]
impl<O: TreeOutput> ExporterInstance for TreeExport<O> {
    fn id(&self) -> usize {
        self.id
    }

    fn kind(&self) -> &'static str {
        O::KIND
    }

    fn name(&self) -> String {
        O::NAME.into()
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
        O::send(ctx, self.id, source, &self.options).await?;
        Ok(Exported::default())
    }
}

/// One tree to send.
#[derive(Debug)]
pub(crate) struct ExportTree {
    /// The platform id.
    pub(crate) id: String,
    /// The files; `None` is an empty tree.
    pub(crate) root: Option<Root>,
    /// The folder they go into, if they have one of their own.
    pub(crate) folder: Option<String>,
    /// The time that all files get.
    pub(crate) epoch: Option<Timestamp>,
    /// Files beside those of the result, sorted by path.
    pub(crate) extra: Vec<ExtraFile>,
    /// Protects the files from collection until they are sent.
    pub(crate) _held: Option<ImmutableRef>,
}

/// A file beside the result, such as a statement.
#[derive(Debug)]
pub(crate) struct ExtraFile {
    pub(crate) stat: Stat,
    pub(crate) bytes: Vec<u8>,
}

/// Opens the trees of a result.
pub(crate) async fn open(
    source: &ExportSource,
    options: &TreeOptions,
) -> Result<Vec<ExportTree>, ExportError> {
    if source.is_map() && !source.metadata.contains_key("refs.platforms") {
        return Err(ExportResultError::NoPlatformMap.into());
    }
    let platforms = source.platforms()?;
    if !source.is_map() && platforms.len() > 1 {
        return Err(ExportResultError::PlatformsWithoutResults.into());
    }
    let split = options.platform_split.unwrap_or(source.is_map());
    let mut out = Vec::with_capacity(platforms.len());
    for platform in platforms {
        let reference = source.find(&platform.id)?.cloned();
        let root = match &reference {
            Some(reference) => {
                reference.ensure().await?;
                let root = reference.root()?;
                Some(if options.source.is_empty() {
                    root
                } else {
                    subtree(&root, &options.source)?
                })
            }
            None if options.source.is_empty() => None,
            None => {
                let path = options.source.clone();
                return Err(ExportResultError::NoSource { path }.into());
            }
        };
        let folder = split.then(|| folder_name(&platform.id));
        let epoch = options.epoch.of(source, Some(&platform.id))?;
        let mut tree = ExportTree {
            id: platform.id,
            root,
            folder,
            epoch,
            extra: Vec::new(),
            _held: reference,
        };
        let names_platform = source.is_map() && !split;
        tree.attest(source, &options.attestation_prefix, names_platform)
            .await?;
        out.push(tree);
    }
    Ok(out)
}

fn subtree(root: &Root, source: &str) -> Result<Root, ExportError> {
    root.subroot(source)
        .map_err(|e| ExportError::malformed(format!("src={source}"), e))
}

type Stats<'a> = Box<dyn Iterator<Item = Result<Stat, SendError>> + Send + 'a>;

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ExportError {
    ExportError::io("hash result", io::Error::other(error))
}

/// The digests of all files, by path.
fn digests(root: &Root) -> Result<Vec<(String, Digest)>, ExportError> {
    let mut out = Vec::new();
    for stat in Walk::new(root, &Filter::default()).map_err(failed)? {
        let stat = stat.map_err(failed)?;
        if !stat.is_file() {
            continue;
        }
        let mut file = root.open_file(&stat.path).map_err(failed)?;
        let mut digester = Digester::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = file.read(&mut buffer).map_err(failed)?;
            let Some(chunk) = buffer.get(..n).filter(|b| !b.is_empty()) else {
                break;
            };
            digester.update(chunk);
        }
        out.push((stat.path.to_string_lossy().into_owned(), digester.finish()));
    }
    Ok(out)
}

impl ExportTree {
    /// Adds the files with statements; `names_platform` says whether the platform is in their names.
    async fn attest(
        &mut self,
        source: &ExportSource,
        prefix: &str,
        names_platform: bool,
    ) -> Result<(), ExportError> {
        let Some(attester) = source.attester.as_ref() else {
            return Ok(());
        };
        if !attester.attests(&self.id, false) {
            return Ok(());
        }
        let files = match self.root.clone() {
            Some(root) => task::blocking("hash export", move || digests(&root)).await?,
            None => Vec::new(),
        };
        let statements = attester.statements(&self.id, About::Files(&files)).await?;
        for statement in statements {
            let file = statement.file.rsplit('/').next().unwrap_or_default();
            let mut name = format!("{prefix}{file}");
            if names_platform {
                let platform = folder_name(&self.id);
                name = match name.rfind('.') {
                    Some(at) => {
                        let (stem, extension) = name.split_at(at);
                        format!("{stem}.{platform}{extension}")
                    }
                    None => format!("{name}.{platform}"),
                };
            }
            let path = PathBuf::from(&name);
            let is_name = path
                .components()
                .all(|c| matches!(c, std::path::Component::Normal(_)));
            if !is_name {
                return Err(ExportResultError::StatementPath { name }.into());
            }
            if self.extra.iter().any(|e| e.stat.path == path) {
                return Err(ExportResultError::DuplicateStatement { name }.into());
            }
            let now = Timestamp::from(task::clock::wall()).seconds();
            let stat = Stat {
                path,
                mode: 0o600,
                size: i64::try_from(statement.bytes.len()).unwrap_or(i64::MAX),
                mod_time: self
                    .nanos()
                    .unwrap_or_else(|| now.saturating_mul(1_000_000_000)),
                ..Stat::default()
            };
            self.extra.push(ExtraFile {
                stat,
                bytes: statement.bytes,
            });
        }
        self.extra
            .sort_by(|a, b| compare_paths(&a.stat.path, &b.stat.path));
        Ok(())
    }

    pub(crate) fn nanos(&self) -> Option<i64> {
        self.epoch
            .map(|t| t.seconds().saturating_mul(1_000_000_000))
    }

    fn stats(&self) -> Result<Stats<'_>, SendError> {
        let Some(root) = &self.root else {
            return Ok(Box::new(std::iter::empty()));
        };
        let time = self.nanos();
        let files = Walk::new(root, &Filter::default())?.map(move |stat| {
            let mut stat = stat?;
            stat.path = self.in_folder(stat.path);
            // A hard link names the file's first path in the tree; a symbolic link's text stays.
            if !stat.is_symlink() {
                stat.linkname = self.in_folder(stat.linkname);
            }
            stat.mod_time = time.unwrap_or(stat.mod_time);
            Ok(stat)
        });
        Ok(Box::new(files))
    }

    fn in_folder(&self, path: PathBuf) -> PathBuf {
        match &self.folder {
            Some(folder) if !path.as_os_str().is_empty() => Path::new(folder).join(path),
            _ => path,
        }
    }

    fn extra_stats(&self) -> Stats<'_> {
        Box::new(self.extra.iter().map(|extra| {
            let mut stat = extra.stat.clone();
            stat.path = self.in_folder(stat.path);
            Ok(stat)
        }))
    }

    /// The folder's own entry.
    pub(crate) fn folder_stat(&self) -> Option<Stat> {
        let folder = self.folder.as_ref()?;
        let mode = fstree::stat::MODE_DIR | 0o755;
        Some(Stat {
            path: folder.into(),
            mode,
            mod_time: self.nanos().unwrap_or(0),
            ..Stat::default()
        })
    }
}

/// Several trees as one, in the order of the protocol. A path that several trees have is that of the first.
#[derive(Debug)]
pub(crate) struct MergedTrees(pub(crate) Vec<ExportTree>);

struct MergedStats<'a> {
    parts: Vec<Peekable<Stats<'a>>>,
}

impl Iterator for MergedStats<'_> {
    type Item = Result<Stat, SendError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut least: Option<PathBuf> = None;
        for part in &mut self.parts {
            match part.peek() {
                Some(Err(_)) => return part.next(),
                Some(Ok(stat))
                    if least
                        .as_ref()
                        .is_none_or(|b| compare_paths(&stat.path, b).is_lt()) =>
                {
                    least = Some(stat.path.clone());
                }
                Some(Ok(_)) | None => {}
            }
        }
        let least = least?;
        let mut first = None;
        for part in &mut self.parts {
            if let Some(stat) = part.next_if(|stat| stat.as_ref().is_ok_and(|s| s.path == least)) {
                first.get_or_insert(stat);
            }
        }
        first
    }
}

impl TreeSource for MergedTrees {
    fn walk(&self) -> Result<Stats<'_>, SendError> {
        let mut parts = Vec::with_capacity(self.0.len());
        for tree in &self.0 {
            parts.push(tree.extra_stats().peekable());
            let folder = tree.folder_stat().map(Ok).into_iter();
            let stats: Stats<'_> = Box::new(folder.chain(tree.stats()?));
            parts.push(stats.peekable());
        }
        Ok(Box::new(MergedStats { parts }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        for tree in &self.0 {
            let inside = match &tree.folder {
                Some(folder) => path.strip_prefix(folder).ok(),
                None => Some(path),
            };
            let Some(inside) = inside else { continue };
            if let Some(extra) = tree.extra.iter().find(|e| e.stat.path == inside) {
                return Ok(Box::new(io::Cursor::new(extra.bytes.clone())));
            }
            let Some(root) = &tree.root else { continue };
            // The file of that name itself: a symbolic link is not followed.
            let Ok(Some((dir, name))) = root.parent(inside) else {
                continue;
            };
            match dir.open_file(&name) {
                Ok(file) => return Ok(Box::new(file)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}
