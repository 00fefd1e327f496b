//! The receiving side, without I/O.
//!
//! Packets go in by [`Receiver::take`], which says what each means. The caller asks for contents with [`Receiver::request`];
//! [`Receiver::next_request`] lets them out, a window at a time. When the list has ended and nothing is asked for any more the
//! caller sends `FIN` ([`Receiver::finish`]) and waits for the other one.

use std::collections::{HashMap, VecDeque};

use std::path::PathBuf;

use bytes::Bytes;
use fstree::Stat;

use crate::diffcopy::order::{OrderCheck, OrderError};
use crate::packet::Packet;

/// Number of requested files that are not complete.
const MAX_REQUESTED_FILES: usize = 512;
/// Number of files in a list.
pub const MAX_FILES: u32 = 16 << 20;
/// Bytes of extended attributes, names and values, that a file may have. A kernel takes 64 KiB of names, and as much in a
/// value.
const MAX_ATTRIBUTES_BYTES: usize = 1 << 20;
/// Size limit of an extended attribute's value in bytes, which is the kernel's.
const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

/// Why packets of the other side are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The order of the list is wrong.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// Contents of a file that was not requested.
    #[error("invalid file request {id}")]
    NotRequested {
        /// Number of the file.
        id: u32,
    },
    /// The sender reported an error.
    #[error("error from sender: {text}")]
    Sender {
        /// Text of the error.
        text: String,
    },
    /// The receiver reported an error.
    #[error("error from receiver: {text}")]
    Receiver {
        /// Text of the error.
        text: String,
    },
    /// A packet of a type that is not allowed now.
    #[error("unexpected {packet} packet")]
    Unexpected {
        /// Type of the packet.
        packet: &'static str,
    },
    /// The list has too many files.
    #[error("more than {} files", MAX_FILES)]
    TooManyFiles,
    /// A file has more extended attributes than files can have.
    #[error("{} has {size} bytes of extended attributes, more than a file may have", path.display())]
    Attributes {
        /// Path of the file.
        path: PathBuf,
        /// Size of the attributes in bytes.
        size: usize,
    },
    /// Contents of more files are interleaved than senders do.
    #[error("the contents of more than {limit} files come at the same time")]
    Interleaved {
        /// Number of files that may be.
        limit: usize,
    },
    /// The stream ended before the transfer did.
    #[error("unexpected EOF")]
    Truncated,
}

/// The meaning of a packet for the receiver.
#[derive(Debug, PartialEq, Eq)]
pub enum ReceiveEvent {
    /// The next file of the list.
    File {
        /// Number of the file.
        id: u32,
        /// Metadata of the file.
        stat: Box<Stat>,
    },
    /// The list is complete.
    ListEnd,
    /// A piece of a file's contents, which may be empty: bytes beyond the listed size are dropped.
    Data {
        /// Number of the file.
        id: u32,
        /// Bytes of the piece.
        bytes: Bytes,
    },
    /// The contents of a file are complete.
    DataEnd {
        /// Number of the file.
        id: u32,
    },
    /// The other side has received our `FIN`.
    Done,
}

