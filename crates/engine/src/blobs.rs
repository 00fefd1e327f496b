//! Blobs of build records and results, as clients read them.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use oci::Digest;
use store::Store;

use crate::api::{BlobLine, BlobStream, Failure, FailureKind, HistoryBlob};

/// Size of the pieces in which a blob is read.
const PIECE_BYTES: usize = 256 << 10;

/// Opens a blob for reading.
pub(crate) async fn open(store: &Arc<Store>, digest: &Digest) -> Result<HistoryBlob, Failure> {
    let (store, digest) = (Arc::clone(store), digest.clone());
    let info = {
        let (store, digest) = (Arc::clone(&store), digest.clone());
        task::blocking("look up a blob", move || store.blob_info(&digest)).await?
    };
    let info = info.ok_or_else(|| {
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
            let mut piece = vec![0; PIECE_BYTES];
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

/// Lists up to `limit` blobs whose digests follow `after`, ordered by digest.
pub(crate) async fn list(
    store: &Arc<Store>,
    after: &str,
    limit: u32,
) -> Result<Vec<BlobLine>, Failure> {
    let (store, after) = (Arc::clone(store), after.to_owned());
    let blobs = task::blocking("list blobs", move || store.list_blobs(&after, limit)).await?;
    Ok(blobs
        .into_iter()
        .map(|blob| BlobLine {
            digest: blob.digest,
            size: blob.size,
            created: blob.created,
        })
        .collect())
}
