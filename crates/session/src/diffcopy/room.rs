//! A limit on the bytes in flight between two threads.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

/// A limit on bytes in flight. A single piece is allowed, however large.
#[derive(Debug)]
pub(crate) struct Room {
    limit: usize,
    taken_bytes: Mutex<usize>,
    freed: Condvar,
}

/// Bytes that return their room when the last owner drops them.
struct Piece {
    bytes: Vec<u8>,
    _room: TakenRoom,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reserved room, returned on drop.
#[derive(Debug)]
pub(crate) struct TakenRoom {
    room: Arc<Room>,
    size: usize,
}

impl Room {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken_bytes: Mutex::new(0),
            freed: Condvar::new(),
        })
    }

    /// Blocks this thread until there is room.
    pub(crate) fn take(self: &Arc<Self>, size: usize) -> TakenRoom {
        let mut taken = self.taken_bytes.lock();
        while *taken > 0 && taken.saturating_add(size) > self.limit {
            self.freed.wait(&mut taken);
        }
        *taken += size;
        TakenRoom {
            room: Arc::clone(self),
            size,
        }
    }

    /// Copies bytes into room that they keep until they are dropped.
    pub(crate) fn copy(self: &Arc<Self>, bytes: &[u8]) -> Bytes {
        let taken = self.take(bytes.len());
        Bytes::from_owner(Piece {
            bytes: bytes.to_vec(),
            _room: taken,
        })
    }
}

impl Drop for TakenRoom {
    fn drop(&mut self) {
        *self.room.taken_bytes.lock() -= self.size;
        // All: the next one in line may want more than there is.
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_room_until_nobody_holds_them() {
        let room = Room::new(10);
        let large = room.copy(&[0; 50]);
        assert_eq!(*room.taken_bytes.lock(), 50);
        let part = large.slice(..3);
        drop(large);
        assert_eq!(*room.taken_bytes.lock(), 50);
        drop(part);
        let held = (room.take(4), room.take(6));
        assert_eq!(*room.taken_bytes.lock(), 10);
        let (waiting, other) = (Arc::clone(&room), Arc::clone(&room));
        let thread = std::thread::spawn(move || waiting.take(7).size);
        drop(held.0);
        drop(held.1);
        assert_eq!(thread.join().unwrap(), 7);
        drop(other.take(10));
        assert_eq!(*room.taken_bytes.lock(), 0);
    }
}