/// The state machine of the receiving side.
#[derive(Debug)]
pub struct Receiver {
    order: OrderCheck,
    next: u32,
    listed: bool,
    finished: bool,
    waiting: VecDeque<(u32, u64)>,
    // Asked for and not complete, with what is left of the listed size.
    running: HashMap<u32, u64>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    /// A receiver before the first packet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            order: OrderCheck::new(),
            next: 0,
            listed: false,
            finished: false,
            waiting: VecDeque::new(),
            running: HashMap::new(),
        }
    }

    /// Takes a packet from the other side.
    pub fn take(&mut self, packet: Packet) -> Result<ReceiveEvent, ProtocolError> {
        match packet {
            Packet::Stat(_) if self.listed => Err(ProtocolError::Unexpected { packet: "STAT" }),
            Packet::Stat(None) => {
                self.listed = true;
                Ok(ReceiveEvent::ListEnd)
            }
            Packet::Stat(Some(stat)) => {
                let id = self.next;
                if id >= MAX_FILES {
                    return Err(ProtocolError::TooManyFiles);
                }
                check_attributes(&stat)?;
                self.order.next(&stat)?;
                self.next += 1;
                Ok(ReceiveEvent::File { id, stat })
            }
            Packet::Data { id, mut bytes } => match self.running.get_mut(&id) {
                None => Err(ProtocolError::NotRequested { id }),
                Some(_) if bytes.is_empty() => {
                    self.running.remove(&id);
                    Ok(ReceiveEvent::DataEnd { id })
                }
                Some(remaining) => {
                    // DIFFERS: the reference writes whatever comes. A file that grew while it was sent ends where it ended
                    // when it was listed; one that shrank is as long as it is.
                    bytes.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
                    *remaining -= bytes.len() as u64;
                    Ok(ReceiveEvent::Data { id, bytes })
                }
            },
            Packet::Fin if self.finished => Ok(ReceiveEvent::Done),
            Packet::Fin => Err(ProtocolError::Unexpected { packet: "FIN" }),
            Packet::Req(_) => Err(ProtocolError::Unexpected { packet: "REQ" }),
            Packet::Err(text) => Err(ProtocolError::Sender { text }),
        }
    }

    /// Requests the contents of a file with this listed size.
    pub fn request(&mut self, id: u32, size: u64) {
        self.waiting.push_back((id, size));
    }

    /// The next request to send, if the window has room.
    pub fn next_request(&mut self) -> Option<Packet> {
        if self.running.len() >= MAX_REQUESTED_FILES {
            return None;
        }
        let (id, size) = self.waiting.pop_front()?;
        self.running.insert(id, size);
        Some(Packet::Req(id))
    }

    /// Whether the list is complete and no contents are missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.listed && self.waiting.is_empty() && self.running.is_empty()
    }

    /// Reports that everything is written; the returned packet is to be sent.
    pub fn finish(&mut self) -> Packet {
        self.finished = true;
        Packet::Fin
    }
}

fn check_attributes(stat: &Stat) -> Result<(), ProtocolError> {
    let mut size = 0_usize;
    let mut longest = 0;
    for (name, value) in &stat.xattrs {
        size = size.saturating_add(name.len()).saturating_add(value.len());
        longest = longest.max(value.len());
    }
    if size > MAX_ATTRIBUTES_BYTES || longest > MAX_ATTRIBUTE_BYTES {
        return Err(ProtocolError::Attributes {
            path: stat.path.clone(),
            size,
        });
    }
    Ok(())
}

impl ProtocolError {
    /// What kind of error it is: the other side says that it failed, or it does not keep the protocol.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Sender { .. } | Self::Receiver { .. } => ErrorKind::Failed,
            Self::Truncated => ErrorKind::Unavailable,
            Self::Order(_)
            | Self::NotRequested { .. }
            | Self::Unexpected { .. }
            | Self::TooManyFiles
            | Self::Attributes { .. }
            | Self::Interleaved { .. } => ErrorKind::Hostile,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(path: &str) -> Packet {
        Packet::Stat(Some(Box::new(Stat {
            path: path.into(),
            mode: 0o644,
            ..Stat::default()
        })))
    }

    fn data(id: u32, bytes: &'static [u8]) -> Packet {
        Packet::Data {
            id,
            bytes: Bytes::from_static(bytes),
        }
    }

    #[test]
    fn contents_nobody_asked_for_are_refused() {
        let mut receiver = Receiver::new();
        receiver.take(stat("a")).unwrap();
        assert_eq!(
            receiver.take(data(0, b"x")),
            Err(ProtocolError::NotRequested { id: 0 })
        );
        receiver.request(0, 1);
        assert_eq!(receiver.next_request(), Some(Packet::Req(0)));
        receiver.take(data(0, b"x")).unwrap();
        assert_eq!(
            receiver.take(data(0, b"")),
            Ok(ReceiveEvent::DataEnd { id: 0 })
        );
        assert_eq!(
            receiver.take(data(0, b"x")),
            Err(ProtocolError::NotRequested { id: 0 })
        );
        assert_eq!(
            receiver.take(data(7, b"")),
            Err(ProtocolError::NotRequested { id: 7 })
        );
    }

    #[test]
    fn a_window_of_requests_is_out_at_a_time() {
        let mut receiver = Receiver::new();
        (0..1000).for_each(|id| receiver.request(id, 0));
        let sent = std::iter::from_fn(|| receiver.next_request()).count();
        assert_eq!(sent, MAX_REQUESTED_FILES);
        receiver.take(data(3, b"")).unwrap();
        assert_eq!(
            receiver.next_request(),
            Some(Packet::Req(u32::try_from(MAX_REQUESTED_FILES).unwrap()))
        );
        assert_eq!(receiver.next_request(), None);
    }

