//! Removes trees of any depth.
//!
//! A tree of any depth is removed with a fixed number of descriptors and next to no memory: a directory that lies deep is
//! moved up, beside the tree, and removed from there. A removal that was interrupted continues where it stopped.
//!
//! One thread walks. Where there is much, files are unlinked by several: a filesystem may wait for its journal in each call, and then
//! waits for all of them together.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::descent::Descent;
use crate::dir::{Dir, component};
use crate::stat::Kind;

/// Depth up to which directories are emptied in place. Each level holds one descriptor.
const MAX_OPEN_LEVELS: usize = 32;
/// Times that a directory is read again when it is not empty after all its entries were removed.
const MAX_REREADS: u32 = 16;
/// Threads that unlink files, beside the one that walks.
const MAX_HELPERS: usize = 4;
/// Files in a directory from which on helpers are started.
const MIN_FILES_FOR_HELPERS: usize = 16;
/// Files that may be queued; then the walk waits.
const MAX_WAITING_JOBS: usize = 1024;

impl Dir {
    /// Removes `name` and, when it is a directory, everything below; a missing name is fine.
    pub fn remove_all(&self, name: &OsStr) -> io::Result<()> {
        match self.unlink(name) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::ISDIR | Errno::PERM) => {}
                _ => return Err(e),
            },
        }
        // Depth first: what is left to do in each directory, and its name in the one above.
        let mut descent = Descent::new(self.try_clone()?);
        descent.down(name)?;
        let mut left = vec![(descent.dir().entries()?.into_iter(), name.to_owned())];
        while let Some((entries, _)) = left.last_mut() {
            let Some(entry) = entries.next() else {
                let Some((_, done)) = left.pop() else {
                    break;
                };
                descent.up()?;
                let above = descent.dir();
                match fs::unlinkat(above, component(&done)?, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(e) => return Err(e.into()),
                }
            };
            if entry.kind == Kind::Dir {
                descent.down(&entry.name)?;
                left.push((descent.dir().entries()?.into_iter(), entry.name));
                continue;
            }
            match descent.dir().unlink(&entry.name) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

struct RemovalLevel {
    dir: fs::Dir,
    /// A second descriptor of the directory, for files of it that wait; made for the first one.
    shared: Option<Arc<OwnedFd>>,
    name: OsString,
    again: u32,
}

impl RemovalLevel {
    fn open(dir: impl std::os::fd::AsFd, name: &OsStr) -> io::Result<Self> {
        Ok(Self {
            dir: open(dir, name)?,
            shared: None,
            name: name.to_owned(),
            again: 0,
        })
    }

    fn shared(&mut self) -> io::Result<Arc<OwnedFd>> {
        if let Some(shared) = &self.shared {
            return Ok(Arc::clone(shared));
        }
        let shared = Arc::new(self.dir.fd()?.try_clone_to_owned()?);
        self.shared = Some(Arc::clone(&shared));
        Ok(shared)
    }
}

/// A file to be unlinked.
struct UnlinkJob {
    dir: Arc<OwnedFd>,
    name: OsString,
}

impl UnlinkJob {
    fn unlink(self) -> io::Result<()> {
        match fs::unlinkat(&self.dir, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[derive(Default)]
struct CrewState {
    jobs: Vec<UnlinkJob>,
    running: usize,
    failed: Option<io::Error>,
    ended: bool,
}

/// The queue of files to unlink, shared with the helpers.
#[derive(Default)]
struct Crew {
    state: Mutex<CrewState>,
    /// Notified of a job, of the last one done, and of the end.
    changed: Condvar,
}

impl Crew {
    /// The loop of a helper.
    fn help(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop() {
                self.perform(job, &mut state);
            } else if state.ended {
                return;
            } else {
                self.changed.wait(&mut state);
            }
        }
    }

    fn perform(&self, job: UnlinkJob, state: &mut MutexGuard<'_, CrewState>) {
        state.running += 1;
        let unlinked = MutexGuard::unlocked(state, || job.unlink());
        state.running -= 1;
        if let Err(error) = unlinked {
            state.failed.get_or_insert(error);
        }
        if state.running == 0 && state.jobs.is_empty() {
            self.changed.notify_all();
        }
    }

    /// Adds a job; returns how many wait.
    fn add(&self, job: UnlinkJob) -> usize {
        let mut state = self.state.lock();
        state.jobs.push(job);
        self.changed.notify_one();
        state.jobs.len()
    }

    /// Does what is left together with the helpers. Tells whether something failed since the last time.
    fn settle(&self) -> Option<io::Error> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop() {
                self.perform(job, &mut state);
            } else if state.running > 0 {
                self.changed.wait(&mut state);
            } else {
                return state.failed.take();
            }
        }
    }

    /// Lets the helpers end after what they are at.
    fn end(&self) {
        let mut state = self.state.lock();
        state.jobs.clear();
        state.ended = true;
        self.changed.notify_all();
    }
}

fn open(dir: impl std::os::fd::AsFd, name: &OsStr) -> io::Result<fs::Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::Dir::new(fs::openat(dir, name, flags, Mode::empty())?)?)
}

