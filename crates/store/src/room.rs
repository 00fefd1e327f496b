//! Makes room for steps: a step that starts over the budget waits for a collection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::budget::{Advice, limit};
use crate::error::StoreError;
use crate::policy::{DiskStat, GcPolicy};
use crate::store::Store;
use crate::usage::UsageRecord;

impl Store {
    /// Sets the rules that hold the directory to its budget, for [`Self::make_room`].
    pub fn set_budget(&self, rules: Vec<GcPolicy>) {
        *self.budget.rules.lock() = rules;
    }

    /// Called before a step: collects if the directory is over its budget. Never fails; the collection after the build
    /// reports what cannot be counted or collected.
    pub async fn make_room(self: &Arc<Self>) {
        let rules = self.budget.rules.lock().clone();
        let Some(limit) = limit(&rules, DiskStat::of(self.root())) else {
            return;
        };
        let advice = |store: &Self| {
            let changed = store.budget.changed.load(Ordering::Relaxed);
            let count = store.budget.count.lock();
            count.advice(limit, changed, task::clock::monotonic())
        };
        match advice(self) {
            Advice::Go => {}
            Advice::CountBeside => {
                // The step goes on with the last count.
                self.budget.count.lock().counted = Some(task::clock::monotonic());
                let store = Arc::clone(self);
                let counting = task::blocking("count used space", move || store.used().map(drop));
                task::spawn("count used space", async move {
                    if let Err(error) = counting.await {
                        tracing::debug!(%error, "used space was not counted");
                    }
                })
                .detach();
            }
            Advice::Wait => {
                let _lock = self.budget.counting.lock().await;
                if advice(self) == Advice::Go {
                    return;
                }
                let store = Arc::clone(self);
                let collecting = task::blocking("make room", move || store.make_room_now(&rules));
                if let Err(error) = collecting.await {
                    tracing::warn!(%error, "no room could be made");
                }
            }
        }
    }

    fn make_room_now(&self, rules: &[GcPolicy]) -> Result<(), StoreError> {
        if self.excess(rules)? == 0 {
            return Ok(());
        }
        let mut freed = 0_i64;
        let mut count = |record: UsageRecord| freed = freed.saturating_add(record.size);
        self.collect(rules, &mut count)?;
        let excess = self.excess(rules)?;
        self.budget.count.lock().fruitless = (excess > 0).then(task::clock::monotonic);
        tracing::info!(bytes = freed, excess, "room made for a step");
        Ok(())
    }
}
