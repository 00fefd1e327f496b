//! Asking a daemon about itself, and telling it to tidy up.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use proto::control;
use tokio_stream::StreamExt as _;

use crate::connect::Client;
use crate::failure::Failure;
use crate::status::time;

/// A record of the daemon's disk usage: a snapshot, a blob, a cache mount.
#[derive(Debug, Clone)]
pub struct UsageRecord {
    /// The record's id.
    pub id: String,
    /// Whether it may still change.
    pub mutable: bool,
    /// Whether a build uses it at the moment.
    pub in_use: bool,
    /// Whether another record shares its blobs.
    pub shared: bool,
    /// Bytes on disk.
    pub size: i64,
    /// The ids of the records that it was made on.
    pub parents: Vec<String>,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// When it was used last.
    pub last_used: Option<SystemTime>,
    /// How often it was used.
    pub usage_count: i64,
    /// What it was made by, as people read it.
    pub description: String,
    /// `regular`, `internal`, `frontend`, `source.local`, `source.git.checkout` or `exec.cachemount`.
    pub kind: String,
}

/// Which records a prune may delete.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    /// Conditions, all of which must hold.
    pub filters: Vec<String>,
    /// Whether internal and shared records may be deleted too.
    pub all: bool,
    /// Records that were used within this time are kept.
    pub keep_duration: Duration,
    /// Bytes that are kept in any case.
    pub reserved_space: i64,
    /// Bytes in use at which pruning stops; zero for no such limit.
    pub max_used_space: i64,
    /// Free bytes of the disk at which pruning stops; zero for no such limit.
    pub min_free_space: i64,
}

/// A worker of a daemon.
#[derive(Debug, Clone)]
pub struct WorkerRecord {
    /// The worker's id.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The platforms that it builds for.
    pub platforms: Vec<String>,
    /// Its version.
    pub version: DaemonVersion,
    /// What it tidies up by itself: all, filters, keep duration, reserved, maximal, free.
    pub gc: Vec<PruneFilter>,
    /// Its devices.
    pub devices: Vec<DeviceRecord>,
}

/// The version that a daemon reports.
#[derive(Debug, Clone, Default)]
pub struct DaemonVersion {
    /// The import path of its package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The commit that it was built from.
    pub revision: String,
    /// The version of the Dockerfile language; empty where the daemon does not say.
    pub dockerfile: String,
}

/// A device of a worker that steps may ask for.
#[derive(Debug, Clone)]
pub struct DeviceRecord {
    /// Its qualified name, `vendor/class=name`.
    pub name: String,
    /// Whether steps get it without an entitlement.
    pub auto_allow: bool,
    /// Whether it is set up only when a step asks for it.
    pub on_demand: bool,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Client {
    /// Lists what is kept.
    pub async fn disk_usage(&self, filters: Vec<String>) -> Result<Vec<UsageRecord>, Failure> {
        let request = control::DiskUsageRequest {
            filter: filters,
            age_limit: 0,
        };
        let answer = self.control().disk_usage(request).await?.into_inner();
        Ok(answer.record.into_iter().map(usage).collect())
    }

    /// Prunes records, and passes each deleted record to `removed`.
    pub async fn prune(
        &self,
        filter: PruneFilter,
        mut removed: impl FnMut(UsageRecord),
    ) -> Result<(), Failure> {
        let request = control::PruneRequest {
            filter: filter.filters,
            all: filter.all,
            keep_duration: i64::try_from(filter.keep_duration.as_nanos()).unwrap_or(i64::MAX),
            reserved_space: filter.reserved_space,
            max_used_space: filter.max_used_space,
            min_free_space: filter.min_free_space,
        };
        let mut records = self.control().prune(request).await?.into_inner();
        while let Some(record) = records.next().await {
            removed(usage(record?));
        }
        Ok(())
    }

    /// Lists the workers.
    pub async fn workers(&self, filters: Vec<String>) -> Result<Vec<WorkerRecord>, Failure> {
        let request = control::ListWorkersRequest { filter: filters };
        let answer = self.control().list_workers(request).await?.into_inner();
        Ok(answer.record.into_iter().map(worker).collect())
    }

    /// Asks which daemon this is.
    pub async fn info(&self) -> Result<DaemonVersion, Failure> {
        let answer = self.control().info(control::InfoRequest {}).await?;
        Ok(version(answer.into_inner().buildkit_version))
    }
}

fn version(wire: Option<proto::types::BuildkitVersion>) -> DaemonVersion {
    let wire = wire.unwrap_or_default();
    DaemonVersion {
        package: wire.package,
        version: wire.version,
        revision: wire.revision,
        dockerfile: wire.dockerfile_version,
    }
}

fn worker(wire: proto::types::WorkerRecord) -> WorkerRecord {
    let platform = |p: proto::pb::Platform| {
        let mut text = format!("{}/{}", p.os, p.architecture);
        if !p.variant.is_empty() {
            text.push('/');
            text.push_str(&p.variant);
        }
        text
    };
    WorkerRecord {
        id: wire.id,
        labels: wire.labels,
        platforms: wire.platforms.into_iter().map(platform).collect(),
        version: version(wire.buildkit_version),
        gc: wire
            .gc_policy
            .into_iter()
            .map(|p| PruneFilter {
                filters: p.filters,
                all: p.all,
                keep_duration: Duration::from_nanos(u64::try_from(p.keep_duration).unwrap_or(0)),
                reserved_space: p.reserved_space,
                max_used_space: p.max_used_space,
                min_free_space: p.min_free_space,
            })
            .collect(),
        devices: wire.cdi_devices.into_iter().map(device).collect(),
    }
}

fn device(wire: proto::types::CdiDevice) -> DeviceRecord {
    DeviceRecord {
        name: wire.name,
        auto_allow: wire.auto_allow,
        on_demand: wire.on_demand,
        annotations: wire.annotations,
    }
}

fn usage(wire: control::UsageRecord) -> UsageRecord {
    UsageRecord {
        id: wire.id,
        mutable: wire.mutable,
        in_use: wire.in_use,
        shared: wire.shared,
        size: wire.size,
        parents: wire.parents,
        created: time(wire.created_at),
        last_used: time(wire.last_used_at),
        usage_count: wire.usage_count,
        description: wire.description,
        kind: wire.record_type,
    }
}
