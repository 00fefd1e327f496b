//! Limits of client transfers: number, memory, disk space, and time without progress.
//!
//! ```text
//!   Transfers (all sessions) ──► TransferShare (one session) ──► TransferPermit (one transfer, with a thread of its own)
//!                                                   └──► HeldMemory (memory of one transfer's list)
//! ```
//!
//! A client that stalls holds a thread that nobody else needs: transfers run on threads of their own, a few for each
//! session, and end when nothing has moved for a while. What a client lists is held in memory until its contents have
//! come, and what it sends is on disk until it is collected, so both are counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use task::{Permit, Permits};

use crate::error::{CallError, LimitError};
use crate::stream::ByteStream;

/// A session with less memory than this may continue while others have used up the total.
const GUARANTEED_SESSION_BYTES: u64 = 128 << 20;
/// Space that a file takes on disk beside its contents.
const FILE_DISK_BYTES: u64 = 4096;

/// Limits of transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// Time without progress after which a transfer ends; none for no limit.
    pub idle: Option<Duration>,
    /// Number of simultaneous transfers of one session; others wait.
    pub session_transfers: usize,
    /// Number of simultaneous transfers of all sessions.
    pub transfers: usize,
    /// Bytes of memory that the lists of files of one session may take.
    pub session_memory: u64,
    /// Bytes of memory that the lists of files of all sessions may take.
    pub memory: u64,
    /// Bytes that one session may write to disk, over all its transfers.
    pub session_written: u64,
}

impl TransferLimits {
    /// No limits of time and space: for clients, because the daemon limits both.
    #[must_use]
    pub fn of_client() -> Self {
        Self {
            idle: None,
            session_transfers: 64,
            transfers: 64,
            session_memory: 2 << 30,
            memory: 2 << 30,
            session_written: u64::MAX,
        }
    }
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            idle: Some(Duration::from_secs(300)),
            session_transfers: 8,
            transfers: 512,
            session_memory: 1 << 30,
            memory: 2 << 30,
            session_written: u64::MAX,
        }
    }
}

/// Usage of the limits by all sessions.
#[derive(Debug)]
pub struct Transfers {
    limits: TransferLimits,
    places: Permits,
    held_bytes: AtomicU64,
}

impl Transfers {
    /// No usage yet, with these limits.
    #[must_use]
    pub fn new(limits: TransferLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            places: Permits::new(limits.transfers),
            held_bytes: AtomicU64::new(0),
        })
    }

    /// A share for a new session.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Arc<TransferShare> {
        Arc::new(TransferShare {
            all: Arc::clone(self),
            places: Permits::new(self.limits.session_transfers),
            held_bytes: AtomicU64::new(0),
            written: AtomicU64::new(0),
        })
    }
}

/// Usage of the limits by one session.
pub struct TransferShare {
    all: Arc<Transfers>,
    places: Permits,
    held_bytes: AtomicU64,
    written: AtomicU64,
}

/// Permission for one transfer, returned on drop.
#[derive(Debug)]
pub struct TransferPermit {
    _session: Permit,
    _all: Permit,
}

impl TransferShare {
    /// The share of a client, without limits of time and space.
    #[must_use]
    pub fn of_client() -> Arc<Self> {
        Transfers::new(TransferLimits::of_client()).share()
    }

    /// Waits for permission for a transfer, without holding a thread.
    pub async fn permit(&self) -> TransferPermit {
        // The session's own permit comes first: a session that waits for it holds up no other.
        let session = self.places.acquire().await;
        TransferPermit {
            _session: session,
            _all: self.all.places.acquire().await,
        }
    }

