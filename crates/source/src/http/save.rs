//! A downloaded file's record in the store.

use fstree::dir::Times;
use futures::StreamExt;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, LAST_MODIFIED};
use store::RefOptions;

use super::body::{DownloadBody, DownloadFile};
use super::name::file_name;
use super::{
    Download, HttpInstance, META_CHECKSUM, META_ETAG, META_FILENAME, META_MODIFIED, META_URL, date,
    disposition, etag_of,
};
use crate::context::Context;
use crate::error::{SourceError, cause};

/// The server sent too few bytes for too long.
#[derive(Debug, thiserror::Error)]
#[error("the server is too slow: {0}")]
struct TooSlow(#[source] registry::Stalled);

impl HttpInstance {
    /// Writes a body into a record of its own.
    pub(super) async fn save(
        &self,
        mut body: DownloadBody,
        headers: &HeaderMap,
        ctx: &Context,
    ) -> Result<Download, SourceError> {
        let store = &self.source.inner.store;
        let options = RefOptions {
            description: format!("http url {}", self.display_url()),
            ..RefOptions::default()
        };
        let mutable = store.new_mutable(None, options)?;
        let filename = file_name(&self.id.url, &self.id.filename, disposition(headers));
        let mode = if self.id.perm == 0 {
            0o600
        } else {
            u32::try_from(self.id.perm & 0o7777).unwrap_or(0o600)
        };
        let root = mutable.root()?;
        let file = root
            .create(&filename, mode)
            .map_err(|e| SourceError::path(format!("create {filename}"), e))?;
        let total = body
            .length()
            .and_then(|n| i64::try_from(n).ok())
            .unwrap_or(0);
        let progress = ctx
            .progress
            .status(format!("downloading {}", self.display_url()), "downloading");
        let is_compressed = headers
            .get(CONTENT_ENCODING)
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"gzip"));
        let mut sink = DownloadFile::new(file, is_compressed);
        let mut pace = registry::BodyPace::default();
        loop {
            let chunk = match &mut body {
                DownloadBody::Answer(response) => {
                    let next = pace.next(response.chunk()).await;
                    let next = next.map_err(|stalled| SourceError::Http {
                        method: "Get",
                        url: self.display_url(),
                        source: cause(TooSlow(stalled)),
                    })?;
                    let next = next.map_err(|e| self.failed("Get", e))?;
                    let length = next.as_ref().map_or(0, bytes::Bytes::len);
                    metrics::TRANSFERRED.add(metrics::Transfer::FromServer, length as u64);
                    next
                }
                DownloadBody::Upload(bytes) => bytes
                    .next()
                    .await
                    .transpose()
                    .map_err(SourceError::session)?,
            };
            let Some(chunk) = chunk else { break };
            sink.write(chunk)
                .await
                .map_err(|e| SourceError::io(format!("write {filename}"), e))?;
            progress.set(i64::try_from(sink.received).unwrap_or(i64::MAX), total);
        }
        sink.finish()
            .map_err(|e| SourceError::io(format!("unpack {filename}"), e))?;
        let modified_text = headers
            .get(LAST_MODIFIED)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let modified = date::parse(&modified_text);
        let DownloadFile { file, digester, .. } = sink;
        let (uid, gid) = (
            u32::try_from(self.id.uid).unwrap_or(0),
            u32::try_from(self.id.gid).unwrap_or(0),
        );
        let nanos = modified.unwrap_or(0).saturating_mul(1_000_000_000);
        let meta = |e| SourceError::io(format!("set metadata of {filename}"), e);
        if uid != 0 || gid != 0 {
            fstree::dir::set_file_owner(&file, uid, gid).map_err(meta)?;
            fstree::dir::set_file_mode(&file, mode).map_err(meta)?;
        }
        fstree::dir::set_file_times(
            &file,
            Times {
                atime: Some(nanos),
                mtime: Some(nanos),
            },
        )
        .map_err(meta)?;
        drop((file, root));
        let digest = digester.finish();
        let reference = mutable.commit()?;
        reference.set_meta(META_CHECKSUM, digest.as_str().as_bytes())?;
        reference.set_meta(META_FILENAME, filename.as_bytes())?;
        if let Some(etag) = etag_of(headers) {
            reference.set_meta(META_ETAG, etag.as_bytes())?;
            reference.set_meta(META_URL, self.url_key().as_str().as_bytes())?;
        }
        if modified.is_some() {
            reference.set_meta(META_MODIFIED, modified_text.as_bytes())?;
        }
        Ok(Download {
            digest,
            filename,
            modified,
            id: reference.id().clone(),
            _held: reference,
        })
    }
}
