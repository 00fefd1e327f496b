//! Limits of the steps of builds.

use std::path::Path;
use std::sync::Arc;

use executor::{CPU_PERIOD_MICROSECONDS, IoLimits, Resources};
use ops::MemoryBudget;

use super::file::StepsFile;
use super::units::DiskSpaceText;
use super::{DiskSpace, SettingsError, gc};

/// Of the memory of the machine, this share is for steps unless the configuration says otherwise.
const BUDGET_PERCENT: u64 = 90;
/// From this share of ten seconds on, in hundredths, in which something waited for memory, no further step begins.
const PRESSED_PERCENT: f64 = 20.0;

/// Limits of each step, and of all together.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSettings {
    /// Memory of each step.
    pub memory: DiskSpace,
    /// Cores of each step; 0 for no limit.
    pub cpus: f64,
    /// Processes and threads of each step; 0 for no limit.
    pub pids: u32,
    /// Bytes that each step reads from the disk of the state directory in a second.
    pub read_rate: DiskSpace,
    /// Bytes that each step writes to it in a second.
    pub write_rate: DiskSpace,
    /// Memory that steps which ran before may need together; zero bytes turn this off.
    pub memory_budget: DiskSpace,
}

/// Why steps cannot be limited as the configuration says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepLimitsError {
    /// The machine's memory or processors cannot be read from procfs or sysfs.
    #[error("cannot find out what this machine has: {0}")]
    Machine(#[source] std::io::Error),
    /// The state directory has no disk whose use can be limited.
    #[error(
        "worker.oci.steps.readRate and writeRate limit the disk of the state directory, but {0} lies on none that the kernel could limit: leave them out, or put it on a disk"
    )]
    NoDisk(std::path::PathBuf),
}

impl StepLimitsError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Machine(source) => oci::ErrorKind::of_host(source),
            Self::NoDisk(_) => oci::ErrorKind::Invalid,
        }
    }
}

impl StepSettings {
    pub(super) fn resolve(file: StepsFile) -> Result<Self, SettingsError> {
        let cpus = file.cpus.unwrap_or(0.0);
        // Linux takes no quota below a millisecond of a period of a tenth of a second.
        if !(cpus == 0.0 || (0.01..=65_536.0).contains(&cpus)) {
            return Err(SettingsError::Value {
                key: "worker.oci.steps.cpus",
                message: format!(
                    "expected a number of cores from 0.01 to 65536, such as 1.5, or 0 for no limit, got {cpus}"
                ),
            });
        }
        for (key, rate) in [
            ("worker.oci.steps.readRate", file.read_rate),
            ("worker.oci.steps.writeRate", file.write_rate),
        ] {
            if matches!(
                amount(rate),
                DiskSpace::Percent(_) | DiskSpace::Smaller { .. }
            ) {
                return Err(SettingsError::Value {
                    key,
                    message: "expected bytes for each second, such as 100MB".to_owned(),
                });
            }
        }
        Ok(Self {
            memory: amount(file.memory),
            cpus,
            pids: file.pids.unwrap_or(0),
            read_rate: amount(file.read_rate),
            write_rate: amount(file.write_rate),
            memory_budget: file
                .memory_budget
                .map_or(DiskSpace::Percent(BUDGET_PERCENT), |text| text.0),
        })
    }

    /// What each step is limited to on this machine, with the state directory `root`.
    pub fn resources(&self, root: &Path) -> Result<Resources, StepLimitsError> {
        let mut resources = Resources {
            memory: signed(share(self.memory)?),
            pids: self.pids.into(),
            ..Resources::default()
        };
        if self.cpus > 0.0 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "65536 cores are 6.5 billion microseconds"
            )]
            let quota = (self.cpus * CPU_PERIOD_MICROSECONDS as f64) as i64;
            resources.cpu_quota = quota;
            resources.cpu_period = CPU_PERIOD_MICROSECONDS;
        }
        let rate = |rate: DiskSpace| rate.bytes(0);
        if rate(self.read_rate) != 0 || rate(self.write_rate) != 0 {
            let device = sys::machine::disk_of(root).map_err(StepLimitsError::Machine)?;
            resources.io = Some(IoLimits {
                device: device.ok_or_else(|| StepLimitsError::NoDisk(root.to_owned()))?,
                read: rate(self.read_rate),
                write: rate(self.write_rate),
            });
        }
        Ok(resources)
    }

    /// The memory that steps may use together on this machine; `None` if the budget is turned off.
    pub fn memory_budget(&self) -> Result<Option<MemoryBudget>, StepLimitsError> {
        let bytes = share(self.memory_budget)?;
        Ok((bytes > 0).then(|| MemoryBudget {
            bytes,
            is_pressed: Arc::new(|| {
                sys::machine::memory_pressure().is_some_and(|share| share >= PRESSED_PERCENT)
            }),
        }))
    }
}