    /// Time without progress after which a transfer ends.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        self.all.limits.idle
    }

    /// Waits for `work`; `None` if the time without progress has passed.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.idle() {
            Some(idle) => tokio::time::timeout(idle, work).await.ok(),
            None => Some(work.await),
        }
    }

    /// Counts bytes that will be written to disk.
    pub fn write(&self, bytes: u64) -> Result<(), LimitError> {
        let limit = self.all.limits.session_written;
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > limit {
            return Err(LimitError::Written { limit });
        }
        Ok(())
    }

    /// Counts a file that will be created.
    pub fn write_file(&self) -> Result<(), LimitError> {
        self.write(FILE_DISK_BYTES)
    }

    /// Whether this number of bytes may still be written.
    pub fn may_write(&self, bytes: u64) -> Result<(), LimitError> {
        let limit = self.all.limits.session_written;
        if self.written.load(Ordering::Relaxed).saturating_add(bytes) > limit {
            return Err(LimitError::Written { limit });
        }
        Ok(())
    }

    /// Opens a stream of the client and guards it; opening it has the same time limit.
    pub async fn open(
        self: &Arc<Self>,
        method: &'static str,
        opening: impl Future<Output = Result<ByteStream, CallError>>,
    ) -> Result<ByteStream, CallError> {
        match self.within(opening).await {
            Some(opened) => Ok(self.guard(method, opened?)),
            None => Err(CallError::NotBegun {
                method,
                seconds: self.idle().map_or(0, |idle| idle.as_secs()),
            }),
        }
    }

    /// A stream that ends with an error if nothing arrives for too long, or if it exceeds the session's disk space.
    #[must_use]
    pub fn guard(self: &Arc<Self>, method: &'static str, bytes: ByteStream) -> ByteStream {
        let guarded =
            futures::stream::unfold(Some((Arc::clone(self), bytes)), move |state| async move {
                let (share, mut bytes) = state?;
                let Some(next) = share.within(bytes.next()).await else {
                    let seconds = share.idle().map_or(0, |idle| idle.as_secs());
                    return Some((Err(CallError::Stalled { method, seconds }), None));
                };
                let piece = match next? {
                    Ok(piece) => piece,
                    Err(error) => return Some((Err(error), None)),
                };
                match share.write(piece.len() as u64) {
                    Ok(()) => Some((Ok(piece), Some((share, bytes)))),
                    Err(source) => Some((Err(CallError::Limit { method, source }), None)),
                }
            });
        guarded.boxed()
    }

    /// The memory of a new transfer, zero at first.
    #[must_use]
    pub fn hold_memory(self: &Arc<Self>) -> HeldMemory {
        HeldMemory {
            share: Arc::clone(self),
            bytes: 0,
        }
    }
}

impl fmt::Debug for TransferShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferShare")
            .field("held_bytes", &self.held_bytes)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// Memory that one transfer holds, returned on drop.
#[derive(Debug)]
pub struct HeldMemory {
    share: Arc<TransferShare>,
    bytes: u64,
}

impl HeldMemory {
    /// Adds to the held memory.
    pub fn add(&mut self, bytes: u64) -> Result<(), LimitError> {
        let (share, all) = (&self.share, &self.share.all);
        self.bytes = self.bytes.saturating_add(bytes);
        let of_session = share.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = all.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if of_session > all.limits.session_memory {
            return Err(LimitError::Memory {
                limit: all.limits.session_memory,
            });
        }
        if total > all.limits.memory
            && of_session > GUARANTEED_SESSION_BYTES.min(all.limits.session_memory)
        {
            return Err(LimitError::Memory { limit: of_session });
        }
        Ok(())
    }

    /// Returns a part of the held memory.
    pub fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.share.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.share
            .all
            .held_bytes
            .fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> TransferLimits {
        TransferLimits {
            session_transfers: 2,
            transfers: 3,
            session_memory: 100,
            memory: 150,
            session_written: 10_000,
            ..TransferLimits::default()
        }
    }

    #[test]
    fn a_session_and_all_sessions_together_hold_no_more_than_they_may() {
        let all = Transfers::new(limits());
        let (one, two) = (all.share(), all.share());
        let mut held = one.hold_memory();
        assert_eq!(held.add(100), Ok(()));
        let mut more = one.hold_memory();
        assert_eq!(more.add(1), Err(LimitError::Memory { limit: 100 }));
        drop(more);
        let mut other = two.hold_memory();
        assert_eq!(other.add(60), Ok(()), "a modest session goes on");
        drop(held);
        assert_eq!(all.held_bytes.load(Ordering::Relaxed), 60);
        drop(other);
        assert_eq!(all.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_session_writes_no_more_than_its_quota() {
        let share = Transfers::new(limits()).share();
        assert_eq!(share.write(5_000), Ok(()));
        assert_eq!(share.write_file(), Ok(()));
        assert!(share.may_write(1_000).is_err() && share.may_write(900).is_ok());
        assert!(share.write_file().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stalls_or_brings_too_much_ends_with_an_error() {
        let share = Transfers::new(limits()).share();
        let piece = |n: usize| Ok(bytes::Bytes::from(vec![7; n]));
        let stalled = futures::stream::iter([piece(10)]).chain(futures::stream::pending());
        let endless = futures::stream::repeat_with(move || piece(4_000));
        for (bytes, pieces, words) in [
            (stalled.boxed(), 1, "nothing came for 300 seconds"),
            (endless.boxed(), 2, "more than the 0 MB that it may"),
        ] {
            let all: Vec<_> = share.guard("Pull", bytes).collect().await;
            assert_eq!(all.len(), pieces + 1);
            let error = all.into_iter().next_back().and_then(Result::err);
            let error = error.map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(words), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_waits_for_its_own_transfers_and_not_for_those_of_others() {
        let all = Transfers::new(limits());
        let (one, two) = (all.share(), all.share());
        let (first, _second) = (one.permit().await, one.permit().await);
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, one.permit()).await.is_err());
        let _third = two.permit().await;
        drop(first);
        let _fourth = one.permit().await;
    }
}
