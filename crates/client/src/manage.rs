//! Asking a daemon about itself, and telling it to tidy up.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use proto::control;
use tokio_stream::StreamExt as _;

use crate::connect::Client;
use crate::failure::Failure;
use crate::status::time;

/// One piece of kept state.
#[derive(Debug, Clone)]
pub struct UsageRecord {
    /// Its name.
    pub id: String,
    /// It may still change.
    pub mutable: bool,
    /// Something uses it now.
    pub in_use: bool,
    /// It is also part of something else.
    pub shared: bool,
    /// Bytes on disk.
    pub size: i64,
    /// What it was made on.
    pub parents: Vec<String>,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// When it was used last.
    pub last_used: Option<SystemTime>,
    /// How often it was used.
    pub usage_count: i64,
    /// What it is.
    pub description: String,
    /// Of which kind.
    pub kind: String,
}

/// Which records a prune may delete.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    /// Conditions, all of which must hold.
    pub filters: Vec<String>,
    /// Also what is internal or shared.
    pub all: bool,
    /// Keep what was used within this.
    pub keep_duration: Duration,
    /// Keep this many bytes.
    pub reserved_space: i64,
    /// Stop when no more than this is used.
    pub max_used_space: i64,
    /// Stop when this much is free.
    pub min_free_space: i64,
}

/// Something that executes steps.
#[derive(Debug, Clone)]
pub struct WorkerRecord {
    /// Its name.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it builds for.
    pub platforms: Vec<String>,
    /// Its version.
    pub version: DaemonVersion,
    /// What it tidies up by itself: all, filters, keep duration, reserved, maximal, free.
    pub gc: Vec<PruneFilter>,
    /// Its devices.
    pub devices: Vec<DeviceRecord>,
}

/// What a daemon says it is.
#[derive(Debug, Clone, Default)]
pub struct DaemonVersion {
    /// Its package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Its revision.
    pub revision: String,
    /// The version of the Dockerfile language; empty where the daemon does not say.
    pub dockerfile: String,
}

/// A device of a worker that steps may ask for.
#[derive(Debug, Clone)]
pub struct DeviceRecord {
    /// Its qualified name, `vendor/class=name`.
    pub name: String,
    /// Steps get it without an entitlement.
    pub auto_allow: bool,
    /// It is set up when a step asks for it.
    pub on_demand: bool,
    /// Its labels.
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
