//! Trees made from a listing.
//!
//! One line a file: `dir path mode uid gid`, `file path mode uid gid contents`, `link path target`, `hard path first`,
//! `char|block path mode uid gid major minor`, `fifo path mode uid gid`, `xattr path name value`, `opaque path`,
//! `whiteout path`, `time path nanoseconds`.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use fstree::dir::{Times, set_file_owner};
use fstree::{Kind, Root};

pub(crate) struct Tree {
    pub(crate) root: Root,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn tree(listing: &str) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    root.dir("/").unwrap().set_own_mode(0o755).unwrap();
    add(&root, listing);
    Tree { root, dir }
}

pub(crate) fn add(root: &Root, listing: &str) {
    let octal = |text: &str| u32::from_str_radix(text, 8).unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    for line in listing.lines().filter(|line| !line.is_empty()) {
        let f: Vec<&str> = line.splitn(6, ' ').collect();
        let (dir, name) = root.named("test", Path::new(f[1])).unwrap();
        match f[0] {
            "dir" => {
                let created = dir.create_dir(&name, octal(f[2])).unwrap();
                created.set_own_owner(number(f[3]), number(f[4])).unwrap();
                created.set_own_mode(octal(f[2])).unwrap();
            }
            "file" => {
                let mut file = dir.create_file(&name, 0o600).unwrap();
                file.write_all(f.get(5).unwrap_or(&"").as_bytes()).unwrap();
                set_file_owner(&file, number(f[3]), number(f[4])).unwrap();
                fstree::dir::set_file_mode(&file, octal(f[2])).unwrap();
            }
            "link" => dir.symlink(Path::new(f[2]), &name).unwrap(),
            "hard" => root.link(f[2], f[1]).unwrap(),
            "fifo" => special(root, f[1], Kind::Fifo, octal(f[2]), "0 0"),
            "char" => special(root, f[1], Kind::Char, octal(f[2]), f[5]),
            "block" => special(root, f[1], Kind::Block, octal(f[2]), f[5]),
            "whiteout" => dir.whiteout(&name).unwrap(),
            "opaque" => dir
                .set_xattr(&name, "trusted.overlay.opaque", b"y")
                .unwrap(),
            "xattr" => dir.set_xattr(&name, f[2], &value(f[2], f[3])).unwrap(),
            "time" => dir
                .set_times(&name, Times::both(f[2].parse().unwrap()))
                .unwrap(),
            other => panic!("unknown line {other}"),
        }
        if matches!(f[0], "fifo" | "char" | "block") {
            dir.chown(&name, number(f[3]), number(f[4])).unwrap();
        }
    }
}

fn special(root: &Root, path: &str, kind: Kind, mode: u32, numbers: &str) {
    let (dir, name) = root.named("test", Path::new(path)).unwrap();
    let (major, minor) = numbers.split_once(' ').unwrap();
    dir.mknod(
        &name,
        kind,
        mode,
        (major.parse().unwrap(), minor.parse().unwrap()),
    )
    .unwrap();
}

// Capabilities are listed as hexadecimal digits.
fn value(name: &str, text: &str) -> Vec<u8> {
    if name != "security.capability" {
        return text.as_bytes().to_vec();
    }
    text.as_bytes()
        .chunks(2)
        .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
        .collect()
}

/// The tree as a listing of paths: directories with a slash, links with their target, files with their contents.
pub(crate) fn show(root: &Root) -> String {
    let mut out = String::new();
    for stat in fstree::walk::Walk::new(root, &fstree::walk::Filter::default()).unwrap() {
        let stat = stat.unwrap();
        let path = stat.path.display();
        let line = match stat.kind() {
            Kind::Dir => format!("{path}/"),
            Kind::Symlink => format!("{path} -> {}", stat.linkname.display()),
            Kind::File if stat.is_hard_link() => format!("{path} = {}", stat.linkname.display()),
            Kind::File => format!(
                "{path}: {}",
                String::from_utf8_lossy(&root.read(&stat.path, 1000).unwrap())
            ),
            kind => format!("{path} {kind:?}"),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

pub(crate) fn os(name: &str) -> &OsStr {
    OsStr::new(name)
}
