//! Giving memory back that this process holds and does not need now.

use std::io;
use std::time::Duration;

use rustix::mm::{self, Advice};
use rustix::time::{ClockId, clock_gettime};

/// Unmaps the pages of program and libraries that are only read and executed; the kernel maps them again, mostly from its cache,
/// when they are used. Returns how many bytes were looked at. madvise(2).
pub fn release_text() -> io::Result<usize> {
    Text::of_process()?.release()
}

/// Where the code and the constants of this process are mapped, for a process that will not see `/proc` any more.
#[derive(Debug)]
pub struct Text(Vec<(usize, usize)>);

impl Text {
    /// Reads the mappings of program and libraries from procfs. Libraries that are loaded later are not among them.
    pub fn of_process() -> io::Result<Self> {
        Ok(Self(mappings(&std::fs::read_to_string(
            "/proc/self/smaps",
        )?)))
    }

    /// As [`release_text`].
    pub fn release(&self) -> io::Result<usize> {
        for (start, len) in &self.0 {
            // SAFETY: the range is a private mapping of a file without write permission, and no page of it was written before it lost
            // that, as the kernel has said (what the dynamic linker has relocated has pages of its own). Mappings of a program are not
            // removed or replaced here. So all pages are the file's own, and the next use finds the same bytes.
            unsafe {
                mm::madvise(
                    std::ptr::with_exposed_provenance_mut(*start),
                    *len,
                    Advice::LinuxDontNeed,
                )
            }?;
        }
        Ok(self.0.iter().map(|(_, len)| len).sum())
    }
}

/// Start and length of the mappings in `smaps` (proc_pid_smaps(5)) that hold nothing but what is in their file.
fn mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut clean = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first.split_once('-') {
            Some((start, end)) => {
                clean.extend(current.take());
                current = range(start, end).filter(|_| is_read_only_file(rest));
            }
            None if matches!(first, "Anonymous:" | "Swap:") && rest.trim() != "0 kB" => {
                current = None;
            }
            None => {}
        }
    }
    clean.extend(current);
    clean
}

fn range(start: &str, end: &str) -> Option<(usize, usize)> {
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((start, end.checked_sub(start)?))
}

/// Whether what follows the addresses says that the mapping is private, of a file, and not to be written.
fn is_read_only_file(rest: &str) -> bool {
    let mut words = rest.split_ascii_whitespace();
    let is_read_only = matches!(words.next(), Some("r-xp" | "r--p"));
    is_read_only && words.nth(3).is_some_and(|name| name.starts_with('/'))
}

/// Hands what the allocator keeps free back to the kernel. malloc_trim(3); nothing where the allocator has no such call.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number and may be made from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps the allocator from holding much that is free: at most one heap for each of `threads` that run at a time, and buffers from
/// `large` bytes on as mappings of their own, which freeing gives back. By itself glibc makes eight heaps for each processor, learns from
/// large buffers that were freed to keep as much as 64 MiB at the end of each, and `malloc_trim` leaves these ends alone. For the start of
/// a program: heaps that exist stay. mallopt(3); nothing where the allocator has no such call.
pub fn bound_heaps(threads: usize, large: usize) {
    #[cfg(target_env = "gnu")]
    for (what, limit) in [
        (libc::M_ARENA_MAX, threads),
        (libc::M_MMAP_THRESHOLD, large),
        (libc::M_TRIM_THRESHOLD, large),
    ] {
        let limit = libc::c_int::try_from(limit).unwrap_or(libc::c_int::MAX);
        // SAFETY: the call takes two numbers and may be made from any thread at any time.
        unsafe {
            libc::mallopt(what, limit);
        }
    }
}

/// How many bytes this process has allocated and not freed. mallinfo2(3), glibc 2.33; zero where the allocator has no such call.
#[must_use]
pub fn allocated() -> usize {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the call takes nothing and may be made from any thread at any time.
        let info = unsafe { libc::mallinfo2() };
        info.uordblks + info.hblkhd
    }
    #[cfg(not(target_env = "gnu"))]
    0
}

/// The processor time that the calling thread has used.
#[must_use]
pub fn thread_time() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

fn duration(time: rustix::time::Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// The processor time that all threads of this process have used.
#[must_use]
pub fn processor_time() -> Duration {
    duration(clock_gettime(ClockId::ProcessCPUTime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_that_are_as_their_files_are_taken_and_the_program_goes_on_without_their_pages()
    {
        let mapping = |rights: &str, name: &str, anonymous: u32, swap: u32| {
            format!(
                "7f00-8f00 {rights} 00001000 08:01 42   {name}\nSize: 4 kB\nRss: 4 kB\nAnonymous: {anonymous} kB\nSwap:   {swap} kB\nVmFlags: rd mr\n"
            )
        };
        let taken = |smaps: &str| -> Vec<usize> {
            mappings(smaps).into_iter().map(|(_, len)| len).collect()
        };
        for (rights, name, anonymous, swap, is_taken) in [
            ("r-xp", "/usr/bin/x", 0, 0, true),
            ("r--p", "/usr/bin/x", 0, 0, true),
            ("r--p", "/usr/bin/x", 4, 0, false),
            ("r--p", "/usr/bin/x", 0, 4, false),
            ("rw-p", "/usr/bin/x", 0, 0, false),
            ("rwxp", "/usr/bin/x", 0, 0, false),
            ("r-xs", "/usr/bin/x", 0, 0, false),
            ("r-xp", "[vdso]", 0, 0, false),
            ("r-xp", "", 0, 0, false),
        ] {
            let one = mapping(rights, name, anonymous, swap);
            let expected = vec![0x1000; usize::from(is_taken)];
            assert_eq!(taken(&one), expected, "{one}");
            let between = [
                &mapping("r-xp", "/a", 0, 0),
                &one,
                &mapping("r--p", "/b", 0, 0),
            ];
            let all = between.map(String::as_str).concat();
            assert_eq!(taken(&all).len(), 2 + expected.len(), "{all}");
        }
        assert!(release_text().unwrap() > 0);
        trim_heap();
        bound_heaps(2, 1 << 20);
        assert!(processor_time() > Duration::ZERO);
    }
}
