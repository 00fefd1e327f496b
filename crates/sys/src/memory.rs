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

/// Where the code of this process is mapped, for a process that will not see `/proc` any more.
#[derive(Debug)]
pub struct Text(Vec<(usize, usize)>);

impl Text {
    /// Reads the mappings of program and libraries from procfs. Libraries that are loaded later are not among them.
    pub fn of_process() -> io::Result<Self> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        Ok(Self(maps.lines().filter_map(text_of).collect()))
    }

    /// As [`release_text`].
    pub fn release(&self) -> io::Result<usize> {
        for (start, len) in &self.0 {
            // SAFETY: the range is a private mapping of a file without write permission, as the kernel has said, and mappings of code
            // are not removed or replaced in this program. Such pages are the file's own, so the next use finds the same bytes.
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

/// Start and length of a mapping of a file's code.
fn text_of(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_text = words.next()? == "r-xp" && words.nth(3)?.starts_with('/');
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    is_text.then_some((start, end.checked_sub(start)?))
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
    fn only_code_of_files_is_found_and_the_program_goes_on_without_its_pages() {
        let line = |rights, name| {
            text_of(&format!("7f00-8f00 {rights} 00001000 08:01 42   {name}")).map(|(_, len)| len)
        };
        assert_eq!(line("r-xp", "/usr/bin/x"), Some(0x1000));
        assert_eq!(line("r--p", "/usr/bin/x"), None);
        assert_eq!(line("rwxp", "/usr/bin/x"), None);
        assert_eq!(line("r-xs", "/usr/bin/x"), None);
        assert_eq!(line("r-xp", "[vdso]"), None);
        assert_eq!(line("r-xp", ""), None);
        assert!(release_text().unwrap() > 0);
        trim_heap();
        bound_heaps(2, 1 << 20);
        assert!(processor_time() > Duration::ZERO);
    }
}
