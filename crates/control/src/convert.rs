//! Between the wire's messages and the engine's types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use engine::api::frontend::Frontend;
use engine::api::frontend::bridge::FileStat;
use engine::api::{
    CacheSpec, ExporterSpec, Failure, FailureKind, HistoryChange, HistoryEnd, HistoryEvent,
    HistoryEventKind, HistoryQuery, HistoryRecord, HistoryResult, HistoryScope, PolicyVerifier,
    PruneRequest, RecordAccess, RecordUsage, Recording, ResultHost, SolveInput, SolveRequest,
    UsageRecord, VersionInfo, WorkerRecord,
};
use oci::Platform;
use prost_types::Timestamp;
use proto::{control, pb, types};

use crate::errors;

/// What runs in the client for a request, made if the request wants it.
pub(crate) trait ClientSide {
    /// The frontend that the client runs for the build of this name.
    fn frontend(&self, build: &str) -> Arc<dyn Frontend>;

    /// Shows results of the build of this name to the client.
    fn result_host(&self, build: &str) -> Arc<dyn ResultHost>;

    /// Asks a session for verdicts on sources.
    fn policy_verifier(&self, session: &str) -> Arc<dyn PolicyVerifier>;
}

/// The input of a solve request. A definition together with a frontend is refused; neither means a frontend in the client.
fn solve_input(
    definition: Option<pb::Definition>,
    frontend: String,
    client_frontend: impl FnOnce() -> Arc<dyn Frontend>,
) -> Result<SolveInput, Failure> {
    let is_definition = definition.as_ref().is_some_and(|d| !d.def.is_empty());
    if is_definition && !frontend.is_empty() {
        let message = "cannot solve with both Definition and Frontend specified";
        return Err(Failure::new(FailureKind::Unknown, message));
    }
    Ok(match definition {
        _ if !frontend.is_empty() => SolveInput::Frontend(frontend),
        Some(definition) => SolveInput::Definition(Arc::new(definition)),
        None => SolveInput::ClientFrontend(client_frontend()),
    })
}

