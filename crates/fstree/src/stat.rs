//! Portable metadata of one file, in the shape fsutil sends over the wire.
//!
//! Modes are kept in Go's `FileMode` bits, because digests, packets and filters of BuildKit are defined on them.
//!
//! | Go bit | meaning          | kernel            |
//! |--------|------------------|-------------------|
//! | 31     | directory        | `S_IFDIR`         |
//! | 27     | symbolic link    | `S_IFLNK`         |
//! | 26     | device           | `S_IFBLK`, `S_IFCHR` |
//! | 25     | named pipe       | `S_IFIFO`         |
//! | 24     | socket           | `S_IFSOCK`        |
//! | 23     | setuid           | `S_ISUID`         |
//! | 22     | setgid           | `S_ISGID`         |
//! | 21     | character device | `S_IFCHR`         |
//! | 20     | sticky           | `S_ISVTX`         |
//! | 19     | irregular        | none              |

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Go's bit for directories.
pub const MODE_DIR: u32 = 1 << 31;
/// Go's bit for symbolic links.
pub const MODE_SYMLINK: u32 = 1 << 27;
/// Go's bit for device files, block and character.
pub const MODE_DEVICE: u32 = 1 << 26;
/// Go's bit for named pipes.
const MODE_NAMED_PIPE: u32 = 1 << 25;
/// Go's bit for sockets.
pub const MODE_SOCKET: u32 = 1 << 24;
/// Go's bit for set-user-id.
pub const MODE_SETUID: u32 = 1 << 23;
/// Go's bit for set-group-id.
pub const MODE_SETGID: u32 = 1 << 22;
/// Go's bit for character devices, set together with [`MODE_DEVICE`].
pub const MODE_CHAR_DEVICE: u32 = 1 << 21;
/// Go's bit for the sticky bit.
pub const MODE_STICKY: u32 = 1 << 20;
/// Go's bit for what is nothing of the above and no regular file.
pub const MODE_IRREGULAR: u32 = 1 << 19;
/// Every type bit; a regular file has none.
const MODE_TYPE: u32 = MODE_DIR
    | MODE_SYMLINK
    | MODE_NAMED_PIPE
    | MODE_SOCKET
    | MODE_DEVICE
    | MODE_CHAR_DEVICE
    | MODE_IRREGULAR;
/// The nine permission bits.
const MODE_PERM: u32 = 0o777;

/// The attribute by which a walk tells of changes: a name that no file system knows.
pub const CHANGE_MARK: &str = "rbuild.change";

const S_IFMT: u32 = 0o170_000;
const S_IFSOCK: u32 = 0o140_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFIFO: u32 = 0o010_000;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_ISVTX: u32 = 0o1000;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// Reads the kind out of kernel mode bits; unknown bits are a regular file.
    fn from_kernel_mode(mode: u32) -> Self {
        match mode & S_IFMT {
            S_IFDIR => Self::Dir,
            S_IFLNK => Self::Symlink,
            S_IFBLK => Self::Block,
            S_IFCHR => Self::Char,
            S_IFIFO => Self::Fifo,
            S_IFSOCK => Self::Socket,
            _ => Self::File,
        }
    }

    /// Reads the kind out of Go mode bits.
    #[must_use]
    pub fn from_go_mode(mode: u32) -> Self {
        if mode & MODE_DIR != 0 {
            Self::Dir
        } else if mode & MODE_SYMLINK != 0 {
            Self::Symlink
        } else if mode & MODE_CHAR_DEVICE != 0 {
            Self::Char
        } else if mode & MODE_DEVICE != 0 {
            Self::Block
        } else if mode & MODE_NAMED_PIPE != 0 {
            Self::Fifo
        } else if mode & MODE_SOCKET != 0 {
            Self::Socket
        } else {
            Self::File
        }
    }
}

/// Converts kernel `st_mode` to Go's `FileMode` bits.
#[must_use]
pub fn go_mode(kernel: u32) -> u32 {
    let mut mode = kernel & MODE_PERM;
    mode |= match Kind::from_kernel_mode(kernel) {
        Kind::Dir => MODE_DIR,
        Kind::File => 0,
        Kind::Symlink => MODE_SYMLINK,
        Kind::Block => MODE_DEVICE,
        Kind::Char => MODE_DEVICE | MODE_CHAR_DEVICE,
        Kind::Fifo => MODE_NAMED_PIPE,
        Kind::Socket => MODE_SOCKET,
    };
    for (bit, go) in [
        (S_ISUID, MODE_SETUID),
        (S_ISGID, MODE_SETGID),
        (S_ISVTX, MODE_STICKY),
    ] {
        if kernel & bit != 0 {
            mode |= go;
        }
    }
    mode
}

/// The twelve permission bits (`07777`) of Go's `FileMode` bits.
#[must_use]
pub fn unix_permissions(go: u32) -> u32 {
    let mut mode = go & MODE_PERM;
    for (bit, flag) in [
        (MODE_SETUID, S_ISUID),
        (MODE_SETGID, S_ISGID),
        (MODE_STICKY, S_ISVTX),
    ] {
        if go & bit != 0 {
            mode |= flag;
        }
    }
    mode
}

