//! Values that the daemon's owner adds to provenance.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Reads the values that the daemon's owner adds to provenance: objects in the `.json` files of a folder, later ones over earlier
/// ones. A missing folder adds nothing.
pub fn provenance_env(dir: &Path) -> io::Result<BTreeMap<String, serde_json::Value>> {
    let mut out = BTreeMap::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(out),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    for file in files {
        let bytes = std::fs::read(&file)?;
        let read: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&bytes).map_err(|e| {
                let name = file.display();
                io::Error::other(format!("failed to parse {name}: {e}"))
            })?;
        out.extend(read);
    }
    Ok(out)
}
