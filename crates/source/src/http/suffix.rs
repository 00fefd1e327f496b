//! The digest of a downloaded file followed by some bytes, for signatures that are made over both.

use std::fs::File;
use std::io::Read;

use fstree::Root;
use sha2::{Sha256, Sha384, Sha512};

use crate::error::{SourceError, cause};

/// The most bytes that may follow a file.
const MAX_SUFFIX_BYTES: usize = 4 << 10;

/// Returns the digest, `algorithm:hex`, of the one file in `tree` followed by `suffix`. Blocks.
pub fn suffixed(tree: &Root, algorithm: &str, suffix: &[u8]) -> Result<String, SourceError> {
    let attribute = |reason: String| SourceError::Attribute {
        name: "checksum request",
        source: cause(reason),
    };
    if suffix.len() > MAX_SUFFIX_BYTES {
        return Err(attribute(format!(
            "http checksum request suffix exceeds max size {MAX_SUFFIX_BYTES}"
        )));
    }
    let mut file = payload(tree)?;
    let hex = match algorithm {
        "sha256" => digest::<Sha256>(&mut file, suffix),
        "sha384" => digest::<Sha384>(&mut file, suffix),
        "sha512" => digest::<Sha512>(&mut file, suffix),
        other => {
            return Err(attribute(format!("unsupported checksum algorithm {other}")));
        }
    };
    let hex = hex.map_err(|e| SourceError::io("hash http source payload", e))?;
    Ok(format!("{algorithm}:{hex}"))
}

/// Opens the one file in `tree`.
pub(crate) fn payload(tree: &Root) -> Result<File, SourceError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e| SourceError::path(what, e)
    };
    let top = tree.dir("/").map_err(failed("open http source root"))?;
    let entries = top
        .entries()
        .map_err(|e| SourceError::io("read http source root", e))?;
    let [entry] = entries.as_slice() else {
        return Err(SourceError::Attribute {
            name: "http source",
            source: cause("the http source is not one file"),
        });
    };
    tree.open_file(&entry.name)
        .map_err(failed("open http source payload"))
}

fn digest<D: sha2::Digest>(file: &mut impl Read, suffix: &[u8]) -> std::io::Result<String> {
    let mut hasher = D::new();
    let mut chunk = vec![0; 128 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            n => hasher.update(chunk.get(..n).unwrap_or_default()),
        }
    }
    hasher.update(suffix);
    let hex = |byte: &u8| format!("{byte:02x}");
    Ok(hasher.finalize().iter().map(hex).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_the_file_and_what_stands_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "hello ").unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(
            suffixed(&root, "sha256", b"world").unwrap(),
            oci::Digest::sha256(b"hello world").to_string()
        );
        assert_eq!(
            suffixed(&root, "sha512", b"").unwrap().len(),
            "sha512:".len() + 128
        );
        assert!(suffixed(&root, "md5", b"").is_err());
        assert!(suffixed(&root, "sha256", &[0; MAX_SUFFIX_BYTES + 1]).is_err());
    }
}
