//! Packets of the file-sync protocol between their wire and domain forms.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use proto::fsutil;
use proto::fsutil::packet::PacketType;

use crate::{CallError, Packet};

/// The wire's form of a packet.
pub fn to_wire(packet: Packet) -> fsutil::Packet {
    let mut wire = fsutil::Packet::default();
    match packet {
        Packet::Stat(stat) => {
            wire.set_type(PacketType::PacketStat);
            wire.stat = stat.map(|s| fsutil::Stat {
                path: s.path.into_os_string().into_vec(),
                mode: s.mode,
                uid: s.uid,
                gid: s.gid,
                size: s.size,
                mod_time: s.mod_time,
                linkname: s.linkname.into_os_string().into_vec(),
                devmajor: s.devmajor,
                devminor: s.devminor,
                xattrs: s.xattrs,
            });
        }
        Packet::Req(id) => {
            wire.set_type(PacketType::PacketReq);
            wire.id = id;
        }
        Packet::Data { id, bytes } => {
            wire.set_type(PacketType::PacketData);
            wire.id = id;
            wire.data = bytes;
        }
        Packet::Fin => wire.set_type(PacketType::PacketFin),
        Packet::Err(text) => {
            wire.set_type(PacketType::PacketErr);
            wire.data = text.into();
        }
    }
    wire
}

/// The domain's form of a packet.
pub fn from_wire(wire: fsutil::Packet) -> Result<Packet, CallError> {
    let kind = PacketType::try_from(wire.r#type)
        // The dropped error says only that the number is unknown.
        .map_err(|_| {
            CallError::protocol(
                "DiffCopy",
                format!("packet of unknown type {}", wire.r#type),
            )
        })?;
    Ok(match kind {
        PacketType::PacketStat => Packet::Stat(wire.stat.map(|s| {
            Box::new(crate::diffcopy::Stat {
                path: path(s.path),
                mode: s.mode,
                uid: s.uid,
                gid: s.gid,
                size: s.size,
                mod_time: s.mod_time,
                linkname: path(s.linkname),
                devmajor: s.devmajor,
                devminor: s.devminor,
                xattrs: s.xattrs,
            })
        })),
        PacketType::PacketReq => Packet::Req(wire.id),
        PacketType::PacketData => Packet::Data {
            id: wire.id,
            bytes: wire.data,
        },
        PacketType::PacketFin => Packet::Fin,
        PacketType::PacketErr => Packet::Err(String::from_utf8_lossy(&wire.data).into_owned()),
    })
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use crate::diffcopy::Stat;
    use bytes::Bytes;

    use super::*;

    #[test]
    fn packets_survive_the_wire() {
        let stat = Stat {
            path: path(b"d/\xff".to_vec()),
            mode: 0o644,
            size: 3,
            linkname: "x".into(),
            ..Stat::default()
        };
        for packet in [
            Packet::Stat(Some(Box::new(stat))),
            Packet::Stat(None),
            Packet::Req(7),
            Packet::Data {
                id: 7,
                bytes: Bytes::from_static(b"abc"),
            },
            Packet::Fin,
            Packet::Err("no".into()),
        ] {
            assert_eq!(from_wire(to_wire(packet.clone())).ok(), Some(packet));
        }
        assert!(
            from_wire(fsutil::Packet {
                r#type: 99,
                ..Default::default()
            })
            .is_err()
        );
    }
}