    #[test]
    fn a_file_ends_at_its_listed_size() {
        let mut receiver = Receiver::new();
        receiver.take(stat("a")).unwrap();
        receiver.request(0, 5);
        assert_eq!(receiver.next_request(), Some(Packet::Req(0)));
        for (sent, taken) in [(&b"abc"[..], &b"abc"[..]), (b"def", b"de"), (b"ghi", b"")] {
            let bytes = Bytes::from_static(taken);
            assert_eq!(
                receiver.take(data(0, sent)),
                Ok(ReceiveEvent::Data { id: 0, bytes })
            );
        }
        assert_eq!(
            receiver.take(data(0, b"")),
            Ok(ReceiveEvent::DataEnd { id: 0 })
        );
    }

    #[test]
    fn attributes_that_no_file_has_are_refused() {
        let listed = |attributes: &[(usize, usize)]| {
            let xattrs = attributes.iter().enumerate().map(|(n, (name, value))| {
                (format!("user.{n}{}", "x".repeat(*name)), vec![0; *value])
            });
            Receiver::new().take(Packet::Stat(Some(Box::new(Stat {
                path: "a".into(),
                mode: 0o644,
                xattrs: xattrs.collect(),
                ..Stat::default()
            }))))
        };
        assert!(listed(&[(200, MAX_ATTRIBUTE_BYTES), (0, 1)]).is_ok());
        assert!(listed(&[(1, MAX_ATTRIBUTE_BYTES + 1)]).is_err());
        assert!(listed(&[(1, MAX_ATTRIBUTE_BYTES); 20]).is_err());
        assert!(listed(&[(MAX_ATTRIBUTES_BYTES, 1)]).is_err());
    }

    #[test]
    fn the_end_is_in_order() {
        let mut receiver = Receiver::new();
        assert!(receiver.take(Packet::Fin).is_err());
        receiver.take(stat("a")).unwrap();
        assert!(!receiver.is_complete());
        receiver.take(Packet::Stat(None)).unwrap();
        assert!(receiver.is_complete());
        assert!(receiver.take(stat("b")).is_err());
        assert_eq!(receiver.finish(), Packet::Fin);
        assert_eq!(receiver.take(Packet::Fin), Ok(ReceiveEvent::Done));
    }

    #[test]
    fn packets_of_the_other_side_are_refused_by_name_and_its_failure_is_quoted() {
        for (packet, words, kind) in [
            (
                Packet::Req(3),
                "unexpected REQ packet",
                oci::ErrorKind::Hostile,
            ),
            (
                Packet::Fin,
                "unexpected FIN packet",
                oci::ErrorKind::Hostile,
            ),
            (
                data(3, b"x"),
                "invalid file request 3",
                oci::ErrorKind::Hostile,
            ),
            (
                Packet::Err("disk full".into()),
                "error from sender: disk full",
                oci::ErrorKind::Failed,
            ),
        ] {
            let error = Receiver::new().take(packet).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.kind()), (words, kind));
        }
        let truncated = ProtocolError::Truncated;
        assert_eq!(truncated.kind(), oci::ErrorKind::Unavailable);
    }

    #[test]
    fn files_are_numbered_in_the_order_of_the_list() {
        let mut receiver = Receiver::new();
        for (id, path) in ["a", "b", "c"].into_iter().enumerate() {
            let event = receiver.take(stat(path)).unwrap();
            let ReceiveEvent::File { id: own, stat } = event else {
                panic!("{event:?}")
            };
            assert_eq!((own as usize, stat.path.to_str()), (id, Some(path)));
        }
        assert_eq!(receiver.take(Packet::Stat(None)), Ok(ReceiveEvent::ListEnd));
        receiver.request(2, 0);
        assert!(!receiver.is_complete(), "something is waited for");
        assert_eq!(receiver.next_request(), Some(Packet::Req(2)));
        assert!(!receiver.is_complete(), "something is under way");
        receiver.take(data(2, b"")).unwrap();
        assert!(receiver.is_complete());
    }
}
