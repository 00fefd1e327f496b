//! What clients may read of what is kept: the blobs that records of builds and results name.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use oci::Digest;
use store::Store;

use crate::api::{BlobLine, BlobStream, Failure, FailureKind, HistoryBlob};

/// Bytes read at a time.
const PIECE: usize = 256 << 10;

/// A blob to read.
pub(crate) async fn open(store: &Arc<Store>, digest: &Digest) -> Result<HistoryBlob, Failure> {
    let (store, digest) = (Arc::clone(store), digest.clone());
    let known = {
        let (store, digest) = (Arc::clone(&store), digest.clone());
        task::blocking("look up a blob", move || store.blob_info(&digest)).await?
    };
    let info = known.ok_or_else(|| {
        Failure::new(
            FailureKind::NotFound,
            format!("content {digest}: not found"),
        )
    })?;
    Ok(HistoryBlob {
        size: info.size,
        read: Box::new(move |from| {
            Box::pin(async move {
                let file = task::blocking("open a blob", move || {
                    let mut file = store.open_blob(&digest)?;
                    file.seek(SeekFrom::Start(from)).map_err(unreadable)?;
                    Ok::<_, Failure>(file)
                })
                .await?;
                Ok(pieces(file))
            })
        }),
    })
}

fn unreadable(error: std::io::Error) -> Failure {
    Failure::new(FailureKind::Unknown, error).during("cannot read a blob")
}

fn pieces(file: std::fs::File) -> BlobStream {
    stream::unfold(Some(file), |file| async move {
        let mut file = file?;
        let read = task::blocking("read a blob", move || {
            let mut piece = vec![0; PIECE];
            let length = file.read(&mut piece)?;
            piece.truncate(length);
            Ok::<_, std::io::Error>((piece, file))
        })
        .await;
        match read {
            Ok((piece, _)) if piece.is_empty() => None,
            Ok((piece, file)) => Some((Ok(Bytes::from(piece)), Some(file))),
            Err(error) => Some((Err(unreadable(error)), None)),
        }
    })
    .boxed()
}

/// Blobs in the order of their digests.
pub(crate) async fn list(
    store: &Arc<Store>,
    after: &str,
    limit: u32,
) -> Result<Vec<BlobLine>, Failure> {
    let (store, after) = (Arc::clone(store), after.to_owned());
    let found = task::blocking("list blobs", move || store.list_blobs(&after, limit)).await?;
    Ok(found
        .into_iter()
        .map(|blob| BlobLine {
            digest: blob.digest,
            size: blob.size,
            created: blob.created,
        })
        .collect())
}