/// A solve request, with the forms of old clients brought up to date.
pub(crate) fn solve_request(
    wire: control::SolveRequest,
    client: &dyn ClientSide,
) -> Result<SolveRequest, Failure> {
    let cache = wire.cache.unwrap_or_default();
    let mut cache_exports: Vec<CacheSpec> = Vec::new();
    let mut inline = false;
    let mut legacy = Vec::new();
    if !cache.export_ref_deprecated.is_empty() {
        let mut attrs = cache.export_attrs_deprecated;
        attrs.insert("ref".into(), cache.export_ref_deprecated);
        legacy.push(CacheSpec {
            kind: "registry".into(),
            attrs,
        });
    }
    for spec in cache
        .exports
        .into_iter()
        .map(|e| CacheSpec {
            kind: e.r#type,
            attrs: e.attrs,
        })
        .chain(legacy)
    {
        if spec.kind == "inline" && std::mem::replace(&mut inline, true) {
            continue;
        }
        if cache_exports.iter().any(|other| same_cache(other, &spec)) {
            return Err(Failure::new(
                FailureKind::Unknown,
                format!("duplicate cache exports [{}]", spec.kind),
            ));
        }
        cache_exports.push(spec);
    }
    let old_imports = cache.import_refs_deprecated.into_iter().map(|r| CacheSpec {
        kind: "registry".into(),
        attrs: [("ref".to_owned(), r)].into(),
    });
    let cache_imports = cache
        .imports
        .into_iter()
        .map(|i| CacheSpec {
            kind: i.r#type,
            attrs: i.attrs,
        })
        .chain(old_imports)
        .collect();
    let mut exporters: Vec<ExporterSpec> = wire
        .exporters
        .into_iter()
        .map(|e| ExporterSpec {
            kind: e.r#type,
            attrs: e.attrs,
        })
        .collect();
    if exporters.is_empty() && !wire.exporter_deprecated.is_empty() {
        exporters.push(ExporterSpec {
            kind: wire.exporter_deprecated,
            attrs: wire.exporter_attrs_deprecated,
        });
    }
    // A build argument for the frontend is the default of the exporters; `context` there is the frontend's own business.
    if let Some(epoch) = wire.frontend_attrs.get("build-arg:SOURCE_DATE_EPOCH")
        && (epoch.is_empty() || epoch.parse::<i64>().is_ok())
    {
        for exporter in &mut exporters {
            exporter
                .attrs
                .entry("source-date-epoch".into())
                .or_insert_with(|| epoch.clone());
        }
    }
    let input = solve_input(wire.definition, wire.frontend, || {
        client.frontend(&wire.r#ref)
    })?;
    let hosts_result = wire.enable_session_exporter;
    let asks_session = !wire.source_policy_session.is_empty();
    Ok(SolveRequest {
        input,
        session_exporters: hosts_result.then(|| client.result_host(&wire.r#ref)),
        policy_verifier: asks_session.then(|| client.policy_verifier(&wire.source_policy_session)),
        recording: if wire.internal {
            Recording::Internal
        } else {
            Recording::Recorded
        },
        build: wire.r#ref.into(),
        session: wire.session.into(),
        frontend_opts: wire.frontend_attrs,
        frontend_inputs: wire
            .frontend_inputs
            .into_iter()
            .map(|(k, v)| (k, Arc::new(v)))
            .collect(),
        exporters,
        cache_exports,
        cache_imports,
        entitlements: wire.entitlements,
        source_policy: wire.source_policy.as_ref().map(errors::encoded),
        compatibility_version: wire.compatibility_version,
        trace: None,
        proxy_network: wire.proxy_network,
    })
}

fn same_cache(left: &CacheSpec, right: &CacheSpec) -> bool {
    let name = |spec: &CacheSpec| {
        (spec.kind == "registry")
            .then(|| spec.attrs.get("ref").cloned())
            .flatten()
            .filter(|r| !r.is_empty())
    };
    match (name(left), name(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// A point in time.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

/// Nanoseconds of the wire as a duration; negative ones are zero.
pub(crate) fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The limits of a request to prune. Durations are in nanoseconds, sizes in bytes.
pub(crate) fn prune_request(wire: control::PruneRequest) -> PruneRequest {
    PruneRequest {
        filters: wire.filter,
        all: wire.all,
        keep: duration(wire.keep_duration),
        reserved: wire.reserved_space,
        max_used: wire.max_used_space,
        min_free: wire.min_free_space,
    }
}

/// A record of disk use.
pub(crate) fn usage_record(record: UsageRecord) -> control::UsageRecord {
    #[expect(deprecated, reason = "the old field is named to leave it empty")]
    control::UsageRecord {
        id: record.id.into(),
        mutable: record.access == RecordAccess::Mutable,
        in_use: record.usage == RecordUsage::InUse,
        size: record.size,
        parent: String::new(),
        created_at: Some(timestamp(record.created)),
        last_used_at: record.last_used.map(timestamp),
        usage_count: record.usage_count,
        description: record.description,
        record_type: record.record_type,
        shared: record.shared,
        parents: record.parents.into_iter().map(String::from).collect(),
    }
}

/// The version of the daemon as a message.
pub(crate) fn version(info: &VersionInfo) -> types::BuildkitVersion {
    types::BuildkitVersion {
        package: info.package.clone(),
        version: info.version.clone(),
        revision: info.revision.clone(),
        dockerfile_version: info.dockerfile.clone(),
    }
}

/// The message of a worker; `info` is the version of the daemon that it belongs to.
pub(crate) fn worker(record: WorkerRecord, info: &VersionInfo) -> types::WorkerRecord {
    let gc_policy = record.gc_policy.into_iter().map(|rule| types::GcPolicy {
        all: rule.all,
        keep_duration: nanos(rule.keep),
        filters: rule.filters,
        reserved_space: rule.reserved,
        max_used_space: rule.max_used,
        min_free_space: rule.min_free,
    });
    let devices = record.devices.into_iter().map(|device| types::CdiDevice {
        name: device.name,
        auto_allow: device.auto_allow,
        annotations: device.annotations,
        on_demand: device.on_demand,
    });
    types::WorkerRecord {
        id: record.info.id,
        labels: record.info.labels,
        platforms: record.info.platforms.into_iter().map(platform).collect(),
        gc_policy: gc_policy.collect(),
        buildkit_version: Some(version(info)),
        cdi_devices: devices.collect(),
    }
}

/// The message of a platform.
pub(crate) fn platform(platform: Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    }
}

/// The platform of a message.
pub(crate) fn from_platform(wire: pb::Platform) -> Platform {
    Platform {
        architecture: wire.architecture,
        os: wire.os,
        variant: wire.variant,
        os_version: wire.os_version,
        os_features: wire.os_features,
    }
}

/// The message of a file's metadata.
pub(crate) fn file_stat(stat: FileStat) -> proto::fsutil::Stat {
    proto::fsutil::Stat {
        path: stat.path.into_bytes(),
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        size: stat.size,
        mod_time: stat.mod_time,
        linkname: stat.linkname.into_bytes(),
        devmajor: stat.devmajor,
        devminor: stat.devminor,
        xattrs: stat.xattrs,
    }
}

/// The records that a request asks for. A negative limit is refused.
pub(crate) fn history_query(wire: control::BuildHistoryRequest) -> Result<HistoryQuery, Failure> {
    let limit = u32::try_from(wire.limit).map_err(|_negative| {
        Failure::new(
            FailureKind::Unknown,
            format!("invalid limit {}", wire.limit),
        )
    })?;
    Ok(HistoryQuery {
        scope: if wire.active_only {
            HistoryScope::Active
        } else {
            HistoryScope::All
        },
        build: wire.r#ref.into(),
        end: if wire.early_exit {
            HistoryEnd::AfterList
        } else {
            HistoryEnd::Never
        },
        filters: wire.filter,
        limit,
    })
}

/// A change of a build record.
pub(crate) fn history_change(wire: &control::UpdateBuildHistoryRequest) -> HistoryChange {
    match wire {
        control::UpdateBuildHistoryRequest { delete: true, .. } => HistoryChange::Delete,
        control::UpdateBuildHistoryRequest { finalize: true, .. } => HistoryChange::Finalize,
        control::UpdateBuildHistoryRequest { pinned, .. } => HistoryChange::Pin(*pinned),
    }
}

/// The message of a change of a build record.
pub(crate) fn history_event(event: HistoryEvent) -> control::BuildHistoryEvent {
    let kind = match event.kind {
        HistoryEventKind::Started => control::BuildHistoryEventType::Started,
        HistoryEventKind::Complete => control::BuildHistoryEventType::Complete,
        HistoryEventKind::Deleted => control::BuildHistoryEventType::Deleted,
    };
    control::BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(history_record(event.record)),
    }
}

pub(crate) fn history_record(record: HistoryRecord) -> control::BuildHistoryRecord {
    // A build that succeeded has a result, be it one without descriptors: clients look into it without asking.
    let succeeded = record.completed.is_some() && record.error.is_none();
    let result = record
        .result
        .or_else(|| succeeded.then(HistoryResult::default));
    control::BuildHistoryRecord {
        r#ref: record.build.into(),
        frontend: record.frontend,
        frontend_attrs: record.frontend_attrs,
        exporters: record
            .exporters
            .into_iter()
            .map(|e| control::Exporter {
                r#type: e.kind,
                attrs: e.attrs,
            })
            .collect(),
        error: record.error.as_ref().map(errors::wire),
        created_at: record.created.map(timestamp),
        completed_at: record.completed.map(timestamp),
        logs: record.logs.map(descriptor),
        exporter_response: record.exporter_response,
        result: result.map(history_result),
        results: record
            .results
            .into_iter()
            .map(|(k, v)| (k, history_result(v)))
            // The value of an empty one would not be written, and Go's clients look into each.
            .filter(|(_, v)| *v != control::BuildResultInfo::default())
            .collect(),
        generation: record.generation,
        trace: record.trace.map(descriptor),
        pinned: record.pinned,
        num_cached_steps: record.cached_steps,
        num_total_steps: record.total_steps,
        num_completed_steps: record.completed_steps,
        external_error: record.external_error.map(descriptor),
        num_warnings: record.warnings,
    }
}

fn history_result(result: HistoryResult) -> control::BuildResultInfo {
    let results: BTreeMap<i64, control::Descriptor> = result
        .results
        .into_iter()
        .map(|(k, v)| (k, descriptor(v)))
        .collect();
    control::BuildResultInfo {
        result_deprecated: results.values().next().cloned(),
        attestations: result.attestations.into_iter().map(descriptor).collect(),
        results,
    }
}

fn descriptor(descriptor: oci::Descriptor) -> control::Descriptor {
    control::Descriptor {
        size: descriptor.size,
        media_type: descriptor.media_type,
        digest: descriptor.digest.to_string(),
        annotations: descriptor.annotations.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client without frontends, exporters and policies.
    struct ClientWithoutParts;

    impl ClientSide for ClientWithoutParts {
        fn frontend(&self, _: &str) -> Arc<dyn Frontend> {
            unreachable!("no request of these tests has a frontend in its client")
        }
        fn result_host(&self, _: &str) -> Arc<dyn ResultHost> {
            unreachable!("no request of these tests shows its result")
        }
        fn policy_verifier(&self, _: &str) -> Arc<dyn PolicyVerifier> {
            unreachable!("no request of these tests asks for verdicts")
        }
    }

    fn solve_request(wire: control::SolveRequest) -> Result<SolveRequest, Failure> {
        // Something is solved, so that no frontend of the client is.
        let frontend = if wire.frontend.is_empty() && wire.definition.is_none() {
            "dockerfile.v0".to_owned()
        } else {
            wire.frontend
        };
        super::solve_request(
            control::SolveRequest { frontend, ..wire },
            &ClientWithoutParts,
        )
    }

    #[test]
    fn a_request_with_a_definition_and_a_frontend_is_refused() {
        let wire = |ops: Vec<Vec<u8>>, frontend: &str| control::SolveRequest {
            definition: Some(pb::Definition {
                def: ops,
                ..Default::default()
            }),
            frontend: frontend.into(),
            ..Default::default()
        };
        let refused = solve_request(wire(vec![vec![]], "dockerfile.v0")).unwrap_err();
        assert_eq!(
            refused.message(),
            "cannot solve with both Definition and Frontend specified"
        );
        let input = |wire| solve_request(wire).unwrap().input;
        assert_eq!(
            input(wire(vec![], "dockerfile.v0")).frontend_name(),
            "dockerfile.v0"
        );
        assert!(matches!(
            input(wire(vec![vec![]], "")),
            SolveInput::Definition(_)
        ));
        assert!(matches!(input(wire(vec![], "")), SolveInput::Definition(_)));
    }

    fn spec(kind: &str, reference: &str) -> control::CacheOptionsEntry {
        control::CacheOptionsEntry {
            r#type: kind.into(),
            attrs: [("ref".to_owned(), reference.to_owned())].into(),
        }
    }

    #[test]
    fn requests_of_old_clients_are_brought_up_to_date() {
        let request = solve_request(control::SolveRequest {
            exporter_deprecated: "image".into(),
            frontend_attrs: [("build-arg:SOURCE_DATE_EPOCH".to_owned(), "17".to_owned())].into(),
            cache: Some(control::CacheOptions {
                export_ref_deprecated: "x".into(),
                import_refs_deprecated: vec!["y".into()],
                ..Default::default()
            }),
            ..Default::default()
        })
        .unwrap();
        assert_eq!(request.exporters[0].kind, "image");
        assert_eq!(request.exporters[0].attrs["source-date-epoch"], "17");
        assert_eq!(request.cache_exports[0].attrs["ref"], "x");
        assert_eq!(request.cache_imports[0].attrs["ref"], "y");
    }

    #[test]
    fn a_cache_is_written_once() {
        let exports = |exports| control::SolveRequest {
            cache: Some(control::CacheOptions {
                exports,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(solve_request(exports(vec![spec("registry", "a"), spec("registry", "b")])).is_ok());
        assert!(
            solve_request(exports(vec![spec("registry", "a"), spec("registry", "a")])).is_err()
        );
        let inline = solve_request(exports(vec![spec("inline", ""), spec("inline", "")])).unwrap();
        assert_eq!(inline.cache_exports.len(), 1);
    }
}
