//! What the kernel counts of this process.

use std::time::Duration;

use metrics::NoLabels;

/// Clock ticks a second in `/proc/self/stat`: `USER_HZ`, 100 on every architecture that Linux runs containers on (proc_pid_stat(5)).
const TICKS: u64 = 100;

/// Takes over what the kernel counts into the metrics. Blocks for as long as procfs does.
pub(super) fn measure() {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    metrics::CPU_TIME.raise(NoLabels, nanos(sys::memory::processor_time()));
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
    if let Some(bytes) = read("status").ok().as_deref().and_then(resident) {
        metrics::RESIDENT_MEMORY.set(NoLabels, bytes);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // The descriptor of the listing itself is one of them.
        let open = entries.count().saturating_sub(1);
        metrics::OPEN_DESCRIPTORS.set(NoLabels, i64::try_from(open).unwrap_or(i64::MAX));
    }
    let boot = std::fs::read_to_string("/proc/stat");
    let process_stat = read("stat");
    if let (Ok(boot), Ok(process_stat)) = (boot, process_stat)
        && let Some(start) = started(&boot, &process_stat)
    {
        let nanos = i64::try_from(start.as_nanos()).unwrap_or(i64::MAX);
        metrics::START_TIME.set(NoLabels, nanos);
    }
}

/// Resident bytes of `/proc/self/status`.
fn resident(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// When the process started, since 1970: `btime` of `/proc/stat` and field 22 of `/proc/self/stat`.
fn started(boot: &str, process_stat: &str) -> Option<Duration> {
    let boot: u64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    // The second field is the program's name in brackets, which may contain anything; the third follows the last bracket.
    let (_, fields) = process_stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let since_boot = Duration::from_millis(ticks.checked_mul(1000 / TICKS)?);
    Some(Duration::from_secs(boot).saturating_add(since_boot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read_whatever_the_program_is_called() {
        let process_stat =
            "42 (rbuild) 7) S 1 42 42 0 -1 4194560 100 0 0 0 5 3 0 0 20 0 9 0 250 1 2 3";
        let boot = "cpu 1 2\nbtime 1000\nprocesses 3\n";
        assert_eq!(
            started(boot, process_stat),
            Some(Duration::from_millis(1_002_500))
        );
        assert_eq!(started("cpu 1\n", process_stat), None);
        assert_eq!(started(boot, "42 (x) S 1"), None);
        assert_eq!(resident("VmHWM:\t 9 kB\nVmRSS:\t  12 kB\n"), Some(12_288));
        assert_eq!(resident("VmRSS:\tmuch\n"), None);
    }

    #[test]
    fn this_process_is_measured() {
        measure();
        assert!(metrics::CPU_TIME.get(NoLabels) > 0);
        assert!(metrics::RESIDENT_MEMORY.get(NoLabels) > 1 << 20);
        assert!(metrics::OPEN_DESCRIPTORS.get(NoLabels) > 2);
        // Since 2020.
        assert!(metrics::START_TIME.get(NoLabels) > 1_577_836_800_000_000_000);
    }
}
