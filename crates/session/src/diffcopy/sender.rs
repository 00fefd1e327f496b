//! The sending side, without I/O.

use std::collections::HashMap;
use std::path::PathBuf;

use fstree::Stat;

use crate::diffcopy::receiver::ProtocolError;
use crate::packet::Packet;

/// The meaning of a packet for the sender.
#[derive(Debug, PartialEq, Eq)]
pub enum SendRequest {
    /// The contents of a file are requested.
    Contents {
        /// Number of the file.
        id: u32,
        /// Path of the file.
        path: PathBuf,
        /// Listed size of the file in bytes.
        size: u64,
    },
    /// The other side has everything.
    Finished,
}

/// The state machine of the sending side.
#[derive(Debug, Default)]
pub struct Sender {
    next: u32,
    files: HashMap<u32, (PathBuf, u64)>,
    // First names that were sent for files with several, by the name the walk gave as the first.
    first_names: HashMap<PathBuf, PathBuf>,
}

impl Sender {
    /// A sender before the first packet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lists the next file. A later name whose first name was filtered out becomes a first name itself.
    pub fn list(&mut self, mut stat: Stat) -> Packet {
        if !stat.is_dir() && !stat.is_symlink() {
            if stat.is_hard_link() {
                match self.first_names.get(&stat.linkname) {
                    Some(first) => stat.linkname.clone_from(first),
                    None => {
                        self.first_names
                            .insert(std::mem::take(&mut stat.linkname), stat.path.clone());
                    }
                }
            }
            self.first_names
                .insert(stat.path.clone(), stat.path.clone());
        }
        if stat.is_file() {
            let size = u64::try_from(stat.size).unwrap_or_default();
            self.files.insert(self.next, (stat.path.clone(), size));
        }
        self.next = self.next.saturating_add(1);
        Packet::Stat(Some(Box::new(stat)))
    }

    /// Takes a packet from the other side. A file can be asked for once.
    pub fn take(&mut self, packet: Packet) -> Result<SendRequest, ProtocolError> {
        match packet {
            Packet::Req(id) => match self.files.remove(&id) {
                Some((path, size)) => Ok(SendRequest::Contents { id, path, size }),
                None => Err(ProtocolError::NotRequested { id }),
            },
            Packet::Fin => Ok(SendRequest::Finished),
            Packet::Err(text) => Err(ProtocolError::Receiver { text }),
            Packet::Stat(_) => Err(ProtocolError::Unexpected { packet: "STAT" }),
            Packet::Data { .. } => Err(ProtocolError::Unexpected { packet: "DATA" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_can_be_asked_for_once() {
        let mut sender = Sender::new();
        sender.list(Stat {
            path: "a".into(),
            mode: 0o644,
            size: 9,
            ..Stat::default()
        });
        sender.list(Stat {
            path: "d".into(),
            mode: fstree::stat::MODE_DIR,
            ..Stat::default()
        });
        assert_eq!(
            sender.take(Packet::Req(0)),
            Ok(SendRequest::Contents {
                id: 0,
                path: "a".into(),
                size: 9
            })
        );
        assert!(sender.take(Packet::Req(0)).is_err());
        assert!(
            sender.take(Packet::Req(1)).is_err(),
            "a directory has no contents"
        );
        assert!(sender.take(Packet::Req(9)).is_err());
    }

    #[test]
    fn a_link_whose_first_name_was_filtered_out_becomes_the_first_name() {
        let mut sender = Sender::new();
        let link = |path: &str| Stat {
            path: path.into(),
            mode: 0o644,
            linkname: "gone".into(),
            ..Stat::default()
        };
        let names = |p| {
            if let Packet::Stat(Some(s)) = p {
                s.linkname
            } else {
                panic!("not a stat")
            }
        };
        assert_eq!(names(sender.list(link("b"))), PathBuf::new());
        assert_eq!(names(sender.list(link("c"))), PathBuf::from("b"));
    }

    #[test]
    fn packets_that_a_receiver_does_not_send_are_refused_and_its_failure_is_quoted() {
        use oci::ErrorKind::{Failed, Hostile};
        let data = Packet::Data {
            id: 0,
            bytes: bytes::Bytes::new(),
        };
        for (packet, words, kind) in [
            (Packet::Stat(None), "unexpected STAT packet", Hostile),
            (data, "unexpected DATA packet", Hostile),
            (
                Packet::Err("no space".into()),
                "error from receiver: no space",
                Failed,
            ),
        ] {
            let error = Sender::new().take(packet).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.kind()), (words, kind));
        }
        assert_eq!(Sender::new().take(Packet::Fin), Ok(SendRequest::Finished));
    }
}