/// Metadata of one file as fsutil describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Path relative to the root of the tree, without a leading slash.
    pub path: PathBuf,
    /// Go `FileMode` bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes; zero for directories.
    pub size: i64,
    /// Modification time in nanoseconds since 1970.
    pub mod_time: i64,
    /// Target of a symbolic link, or the first seen path of a hard link.
    pub linkname: PathBuf,
    /// Major number of a device.
    pub devmajor: i64,
    /// Minor number of a device.
    pub devminor: i64,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Stat {
    /// The type of the file.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_go_mode(self.mode)
    }

    /// True for directories.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.mode & MODE_DIR != 0
    }

    /// True for regular files, later names of hard links included.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.mode & MODE_TYPE == 0
    }

    /// True for symbolic links.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.mode & MODE_SYMLINK != 0
    }

    /// True when this is a later name of a file that was listed before.
    #[must_use]
    pub fn is_hard_link(&self) -> bool {
        !self.is_symlink() && !self.is_dir() && !self.linkname.as_os_str().is_empty()
    }
}

/// Metadata of one inode, from statx(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Device the inode lives on, as major and minor.
    pub dev: (u32, u32),
    /// Inode number.
    pub ino: u64,
    /// Kernel mode bits, type included.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Device number of a device node, as major and minor.
    pub rdev: (u32, u32),
    /// Access time in nanoseconds since 1970.
    pub atime: i64,
    /// Modification time in nanoseconds since 1970.
    pub mtime: i64,
    /// Time of the last change of any kind in nanoseconds since 1970; nobody can set it.
    pub ctime: i64,
}

/// How close to now a change may be for a later one to have the same time: clocks of file systems tick that slowly.
const CLOCK_TICK_NANOS: i64 = 50_000_000;

impl Meta {
    /// What cannot stay the same when a file changes: its inode and the time of its last change. `now` is in nanoseconds
    /// since 1970: a file that has just changed may change again without a trace, and gets a mark that none equals.
    #[must_use]
    pub fn change_mark(&self, now: i64) -> Vec<u8> {
        let mut mark = Vec::with_capacity(32);
        mark.extend_from_slice(&self.ctime.to_le_bytes());
        mark.extend_from_slice(&self.ino.to_le_bytes());
        mark.extend_from_slice(&self.dev.0.to_le_bytes());
        mark.extend_from_slice(&self.dev.1.to_le_bytes());
        if now.saturating_sub(self.ctime) < CLOCK_TICK_NANOS {
            mark.extend_from_slice(&now.to_le_bytes());
        }
        mark
    }

    /// The type of the file.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_kernel_mode(self.mode)
    }

    /// True for directories.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind() == Kind::Dir
    }

    /// True for regular files.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind() == Kind::File
    }

    /// True for symbolic links.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.kind() == Kind::Symlink
    }

    /// True for the character device 0/0 by which overlayfs marks a removed name.
    #[must_use]
    pub fn is_whiteout(&self) -> bool {
        self.kind() == Kind::Char && self.rdev == (0, 0)
    }

    /// Go `FileMode` bits.
    #[must_use]
    pub fn go_mode(&self) -> u32 {
        go_mode(self.mode)
    }

    /// True when both are one inode.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        self.dev == other.dev && self.ino == other.ino
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_that_of_the_inode_and_its_last_change_and_none_right_after_it() {
        let meta = |ino, ctime| Meta {
            dev: (8, 1),
            ino,
            mode: 0o100_644,
            nlink: 1,
            uid: 0,
            gid: 0,
            size: 3,
            blocks: 8,
            rdev: (0, 0),
            atime: 0,
            mtime: 7,
            ctime,
        };
        let late = 10 * CLOCK_TICK_NANOS;
        let mark = meta(5, CLOCK_TICK_NANOS).change_mark(late);
        assert_eq!(mark, meta(5, CLOCK_TICK_NANOS).change_mark(late + 1));
        assert_ne!(
            mark,
            meta(6, CLOCK_TICK_NANOS).change_mark(late),
            "another file"
        );
        assert_ne!(
            mark,
            meta(5, CLOCK_TICK_NANOS + 1).change_mark(late),
            "a later change"
        );
        let soon = meta(5, CLOCK_TICK_NANOS).change_mark(CLOCK_TICK_NANOS + 1);
        assert_ne!(
            soon,
            meta(5, CLOCK_TICK_NANOS).change_mark(CLOCK_TICK_NANOS + 2)
        );
        assert_ne!(soon, mark);
    }

    #[test]
    fn modes_keep_kind_and_permissions_in_go_s_bits() {
        for kernel in [
            0o100_644, 0o104_755, 0o042_775, 0o041_777, 0o120_777, 0o060_600, 0o020_666, 0o010_644,
            0o140_755,
        ] {
            let go = go_mode(kernel);
            assert_eq!(unix_permissions(go), kernel & 0o7777, "{kernel:o}");
            assert_eq!(
                Kind::from_go_mode(go),
                Kind::from_kernel_mode(kernel),
                "{kernel:o}"
            );
        }
        assert_eq!(go_mode(0o041_777), MODE_DIR | MODE_STICKY | 0o777);
        assert_eq!(go_mode(0o020_666), MODE_DEVICE | MODE_CHAR_DEVICE | 0o666);
    }
}
