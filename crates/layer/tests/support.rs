//! Trees made from a listing, as in `fstree`'s tests: one line a file. In the end everything gets the same time, half
//! past a second, unless a `time` line says otherwise.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use fstree::dir::{Times, set_file_mode, set_file_owner};
use fstree::walk::{Filter, Walk};
use fstree::{Kind, Root};

pub(crate) struct Tree {
    pub(crate) root: Root,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) const TIME: i64 = 1_600_000_000_700_000_000;

pub(crate) fn empty() -> Tree {
    tree("")
}

pub(crate) fn tree(listing: &str) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    let octal = |text: &str| u32::from_str_radix(text, 8).unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    let mut times = HashMap::new();
    for line in listing.lines().filter(|line| !line.is_empty()) {
        let f: Vec<&str> = line.splitn(6, ' ').collect();
        let (dir, name) = root.named("test", Path::new(f[1])).unwrap();
        match f[0] {
            "dir" => drop(dir.create_dir(&name, octal(f[2])).unwrap()),
            "file" => {
                let mut file = dir.create_file(&name, 0o600).unwrap();
                file.write_all(f.get(5).unwrap_or(&"").as_bytes()).unwrap();
                set_file_owner(&file, number(f[3]), number(f[4])).unwrap();
                set_file_mode(&file, octal(f[2])).unwrap();
            }
            "link" => dir.symlink(Path::new(f[2]), &name).unwrap(),
            "hard" => root.link(f[2], f[1]).unwrap(),
            "fifo" => dir.mknod(&name, Kind::Fifo, octal(f[2]), (0, 0)).unwrap(),
            "char" | "block" => {
                let kind = if f[0] == "char" {
                    Kind::Char
                } else {
                    Kind::Block
                };
                let (major, minor) = f[5].split_once(' ').unwrap();
                dir.mknod(&name, kind, octal(f[2]), (number(major), number(minor)))
                    .unwrap();
            }
            "whiteout" => dir.whiteout(&name).unwrap(),
            "opaque" => dir
                .set_xattr(&name, "trusted.overlay.opaque", b"y")
                .unwrap(),
            "xattr" => dir.set_xattr(&name, f[2], &value(f[2], f[3])).unwrap(),
            "time" => drop(times.insert(f[1], f[2].parse::<i64>().unwrap())),
            other => panic!("unknown line {other}"),
        }
        if matches!(f[0], "dir" | "fifo" | "char" | "block") {
            dir.chown(&name, number(f[3]), number(f[4])).unwrap();
        }
    }
    for stat in Walk::new(&root, &Filter::default()).unwrap() {
        let path = stat.unwrap().path;
        let (dir, name) = root.named("test", &path).unwrap();
        let time = times.get(path.to_str().unwrap()).copied().unwrap_or(TIME);
        dir.set_times(&name, Times::both(time)).unwrap();
    }
    Tree { root, dir }
}

fn value(name: &str, text: &str) -> Vec<u8> {
    if name != "security.capability" {
        return text.as_bytes().to_vec();
    }
    text.as_bytes()
        .chunks(2)
        .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
        .collect()
}

/// The tree with everything a layer carries of it, one line a file.
pub(crate) fn show(root: &Root) -> String {
    let mut out = String::new();
    for stat in Walk::new(root, &Filter::default()).unwrap() {
        let stat = stat.unwrap();
        let what = match stat.kind() {
            Kind::Dir => "/".to_owned(),
            Kind::Symlink => format!(" -> {}", stat.linkname.display()),
            Kind::File if stat.is_hard_link() => format!(" = {}", stat.linkname.display()),
            Kind::File => format!(
                ": {}",
                String::from_utf8_lossy(&root.read(&stat.path, 10_000).unwrap())
            ),
            kind => format!(" {kind:?} {}:{}", stat.devmajor, stat.devminor),
        };
        let mode = fstree::stat::unix_permissions(stat.mode);
        let seconds = stat.mod_time.div_euclid(1_000_000_000);
        let xattrs: Vec<&str> = stat.xattrs.keys().map(String::as_str).collect();
        out.push_str(&format!(
            "{}{what} {mode:o} {}:{} {seconds} {}\n",
            stat.path.display(),
            stat.uid,
            stat.gid,
            xattrs.join(",")
        ));
    }
    out
}

/// Only the paths, with what they are.
pub(crate) fn paths(root: &Root) -> String {
    let mut out = Vec::new();
    for stat in Walk::new(root, &Filter::default()).unwrap() {
        let stat = stat.unwrap();
        let path = stat.path.display();
        out.push(match stat.kind() {
            Kind::Dir => {
                let (dir, name) = root.named("test", &stat.path).unwrap();
                let opaque = dir
                    .xattr(&name, "trusted.overlay.opaque")
                    .unwrap()
                    .is_some();
                format!("{path}/{}", if opaque { "!" } else { "" })
            }
            Kind::Symlink => format!("{path}@"),
            Kind::File => format!("{path}"),
            Kind::Char if (stat.devmajor, stat.devminor) == (0, 0) => format!("-{path}"),
            kind => format!("{path}:{kind:?}"),
        });
    }
    out.join(" ")
}
