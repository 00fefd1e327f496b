//! Rules of garbage collection: those of the configuration, and the default ones.

use std::time::Duration;

use super::file::GcPolicyFile;
use super::units;
use super::{DiskSpace, GcPolicy, SettingsError};

pub(super) fn space(value: Option<units::DiskSpaceText>) -> DiskSpace {
    value.map_or(DiskSpace::Unset, |v| v.0)
}

pub(super) fn policy_of(file: GcPolicyFile) -> GcPolicy {
    GcPolicy {
        all: file.all,
        filters: file.filters,
        keep_duration: file.keep_duration.map_or(Duration::ZERO, |d| d.0),
        reserved: space(file.reserved_space.or(file.keep_bytes)),
        max_used: space(file.max_used_space),
        min_free: space(file.min_free_space),
    }
}

/// The rules when the configuration has none, with BuildKit's figures (`cmd/buildkitd/config/gcpolicy.go`).
pub(super) fn default_policies(
    reserved: DiskSpace,
    max: DiskSpace,
    free: DiskSpace,
) -> Vec<GcPolicy> {
    const GB: u64 = 1_000_000_000;
    let unset = reserved == DiskSpace::Unset && max == DiskSpace::Unset && free == DiskSpace::Unset;
    let (reserved, max, free) = if unset {
        (
            DiskSpace::Smaller {
                percent: 10,
                bytes: 10 * GB,
            },
            DiskSpace::Smaller {
                percent: 80,
                bytes: 100 * GB,
            },
            DiskSpace::Percent(20),
        )
    } else {
        (reserved, max, free)
    };
    let rule = |all, keep_duration| GcPolicy {
        all,
        filters: vec![],
        keep_duration,
        reserved,
        max_used: max,
        min_free: free,
    };
    vec![
        GcPolicy {
            all: false,
            filters: [
                "type==source.local",
                "type==exec.cachemount",
                "type==source.git.checkout",
            ]
            .map(String::from)
            .to_vec(),
            keep_duration: Duration::from_secs(48 * 3600),
            reserved: DiskSpace::Unset,
            max_used: DiskSpace::Bytes(512_000_000),
            min_free: DiskSpace::Unset,
        },
        rule(false, Duration::from_secs(60 * 24 * 3600)),
        rule(false, Duration::ZERO),
        rule(true, Duration::ZERO),
    ]
}

/// Parses `Reserved[,Free[,Maximum]]`, in megabytes or percent.
pub(super) fn keep_storage(text: &str) -> Result<(DiskSpace, DiskSpace, DiskSpace), SettingsError> {
    let mut parts = text.split(',').map(|part| {
        if part.is_empty() {
            return Ok(DiskSpace::Unset);
        }
        match part.parse::<u64>() {
            Ok(megabytes) => Ok(DiskSpace::Bytes(megabytes.saturating_mul(1_000_000))),
            // A number without a unit is of megabytes; all others say theirs.
            Err(_) => units::parse_disk_space(part).map_err(|source| SettingsError::Amount {
                flag: "oci-worker-gc-keepstorage",
                source,
            }),
        }
    });
    let mut next = || parts.next().unwrap_or(Ok(DiskSpace::Unset));
    Ok((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_nobody_gave_follow_the_disk() {
        const GB: u64 = 1_000_000_000;
        let unset = DiskSpace::Unset;
        let rules = default_policies(unset, unset, unset);
        assert_eq!(rules.len(), 4);
        // Caches that are easy to make again go first and have a cap of their own.
        assert_eq!(rules[0].max_used, DiskSpace::Bytes(512_000_000));
        assert_eq!(rules[0].keep_duration, Duration::from_secs(48 * 3600));
        assert_eq!(
            rules.iter().map(|rule| rule.all).collect::<Vec<_>>(),
            [false, false, false, true]
        );
        for (total, want) in [
            (1_000 * GB, [10 * GB, 100 * GB, 187 * GB]),
            (50 * GB, [5 * GB, 38 * GB, 10 * GB]),
        ] {
            for rule in &rules[1..] {
                let amounts = [rule.reserved, rule.max_used, rule.min_free];
                assert_eq!(amounts.map(|space| space.bytes(total)), want);
            }
        }
        let policies = default_policies(DiskSpace::Bytes(7), unset, unset);
        assert_eq!(policies[2].reserved, DiskSpace::Bytes(7));
        assert_eq!((policies[2].max_used, policies[2].min_free), (unset, unset));
    }
}