/// Ends the helpers however the walk ends.
struct End<'a>(&'a Crew);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Removes `name` in the directory `dir` and what is below it. Directories that lie deep are moved up into `dir`, where they
/// get the names that `fresh` gives, and are left to the caller. What can be removed goes, also where something else cannot:
/// the error is the first one. A missing name is fine. When `stop` says so, it ends early with [`io::ErrorKind::Interrupted`].
/// Blocks.
pub fn remove_tree(
    dir: impl std::os::fd::AsFd,
    name: &OsStr,
    fresh: &mut dyn FnMut() -> OsString,
    stop: &dyn Fn() -> bool,
) -> io::Result<()> {
    let top = dir.as_fd();
    match fs::unlinkat(top, component(name)?, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let crew = Crew::default();
    thread::scope(|scope| {
        let mut start = || {
            for _ in 0..MAX_HELPERS {
                // If no thread can be started, the calling thread removes everything.
                let _started = thread::Builder::new().spawn_scoped(scope, || crew.help());
            }
        };
        let _end = End(&crew);
        walk(top, name, fresh, stop, &crew, &mut start)
    })
}

fn walk(
    top: BorrowedFd<'_>,
    name: &OsStr,
    fresh: &mut dyn FnMut() -> OsString,
    stop: &dyn Fn() -> bool,
    crew: &Crew,
    start_helpers: &mut dyn FnMut(),
) -> io::Result<()> {
    let mut failed: Option<io::Error> = None;
    let mut levels = vec![RemovalLevel::open(top, name)?];
    let mut files = 0_usize;
    loop {
        let is_deep = levels.len() >= MAX_OPEN_LEVELS;
        let Some(level) = levels.last_mut() else {
            break;
        };
        if let Some(entry) = level.dir.read() {
            if stop() {
                return Err(Errno::INTR.into());
            }
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
                let (dir, name) = (level.shared()?, name.to_owned());
                let waiting = crew.add(UnlinkJob { dir, name });
                files = files.saturating_add(1);
                if files == MIN_FILES_FOR_HELPERS {
                    start_helpers();
                }
                if waiting > MAX_WAITING_JOBS {
                    failed = failed.or(crew.settle());
                }
                continue;
            }
            let dir = level.dir.fd()?;
            if entry.file_type() == FileType::Unknown {
                match fs::unlinkat(dir, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Err(e) => {
                        failed.get_or_insert(e.into());
                        continue;
                    }
                }
            }
            match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(e) => {
                    failed.get_or_insert(e.into());
                    continue;
                }
            }
            let next = if is_deep {
                fs::renameat(dir, name, top, fresh().as_os_str())
                    .map(|()| None)
                    .map_err(Into::into)
            } else {
                RemovalLevel::open(dir, name).map(Some)
            };
            match next {
                Ok(next) => levels.extend(next),
                Err(e) => {
                    failed.get_or_insert(e);
                }
            }
            continue;
        }
        failed = failed.or(crew.settle());
        let Some(emptied) = levels.pop() else { break };
        let removed = match levels.last() {
            Some(above) => fs::unlinkat(above.dir.fd()?, &emptied.name, AtFlags::REMOVEDIR),
            None => fs::unlinkat(top, &emptied.name, AtFlags::REMOVEDIR),
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            // Names may be passed over while others are removed, and somebody may still be writing.
            Err(Errno::NOTEMPTY | Errno::EXIST)
                if failed.is_none() && emptied.again < MAX_REREADS =>
            {
                let mut dir = emptied.dir;
                dir.rewind();
                levels.push(RemovalLevel {
                    dir,
                    again: emptied.again + 1,
                    ..emptied
                });
            }
            Err(e) => {
                failed.get_or_insert(e.into());
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Removes what is at a path of the host and everything below, as [`std::fs::remove_dir_all`] does, but however deep it is.
/// Blocks.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = fs::openat(CWD, parent, flags, Mode::empty())?;
    let mut waiting = vec![name.to_owned()];
    let mut failed = None;
    while let Some(name) = waiting.pop() {
        let mut fresh = || {
            let moved = OsString::from(format!(
                ".removed-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ));
            waiting.push(moved.clone());
            moved
        };
        let removed = remove_tree(&dir, &name, &mut fresh, &|| false);
        if let Err(e) = removed {
            failed.get_or_insert(e);
        }
    }
    failed.map_or(Ok(()), Err)
}
