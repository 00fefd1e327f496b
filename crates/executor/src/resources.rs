//! Limits of a container's control group.

/// Limits of a container's control group; zero or empty leaves one off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Bytes of memory; `-1` for no limit.
    pub memory: i64,
    /// Bytes of memory and swap together; `-1` for no limit.
    pub memory_swap: i64,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: u64,
    /// Microseconds of each period; negative for no limit.
    pub cpu_quota: i64,
    /// The period in microseconds; zero for [`CPU_PERIOD_MICROSECONDS`].
    pub cpu_period: u64,
    /// Cores, as a list of ranges.
    pub cpuset_cpus: String,
    /// Memory nodes, as a list of ranges.
    pub cpuset_mems: String,
    /// Processes and threads; negative for no limit.
    pub pids: i64,
    /// Bytes per second to and from a disk.
    pub io: Option<IoLimits>,
}

/// The period of a processor quota that names none: the kernel's own.
pub const CPU_PERIOD_MICROSECONDS: u64 = 100_000;

/// How fast a container may read and write one disk. Page cache counts when it is written back, on the unified hierarchy; the
/// older `blkio` controller counts only reads and writes that pass the cache by (kernel, `cgroup-v1/blkio-controller.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoLimits {
    /// Major and minor number of the whole disk; the kernel takes no partition.
    pub device: (u32, u32),
    /// Bytes per second; zero for no limit.
    pub read: u64,
    /// Bytes per second; zero for no limit.
    pub write: u64,
}

impl Resources {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a step gets that asks for these limits on a daemon with `bounds`: a bound stands where the step asks for nothing, for
    /// more, or for no limit.
    #[must_use]
    pub fn bounded_by(&self, bounds: &Self) -> Self {
        let lower = |requested: i64, bound: i64| match (requested, bound) {
            (asked, ..=0) => asked,
            (..=0, bound) => bound,
            (asked, bound) => asked.min(bound),
        };
        let mut limits = self.clone();
        limits.memory = lower(self.memory, bounds.memory);
        limits.memory_swap = lower(self.memory_swap, bounds.memory_swap);
        limits.pids = lower(self.pids, bounds.pids);
        if bounds.cpu_quota > 0
            && self
                .cores()
                .is_none_or(|own| own > bounds.cores().unwrap_or(own))
        {
            limits.cpu_quota = bounds.cpu_quota;
            limits.cpu_period = bounds.cpu_period;
        }
        limits.io = bounds.io.or(self.io);
        limits
    }

    /// How many cores the quota stands for, in millionths; none without a quota.
    fn cores(&self) -> Option<u128> {
        let quota = u128::try_from(self.cpu_quota)
            .ok()
            .filter(|quota| *quota > 0)?;
        let period = match self.cpu_period {
            0 => CPU_PERIOD_MICROSECONDS,
            period => period,
        };
        Some(quota * 1_000_000 / u128::from(period))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Set = fn(&mut Resources);

    fn set(set: Set) -> Resources {
        let mut resources = Resources::default();
        set(&mut resources);
        resources
    }

    #[test]
    fn a_daemons_bound_stands_where_a_step_asks_for_nothing_or_more() {
        let cases: [(Set, Set, Set); 14] = [
            (|_| {}, |_| {}, |_| {}),
            (|l| l.memory = 5, |_| {}, |l| l.memory = 5),
            (|l| l.memory = -1, |_| {}, |l| l.memory = -1),
            (|_| {}, |l| l.memory = 9, |l| l.memory = 9),
            (|l| l.memory = 5, |l| l.memory = 9, |l| l.memory = 5),
            (|l| l.memory = 10, |l| l.memory = 9, |l| l.memory = 9),
            (|l| l.memory = -1, |l| l.memory = 9, |l| l.memory = 9),
            (|l| l.pids = 100, |l| l.pids = 10, |l| l.pids = 10),
            (|_| {}, |l| l.cpu_quota = 200_000, |l| l.cpu_quota = 200_000),
            (
                |l| (l.cpu_quota, l.cpu_period) = (15_000, 10_000),
                |l| l.cpu_quota = 200_000,
                |l| (l.cpu_quota, l.cpu_period) = (15_000, 10_000),
            ),
            (
                |l| (l.cpu_quota, l.cpu_period) = (25_000, 10_000),
                |l| l.cpu_quota = 200_000,
                |l| l.cpu_quota = 200_000,
            ),
            (
                |l| l.cpu_quota = -1,
                |l| (l.cpu_quota, l.cpu_period) = (1_000, 2_000),
                |l| (l.cpu_quota, l.cpu_period) = (1_000, 2_000),
            ),
            (
                |l| l.cpuset_cpus = "0".into(),
                |l| l.pids = 3,
                |l| (l.cpuset_cpus, l.pids) = ("0".into(), 3),
            ),
            (
                |l| l.cpu_shares = 7,
                |l| {
                    l.io = Some(IoLimits {
                        device: (8, 0),
                        read: 1,
                        write: 0,
                    })
                },
                |l| {
                    (l.cpu_shares, l.io) = (
                        7,
                        Some(IoLimits {
                            device: (8, 0),
                            read: 1,
                            write: 0,
                        }),
                    )
                },
            ),
        ];
        for (asked, bound, given) in cases {
            let (asked, bound) = (set(asked), set(bound));
            assert_eq!(asked.bounded_by(&bound), set(given), "{asked:?} {bound:?}");
        }
    }

    #[test]
    fn quotas_of_any_size_are_compared() {
        let endless = Resources {
            cpu_quota: i64::MAX,
            cpu_period: 1,
            ..Resources::default()
        };
        let bound = Resources {
            cpu_quota: 1,
            cpu_period: u64::MAX,
            ..Resources::default()
        };
        assert_eq!(endless.bounded_by(&bound), bound);
    }
}
