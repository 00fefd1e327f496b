//! Telling an archive from a plain file by its first bytes.

/// Whether `head` starts a gzip, bzip2, xz, zstd or tar archive. A tar header fills 512 bytes.
pub(crate) fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [
        b"BZh",
        &[0x1f, 0x8b, 0x08],
        &[0xfd, b'7', b'z', b'X', b'Z', 0],
        &[0x28, 0xb5, 0x2f, 0xfd],
    ];
    MAGIC.iter().any(|magic| head.starts_with(magic)) || is_zstd_skippable(head) || is_tar(head)
}

fn is_zstd_skippable(head: &[u8]) -> bool {
    head.len() >= 8
        && head.first().is_some_and(|b| b & 0xf0 == 0x50)
        && head.get(1..4) == Some(&[0x2a, 0x4d, 0x18])
}

/// A tar header names its own checksum: the sum of its bytes with the checksum field read as spaces.
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else {
        return false;
    };
    let Some(field) = header.get(148..156) else {
        return false;
    };
    let text: String = field
        .iter()
        .map(|&b| char::from(b))
        .filter(|c| c.is_ascii_digit())
        .collect();
    let Ok(stated) = u32::from_str_radix(&text, 8) else {
        return false;
    };
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(at, &b)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(b)
            }
        })
        .sum();
    stated == sum && sum != 8 * 32
}

#[cfg(test)]
mod tests {
    use super::is_archive;

    #[test]
    fn archives_are_known_by_their_heads() {
        assert!(is_archive(b"\x1f\x8b\x08rest") && is_archive(b"BZh9"));
        assert!(!is_archive(b"FROM scratch\n") && !is_archive(&[0; 1024]));
        let mut tar = vec![0_u8; 512];
        tar[..4].copy_from_slice(b"file");
        tar[148..156].copy_from_slice(b"        ");
        let sum: u32 = tar.iter().map(|&b| u32::from(b)).sum();
        tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        assert!(is_archive(&tar));
    }
}