/// The configured amount; zero stands for no limit.
fn amount(text: Option<DiskSpaceText>) -> DiskSpace {
    let amount = gc::space(text);
    if matches!(amount, DiskSpace::Bytes(0) | DiskSpace::Percent(0)) {
        DiskSpace::Unset
    } else {
        amount
    }
}

/// An amount of this machine's memory, in bytes.
fn share(amount: DiskSpace) -> Result<u64, StepLimitsError> {
    let percent = |percent: u64| -> Result<u64, StepLimitsError> {
        let memory = sys::machine::memory().map_err(StepLimitsError::Machine)?;
        Ok(memory / 100 * percent.min(100))
    };
    match amount {
        DiskSpace::Unset => Ok(0),
        DiskSpace::Bytes(bytes) => Ok(bytes),
        DiskSpace::Percent(share) => percent(share),
        DiskSpace::Smaller {
            percent: share,
            bytes,
        } => Ok(percent(share)?.min(bytes)),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::file::File;

    fn steps(text: &str) -> Result<StepSettings, SettingsError> {
        let (file, _) = File::parse(&format!("[worker.oci.steps]\n{text}")).unwrap();
        StepSettings::resolve(file.worker.oci.steps)
    }

    #[test]
    fn each_key_limits_what_it_says() {
        let resources = |text: &str| steps(text).unwrap().resources(Path::new("/proc")).unwrap();
        assert!(resources("").is_empty());
        assert_eq!(resources("memory = \"512MB\"").memory, 512 << 20);
        assert_eq!(resources("memory = 4096").memory, 4096);
        let half = resources("memory = \"50%\"").memory;
        let machine = signed(sys::machine::memory().unwrap());
        assert!(
            half > machine / 100 * 49 && half <= machine / 2,
            "{half} of {machine}"
        );
        let quota = |text: &str| (resources(text).cpu_quota, resources(text).cpu_period);
        assert_eq!(quota("cpus = 1.5"), (150_000, 100_000));
        assert_eq!(quota("cpus = 0.01"), (1_000, 100_000));
        assert_eq!(resources("pids = 4096").pids, 4096);
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_their_key() {
        for (text, key) in [
            ("cpus = 0.001", "worker.oci.steps.cpus"),
            ("cpus = -1.0", "worker.oci.steps.cpus"),
            ("cpus = nan", "worker.oci.steps.cpus"),
            ("cpus = inf", "worker.oci.steps.cpus"),
            ("readRate = \"10%\"", "worker.oci.steps.readRate"),
            ("writeRate = \"10%\"", "worker.oci.steps.writeRate"),
        ] {
            let error = steps(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{key}: expected ")),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn rates_need_a_disk() {
        let limited = steps("writeRate = \"1MB\"").unwrap();
        let error = limited.resources(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("/proc lies on none"), "{error}");
        assert_eq!(error.kind(), oci::ErrorKind::Invalid);
        let missing = limited.resources(Path::new("/no/such/folder")).unwrap_err();
        assert!(matches!(missing, StepLimitsError::Machine(_)), "{missing}");
    }

    #[test]
    fn steps_share_nine_tenths_of_the_memory_unless_told_otherwise() {
        let budget = |text: &str| {
            steps(text)
                .unwrap()
                .memory_budget()
                .unwrap()
                .map(|b| b.bytes)
        };
        let machine = sys::machine::memory().unwrap();
        assert_eq!(budget(""), Some(machine / 100 * 90));
        assert_eq!(budget("memoryBudget = \"1GB\""), Some(1 << 30));
        assert_eq!(budget("memoryBudget = 0"), None);
    }
}
