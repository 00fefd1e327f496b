//! Usage, pruning, collection.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use store::{GcPolicy, PruneOptions, Store};
use tokio::sync::mpsc;

use crate::api::{Failure, GcRule, PruneRequest, UsageRecord};
use crate::engine::Engine;

/// How long after a build garbage is collected.
const GC_DELAY: Duration = Duration::from_secs(1);
/// The shortest time between two collections.
const GC_INTERVAL: Duration = Duration::from_secs(60);

pub(crate) fn usage(record: store::UsageRecord) -> UsageRecord {
    UsageRecord {
        id: record.id.as_str().to_owned(),
        mutable: record.mutable,
        in_use: record.in_use,
        size: record.size,
        parents: record
            .parents
            .iter()
            .map(|p| p.as_str().to_owned())
            .collect(),
        created: record.created,
        last_used: record.last_used,
        usage_count: record.usage_count,
        description: record.description,
        record_type: record.record_type.as_str().to_owned(),
        shared: record.shared,
    }
}

pub(crate) fn rule(policy: &GcPolicy, store: &Store) -> GcRule {
    let options = policy.to_prune(store::DiskStat::of(store.root()));
    GcRule {
        all: options.all,
        keep: options.keep_duration,
        filters: options.filters,
        reserved: options.reserved_space,
        max_used: options.max_used_space,
        min_free: options.min_free_space,
    }
}

/// Prunes; each record that goes is told.
pub(crate) fn prune(
    store: &Arc<Store>,
    request: PruneRequest,
) -> Result<BoxStream<'static, Result<UsageRecord, Failure>>, Failure> {
    store::Filters::parse(&request.filters)
        .map_err(|e| Failure::from(store::StoreError::from(e)))?;
    let store = Arc::clone(store);
    let options = PruneOptions {
        filters: request.filters,
        all: request.all,
        keep_duration: request.keep,
        reserved_space: request.reserved,
        max_used_space: request.max_used,
        min_free_space: request.min_free,
    };
    // Bounded by the records that there are: a listener who does not listen holds neither a thread nor the store.
    let (to, from) = mpsc::unbounded_channel();
    let work = task::blocking("prune", move || {
        // A listener that left does not stop what was asked for.
        let done = store.prune(&options, &mut |freed| {
            let _gone = to.send(Ok(usage(freed)));
        });
        if let Err(error) = done {
            let _gone = to.send(Err(error.into()));
        }
    });
    task::spawn("prune", work).detach();
    Ok(stream::unfold(
        from,
        |mut from| async move { Some((from.recv().await?, from)) },
    )
    .boxed())
}

impl Engine {
    /// Collects garbage a little after a build, not too often.
    pub(crate) fn collect_later(self: &Arc<Self>) {
        if self.settings.gc_policies.is_empty() {
            return;
        }
        let now = self.clock.now();
        {
            let mut last = self.last_gc.lock();
            if last.is_some_and(|last| now.duration_since(last) < GC_INTERVAL) {
                return;
            }
            *last = Some(now);
        }
        let engine = Arc::clone(self);
        let work = async move {
            engine.clock.sleep(GC_DELAY).await;
            task::blocking("collect garbage", move || engine.collect()).await;
        };
        task::spawn("collect garbage", work).detach();
    }

    fn collect(&self) {
        let mut freed = 0_i64;
        let store = &self.parts.store;
        match store.collect(&self.settings.gc_policies, &mut |record| {
            freed = freed.saturating_add(record.size)
        }) {
            Ok(()) if freed > 0 => tracing::info!(bytes = freed, "garbage collected"),
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "garbage could not be collected"),
        }
    }
}
