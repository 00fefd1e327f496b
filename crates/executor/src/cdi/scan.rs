//! Reading the folders of spec files, and knowing when to read them again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::DescribedDevice;
use super::spec;

/// The most that is read of one file.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// The most files of one folder.
const MAX_FILES: usize = 1024;
/// The most devices of all files.
const MAX_DEVICES: usize = 16 << 10;

/// All devices by their full name.
pub(super) type DeviceTable = BTreeMap<String, DescribedDevice>;

/// What decides whether files must be read again: each file's name, inode, size and times.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, u64, u64, i64, i64)>);

/// The spec files of a folder, by name.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(dir = %dir.display(), %error, "folder of CDI files cannot be read");
            }
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let extension = path.extension().and_then(|e| e.to_str());
            matches!(extension, Some("json" | "yaml")) && !path.is_dir()
        })
        .collect();
    files.sort();
    files.truncate(MAX_FILES);
    files
}

pub(super) fn stamp(dirs: &[PathBuf]) -> Stamp {
    let of = |path: PathBuf| {
        let meta = fs::metadata(&path).ok()?;
        Some((
            path,
            meta.ino(),
            meta.size(),
            meta.mtime_nsec()
                .wrapping_add(meta.mtime().wrapping_mul(1_000_000_000)),
            meta.ctime_nsec()
                .wrapping_add(meta.ctime().wrapping_mul(1_000_000_000)),
        ))
    };
    Stamp(
        dirs.iter()
            .flat_map(|dir| files(dir))
            .filter_map(of)
            .collect(),
    )
}

/// Reads all files. A file that is wrong is left out with a remark in the log; so is a device that two files of one folder describe.
pub(super) fn read_all(dirs: &[PathBuf]) -> DeviceTable {
    let mut table = DeviceTable::new();
    for dir in dirs {
        let mut described_in: BTreeMap<String, PathBuf> = BTreeMap::new();
        for path in files(dir) {
            let devices = match read(&path) {
                Ok(devices) => devices,
                Err(reason) => {
                    tracing::warn!(file = %path.display(), reason, "CDI file is left out");
                    continue;
                }
            };
            for (name, device) in devices {
                if let Some(first_file) = described_in.get(&name) {
                    tracing::warn!(device = name, first = %first_file.display(), second = %path.display(), "conflicting CDI device is left out");
                    table.remove(&name);
                    continue;
                }
                described_in.insert(name.clone(), path.clone());
                if table.len() >= MAX_DEVICES {
                    tracing::warn!(device = name, "too many CDI devices");
                    continue;
                }
                table.insert(name, device);
            }
        }
    }
    table
}

fn read(path: &Path) -> Result<Vec<(String, DescribedDevice)>, String> {
    let open = || -> io::Result<String> {
        let file = fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    };
    spec::parse(&open().map_err(|error| error.to_string())?)
}
