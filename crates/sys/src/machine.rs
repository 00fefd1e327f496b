//! What this machine has: memory for this process, pressure on it, and the disk below a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor, stat};

/// The bytes of memory that this process and its children may use: those of the machine, or of the smallest limit of a control group
/// around it.
pub fn memory() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let total =
        total_of(&meminfo).ok_or_else(|| io::Error::other("/proc/meminfo names no MemTotal"))?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        text.trim().parse::<u64>().ok()
    });
    Ok(limits.fold(total, u64::min))
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The files that may hold a memory limit of the groups that `groups` names, in the format of cgroups(7); also where a container sees
/// its own group as the root.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (roots, file): (&[&str], _) = if controllers.is_empty() {
            (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (&["/sys/fs/cgroup/memory"], "memory.limit_in_bytes")
        } else {
            continue;
        };
        for root in roots {
            for above in Path::new(group).ancestors() {
                let below = above.strip_prefix("/").unwrap_or(above);
                files.push(Path::new(root).join(below).join(file));
            }
        }
    }
    files
}

/// In how many hundredths of the last ten seconds some process waited for memory; none where the kernel does not count it
/// (`CONFIG_PSI`; kernel, `accounting/psi.rst`).
#[must_use]
pub fn memory_pressure() -> Option<f64> {
    pressure_of(&fs::read_to_string("/proc/pressure/memory").ok()?)
}

fn pressure_of(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some
        .split(' ')
        .find_map(|word| word.strip_prefix("avg10="))?;
    average.parse().ok()
}

/// The number of the whole disk that holds `folder`; none where it lies on no disk of its own, such as in memory or on several.
pub fn disk_of(folder: &Path) -> io::Result<Option<(u32, u32)>> {
    let device = stat(folder)?.st_dev;
    disk_below(Path::new("/sys/dev/block"), major(device), minor(device))
}

fn disk_below(devices: &Path, major: u32, minor: u32) -> io::Result<Option<(u32, u32)>> {
    let folder = devices.join(format!("{major}:{minor}"));
    if !folder.try_exists()? {
        return Ok(None);
    }
    if !folder.join("partition").exists() {
        return Ok(Some((major, minor)));
    }
    // The folder is a link, and the kernel follows it before it goes up.
    let text = fs::read_to_string(folder.join("../dev"))?;
    let number = text
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    number.map(Some).ok_or_else(|| {
        io::Error::other(format!(
            "the disk of {major}:{minor} has the number {text:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        assert!(memory().unwrap() > 1 << 20);
        if let Some(pressure) = memory_pressure() {
            assert!((0.0..=100.0).contains(&pressure), "{pressure}");
        }
        assert_eq!(disk_of(Path::new("/proc")).unwrap(), None);
    }

    #[test]
    fn the_files_of_the_kernel_are_read_as_they_are_written() {
        assert_eq!(
            total_of("MemTotal:       24612345 kB\nMemFree: 1 kB\n"),
            Some(24_612_345 * 1024)
        );
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        assert_eq!(total_of("MemTotal: 18446744073709551615 kB"), None);
        let psi = "some avg10=12.34 avg60=0.01 avg300=0.00 total=63204321\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=3\n";
        assert_eq!(pressure_of(psi), Some(12.34));
        assert_eq!(pressure_of("full avg10=1.00"), None);
        assert_eq!(pressure_of("some avg10=much"), None);
    }

    #[test]
    fn limits_are_looked_for_in_every_group_around_this_one() {
        let files = |text: &str| -> Vec<String> {
            limit_files(text)
                .iter()
                .map(|file| file.display().to_string())
                .collect()
        };
        assert_eq!(
            files("4:memory:/a/b\n3:cpu,cpuacct:/c\n"),
            [
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        assert_eq!(
            files("0::/x\n"),
            [
                "/sys/fs/cgroup/x/memory.max",
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/unified/x/memory.max",
                "/sys/fs/cgroup/unified/memory.max",
            ]
        );
        assert!(files("nonsense\n1:\n").is_empty());
    }

    #[test]
    fn a_partition_stands_for_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir_all(disk.join("part")).unwrap();
        fs::write(disk.join("dev"), "8:16\n").unwrap();
        fs::write(disk.join("part/partition"), "1\n").unwrap();
        let link = |name: &str, to: &str| {
            std::os::unix::fs::symlink(disk.join(to), dir.path().join(name)).unwrap()
        };
        link("8:16", "");
        link("8:17", "part");
        let look = |minor| disk_below(dir.path(), 8, minor);
        assert_eq!(look(16).unwrap(), Some((8, 16)));
        assert_eq!(look(17).unwrap(), Some((8, 16)));
        assert_eq!(look(18).unwrap(), None);
        fs::write(disk.join("dev"), "many\n").unwrap();
        assert!(look(17).unwrap_err().to_string().contains("many"));
    }
}
