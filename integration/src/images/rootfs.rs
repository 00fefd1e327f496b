//! Root file systems put together by hand: busybox, and the one that stands for Alpine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink as make_symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Error, at, need, output};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";

const GROUP: &str = "root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
cdrom:x:11:
dialout:x:18:
floppy:x:19:
video:x:28:
audio:x:29:
tape:x:32:
www-data:x:33:
operator:x:37:
utmp:x:43:
plugdev:x:46:
staff:x:50:
lock:x:54:
netdev:x:82:
users:x:100:
nobody:x:65534:
";

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";

/// Applets that Debian leaves out of its busybox; the official image has them.
const SCRIPTS: &[(&str, &str)] = &[
    ("adduser", include_str!("adduser.sh")),
    ("addgroup", include_str!("addgroup.sh")),
    ("ttysize", include_str!("ttysize.sh")),
];

/// Programs of this machine that the suites install into Alpine.
const PROGRAMS: &[&str] = &[
    "curl",
    "git",
    "ssh",
    "ssh-add",
    "ssh-agent",
    "ssh-keygen",
    "ssh-keyscan",
    "/usr/lib/git-core/git-remote-http",
];

/// Makes a folder with all above it.
pub(super) fn folder(path: &Path, mode: u32) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(at("making", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(at("setting the mode of", path))
}

/// Writes a file, with the folder it is in.
pub(super) fn file(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(at("making", dir))?;
    }
    fs::write(path, text).map_err(at("writing", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(at("setting the mode of", path))
}

/// Makes or replaces a symbolic link.
pub(super) fn symlink(target: &str, path: &Path) -> Result<(), Error> {
    remove(path)?;
    make_symlink(target, path).map_err(at("linking", path))
}

/// Removes whatever is at `path`, if anything is.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if meta.is_dir() {
        fs::remove_dir_all(path).map_err(at("removing", path))
    } else {
        fs::remove_file(path).map_err(at("removing", path))
    }
}

/// Fills `root` as the busybox image: every applet a hard link, of what a runtime mounts only `/dev` is there.
pub(super) fn busybox(root: &Path) -> Result<(), Error> {
    let program = need("busybox")?;
    for (dir, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("usr/sbin", 0o755),
        ("var", 0o755),
        ("var/spool", 0o755),
        ("var/spool/mail", 0o755),
        ("var/www", 0o755),
    ] {
        folder(&root.join(dir), mode)?;
    }
    for (dir, id) in [("home", 65534), ("var/spool/mail", 8), ("var/www", 33)] {
        let dir = root.join(dir);
        chown(&dir, Some(id), Some(id)).map_err(at("giving away", &dir))?;
    }
    let bin = root.join("bin");
    let busybox = bin.join("busybox");
    fs::copy(&program, &busybox).map_err(at("copying", &program))?;
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755))
        .map_err(at("setting the mode of", &busybox))?;
    for applet in output(Command::new(&program).arg("--list"))?.lines() {
        if applet != "busybox" && !applet.contains('/') {
            let link = bin.join(applet);
            fs::hard_link(&busybox, &link).map_err(at("linking", &link))?;
        }
    }
    for (name, text) in SCRIPTS {
        remove(&bin.join(name))?;
        file(&bin.join(name), text, 0o755)?;
    }
    symlink("/bin/env", &root.join("usr/bin/env"))?;
    let shadow: String = PASSWD
        .lines()
        .filter_map(|line| line.split(':').next())
        .map(|name| format!("{name}:*:10933:0:99999:7:::\n"))
        .collect();
    file(&root.join("etc/passwd"), PASSWD, 0o644)?;
    file(&root.join("etc/group"), GROUP, 0o644)?;
    file(&root.join("etc/shadow"), &shadow, 0o600)
}

/// Adds to a busybox what the suites expect of Alpine.
pub(super) fn alpine(root: &Path) -> Result<(), Error> {
    for dir in [
        "dev",
        "proc",
        "sys",
        "run",
        "mnt",
        "media",
        "opt",
        "srv",
        "sbin",
        "lib",
        "lib64",
        "usr/lib",
        "usr/local/bin",
        "var/tmp",
        "etc/apk",
    ] {
        folder(&root.join(dir), 0o755)?;
    }
    file(&root.join("etc/alpine-release"), "3.20.0\n", 0o644)?;
    let release =
        "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.20.0\nPRETTY_NAME=\"Alpine Linux v3.20\"\n";
    file(&root.join("etc/os-release"), release, 0o644)?;
    file(&root.join("etc/nsswitch.conf"), NSSWITCH, 0o644)?;
    file(&root.join("sbin/apk"), include_str!("apk.sh"), 0o755)?;
    let certificates = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if certificates.is_file() {
        let target = root.join("etc/ssl/certs/ca-certificates.crt");
        file(&target, "", 0o644)?;
        fs::copy(certificates, &target).map_err(at("copying", certificates))?;
    }
    for name in PROGRAMS {
        let program = if name.starts_with('/') {
            PathBuf::from(name)
        } else {
            need(name)?
        };
        install(&program, root)?;
    }
    git_helpers(root)
}

/// Copies a program of this machine with the libraries it asks for, to where they are here.
fn install(program: &Path, root: &Path) -> Result<(), Error> {
    copy_to_same_place(program, root)?;
    for line in output(Command::new("ldd").arg(program))?.lines() {
        if let Some(library) = line.split_whitespace().rfind(|word| word.starts_with('/')) {
            copy_to_same_place(Path::new(library), root)?;
        }
    }
    Ok(())
}

fn copy_to_same_place(from: &Path, root: &Path) -> Result<(), Error> {
    let target = root.join(from.strip_prefix("/").unwrap_or(from));
    if target.exists() {
        return Ok(());
    }
    if let Some(dir) = target.parent() {
        fs::create_dir_all(dir).map_err(at("making", dir))?;
    }
    fs::copy(from, &target).map_err(at("copying", from))?;
    Ok(())
}

/// Copies git's small helpers and the names it has for itself.
fn git_helpers(root: &Path) -> Result<(), Error> {
    let core = Path::new("/usr/lib/git-core");
    let target = root.join("usr/lib/git-core");
    folder(&target, 0o755)?;
    for entry in fs::read_dir(core).map_err(at("reading", core))?.flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        let to = target.join(entry.file_name());
        if meta.is_symlink() {
            let link = fs::read_link(&path).map_err(at("reading", &path))?;
            symlink(&link.to_string_lossy(), &to)?;
        } else if meta.is_file() && meta.len() < 100_000 && !to.exists() {
            fs::copy(&path, &to).map_err(at("copying", &path))?;
        }
    }
    folder(&root.join("usr/share/git-core/templates"), 0o755)
}
