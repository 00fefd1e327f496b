//! Cache mounts: directories that outlive steps, identified by the id in their options.
//!
//! A build that ignores the cache starts with empty cache mounts. Other builds that run at that time keep theirs:
//! their later steps find the files of their earlier steps. So a cache mount may have several generations. The newest
//! is the one under [`CACHE_DIR`]; an older one has a name of its own under [`OLD_DIR`], belongs to the builds that used it
//! when it was replaced, and is deleted when the last of them ends.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use executor::IdMapping;
use llb::pb;
use parking_lot::Mutex;
use store::{ImmutableRef, MountFd, MutableRef, RecordType, RefId, RefOptions, Store, StoreError};
use tokio::sync::Notify;

use crate::failure::OpFailure;

/// Metadata key under which a cache mount's record is found.
const CACHE_DIR: &str = "cache-dir";
/// Metadata key under which the record of a replaced generation is found, by the generation's name.
const OLD_DIR: &str = "cache-dir.old";

/// A cache mount in use. Dropping the last handle frees it for other steps.
#[derive(Debug)]
pub(crate) struct CacheMount {
    /// `None` only while the handle is dropped.
    pub(crate) mutable: Option<MutableRef>,
    freed: Arc<Notify>,
}

impl CacheMount {
    pub(crate) fn mount(&self, ids: Option<&IdMapping>) -> Result<MountFd, OpFailure> {
        let mutable = self.mutable.as_ref().ok_or(OpFailure::NoRoot)?;
        Ok(mutable.mount_for(ids)?)
    }
}

impl Drop for CacheMount {
    fn drop(&mut self) {
        self.mutable.take();
        self.freed.notify_waiters();
    }
}

/// A generation of a cache mount that was replaced while builds used it.
#[derive(Debug)]
struct OldGeneration {
    store: Arc<Store>,
    name: String,
}

impl Drop for OldGeneration {
    fn drop(&mut self) {
        if let Err(error) = retire(&self.store, OLD_DIR, &self.name) {
            tracing::warn!(%error, "failed to delete a replaced cache mount: the next start deletes it");
        }
    }
}

/// Deletes the records under a value; those in use when their users release them.
fn retire(store: &Arc<Store>, key: &str, value: &str) -> Result<(), StoreError> {
    for record in store.find_meta(key, value.as_bytes())? {
        store.clear_meta(&record, key)?;
        store.retire(&record)?;
    }
    Ok(())
}

/// The generations of cache mounts that one build uses. Its job holds them, see [`crate::JobValue`].
#[derive(Debug, Default)]
pub struct BuildCacheMounts(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    /// Keys of the mounts that the build's steps opened.
    used: HashSet<String>,
    /// Keys of the mounts that were replaced since, with the generation that the build keeps.
    old: HashMap<String, Arc<OldGeneration>>,
    /// Ids of the mounts that the build emptied, each with whether it has a base.
    emptied: HashSet<(String, bool)>,
}

/// A step's request for a cache mount.
#[derive(Debug)]
pub(crate) struct CacheMountRequest<'a> {
    pub(crate) mount: &'a pb::Mount,
    pub(crate) input: Option<&'a ImmutableRef>,
    pub(crate) args: &'a [String],
    /// Builds that want the step.
    pub(crate) builds: &'a [Arc<BuildCacheMounts>],
}

/// All cache mounts of the daemon that are in use.
#[derive(Debug)]
pub struct CacheMounts {
    store: Arc<Store>,
    /// Mounts that may be shared, by their generation.
    shared: Mutex<HashMap<GenerationKey, Weak<CacheMount>>>,
    /// Builds that have used cache mounts.
    builds: Mutex<Vec<Weak<BuildCacheMounts>>>,
    /// Locked by one opener at a time, so that no other takes a free record between look-up and use. Held over index look-ups only.
    opening: Mutex<()>,
    freed: Arc<Notify>,
}

/// Metadata key and value under which the records of one generation are found.
type GenerationKey = (&'static str, String);

impl CacheMounts {
    /// Cache mounts of a starting daemon. Generations that were replaced before it stopped are deleted.
    pub fn new(store: &Arc<Store>) -> Self {
        let cleanup = store.find_meta_below(OLD_DIR, b"").and_then(|cleanup| {
            cleanup.iter().try_for_each(|record| {
                store.clear_meta(record, OLD_DIR)?;
                store.retire(record)
            })
        });
        if let Err(error) = cleanup {
            tracing::warn!(%error, "failed to delete replaced cache mounts of an earlier run");
        }
        Self {
            store: Arc::clone(store),
            shared: Mutex::default(),
            builds: Mutex::default(),
            opening: Mutex::default(),
            freed: Arc::default(),
        }
    }

    /// Gives steps of `build`, and of later builds, an empty cache mount; `on_inputs` says that the mount has a ref as its base.
    /// Other builds that use the mount keep their generation. If a build calls this again, it keeps the empty one that it
    /// got first. Blocks.
    ///
    /// DIFFERS: BuildKit empties the mount under the builds that use it.
    pub fn forget(
        &self,
        build: &Arc<BuildCacheMounts>,
        id: &str,
        on_inputs: bool,
    ) -> Result<(), StoreError> {
        let _one = self.opening.lock();
        if !build.0.lock().emptied.insert((id.to_owned(), on_inputs)) {
            return Ok(());
        }
        let records = if on_inputs {
            self.store
                .find_meta_below(CACHE_DIR, format!("{id}:").as_bytes())?
        } else {
            self.store.find_meta(CACHE_DIR, id.as_bytes())?
        };
        let mut by_key: HashMap<String, Vec<RefId>> = HashMap::new();
        for record in records {
            let key = self.store.meta(&record, CACHE_DIR)?.unwrap_or_default();
            if let Ok(key) = String::from_utf8(key) {
                by_key.entry(key).or_default().push(record);
            }
        }
        for (key, records) in by_key {
            self.replace(build, &key, &records)?;
        }
        // The older generations that this build kept are dropped too.
        let below = format!("{id}:");
        let is_it = |key: &String| key == id || on_inputs && key.starts_with(&below);
        let replaced: Vec<_> = {
            let mut of_build = build.0.lock();
            let keys: Vec<String> = of_build
                .old
                .keys()
                .filter(|key| is_it(key))
                .cloned()
                .collect();
            keys.iter()
                .filter_map(|key| of_build.old.remove(key))
                .collect()
        };
        drop(replaced);
        Ok(())
    }

    /// Replaces the newest generation of a cache mount by an empty one.
    fn replace(
        &self,
        build: &Arc<BuildCacheMounts>,
        key: &str,
        records: &[RefId],
    ) -> Result<(), StoreError> {
        let newest = (CACHE_DIR, key.to_owned());
        let users: Vec<Arc<BuildCacheMounts>> = {
            let mut builds = self.builds.lock();
            builds.retain(|build| build.strong_count() > 0);
            let others = builds.iter().filter_map(Weak::upgrade);
            others
                .filter(|using_build| !Arc::ptr_eq(using_build, build))
                .filter(|using_build| {
                    let of_other = using_build.0.lock();
                    of_other.used.contains(key) && !of_other.old.contains_key(key)
                })
                .collect()
        };
        if users.is_empty() {
            self.shared.lock().remove(&newest);
            return retire(&self.store, CACHE_DIR, key);
        }
        let name = executor::ContainerId::random().to_string();
        for record in records {
            self.store.set_meta(record, OLD_DIR, name.as_bytes())?;
            self.store.clear_meta(record, CACHE_DIR)?;
        }
        {
            let mut shared = self.shared.lock();
            if let Some(open) = shared.remove(&newest) {
                shared.insert((OLD_DIR, name.clone()), open);
            }
        }
        let old = Arc::new(OldGeneration {
            store: Arc::clone(&self.store),
            name,
        });
        for user in users {
            user.0.lock().old.insert(key.to_owned(), Arc::clone(&old));
        }
        Ok(())
    }

    /// Opens a cache mount for a step. `own` has the mounts that the step has open already: a step shares with itself
    /// in any sharing mode.
    pub(crate) async fn open(
        &self,
        own: &mut HashMap<String, Arc<CacheMount>>,
        request: &CacheMountRequest<'_>,
    ) -> Result<Arc<CacheMount>, OpFailure> {
        let CacheMountRequest { mount, input, .. } = request;
        let options = mount
            .cache_opt
            .as_ref()
            .ok_or(OpFailure::MountOptions { kind: "cache" })?;
        let sharing = pb::CacheSharingOpt::try_from(options.sharing)
            // prost's error holds the same number and no cause.
            .map_err(|_| OpFailure::UnknownSharing(options.sharing))?;
        let mut key = options.id.clone();
        if let Some(input) = input {
            key = format!("{key}:{}", input.id());
        }
        if let Some(open) = own.get(&key) {
            return Ok(Arc::clone(open));
        }
        let mut description = format!(
            "cached mount {} from exec {}",
            mount.dest,
            request.args.join(" ")
        );
        if options.id != mount.dest {
            description.push_str(&format!(" with id {:?}", options.id));
        }
        loop {
            let freed = self.freed.notified();
            if let Some(cache_mount) = self.try_open(&key, request, &description, sharing)? {
                own.insert(key, Arc::clone(&cache_mount));
                return Ok(cache_mount);
            }
            freed.await;
        }
    }

    /// The generation that the builds see, which they use from now on.
    fn place(&self, builds: &[Arc<BuildCacheMounts>], key: &str) -> GenerationKey {
        let mut place = None;
        for build in builds {
            let mut of_build = build.0.lock();
            of_build.used.insert(key.to_owned());
            if let Some(old) = of_build.old.get(key) {
                place.get_or_insert_with(|| (OLD_DIR, old.name.clone()));
            }
            drop(of_build);
            let mut builds = self.builds.lock();
            builds.retain(|build| build.strong_count() > 0);
            if !builds.iter().any(|k| k.as_ptr() == Arc::as_ptr(build)) {
                builds.push(Arc::downgrade(build));
            }
        }
        place.unwrap_or_else(|| (CACHE_DIR, key.to_owned()))
    }

    /// Opens without waiting; none if another step has the mount locked.
    fn try_open(
        &self,
        key: &str,
        request: &CacheMountRequest<'_>,
        description: &str,
        sharing: pb::CacheSharingOpt,
    ) -> Result<Option<Arc<CacheMount>>, OpFailure> {
        let _one = self.opening.lock();
        let place = self.place(request.builds, key);
        if sharing == pb::CacheSharingOpt::Shared
            && let Some(open) = self.shared.lock().get(&place).and_then(Weak::upgrade)
        {
            return Ok(Some(open));
        }
        let records = self.store.find_meta(place.0, place.1.as_bytes())?;
        let mut mutable = None;
        for id in &records {
            if let Ok(free) = self.store.get_mutable(id) {
                mutable = Some(free);
                break;
            }
        }
        let mutable = match mutable {
            Some(mutable) => mutable,
            None if sharing == pb::CacheSharingOpt::Locked && !records.is_empty() => {
                return Ok(None);
            }
            None => {
                let options = RefOptions {
                    description: description.into(),
                    record_type: RecordType::CacheMount,
                    retain: true,
                    created: None,
                };
                let mutable = self.store.new_mutable(request.input, options)?;
                mutable.set_meta(place.0, place.1.as_bytes())?;
                mutable
            }
        };
        let mount = Arc::new(CacheMount {
            mutable: Some(mutable),
            freed: Arc::clone(&self.freed),
        });
        if sharing == pb::CacheSharingOpt::Shared {
            let mut shared = self.shared.lock();
            shared.retain(|_, weak| weak.strong_count() > 0);
            shared.insert(place, Arc::downgrade(&mount));
        }
        Ok(Some(mount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Steps {
        _dir: tempfile::TempDir,
        store: Arc<Store>,
        mounts: CacheMounts,
    }

    impl Steps {
        fn new() -> Option<Self> {
            if !rustix::process::geteuid().is_root() {
                testkit::skip::skip("needs root for overlay mounts");
                return None;
            }
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(store::Config::new(dir.path())).unwrap();
            let mounts = CacheMounts::new(&store);
            Some(Self {
                _dir: dir,
                store,
                mounts,
            })
        }

        fn open(&self, build: &Arc<BuildCacheMounts>) -> Arc<CacheMount> {
            let mount = pb::Mount {
                dest: "/cache".into(),
                cache_opt: Some(pb::CacheOpt {
                    id: "id".into(),
                    sharing: pb::CacheSharingOpt::Shared as i32,
                }),
                ..pb::Mount::default()
            };
            let request = CacheMountRequest {
                mount: &mount,
                input: None,
                args: &[],
                builds: std::slice::from_ref(build),
            };
            let opened = self
                .mounts
                .try_open("id", &request, "test", pb::CacheSharingOpt::Shared);
            opened.unwrap().unwrap()
        }

        /// Runs a step of a build: lists the files in the mount, and adds one.
        fn step(&self, build: &Arc<BuildCacheMounts>, adds: &str) -> String {
            let cache = self.open(build);
            let root = cache.mutable.as_ref().unwrap().root().unwrap();
            let entries = root.dir("/").unwrap().entries().unwrap();
            root.create(adds, 0o644).unwrap();
            let names: Vec<_> = entries
                .iter()
                .map(|e| e.name.to_string_lossy().into_owned())
                .collect();
            names.join(" ")
        }

        fn records(&self) -> usize {
            let usage = self.store.disk_usage(&[], std::time::Duration::ZERO);
            usage.unwrap().len()
        }
    }

    fn build() -> Arc<BuildCacheMounts> {
        Arc::default()
    }

    #[test]
    fn a_build_without_cache_empties_no_mount_of_running_builds() {
        let Some(steps) = Steps::new() else { return };
        let (running, fresh) = (build(), build());
        assert_eq!(steps.step(&running, "first"), "");
        let open_mount = steps.open(&running);
        steps.mounts.forget(&fresh, "id", false).unwrap();
        assert_eq!(steps.step(&fresh, "fresh1"), "");
        // When it asks again for its next definition, it keeps the empty mount.
        steps.mounts.forget(&fresh, "id", false).unwrap();
        assert_eq!(steps.step(&fresh, "fresh2"), "fresh1");
        assert_eq!(steps.step(&running, "second"), "first");
        drop(open_mount);
        assert_eq!(steps.step(&running, "third"), "first second");
        // A build that starts now sees the new mount.
        let later = build();
        assert_eq!(steps.step(&later, "later"), "fresh1 fresh2");
        assert_eq!(steps.records(), 2);
        drop(running);
        assert_eq!(steps.records(), 1, "the old one went with its last user");
        assert_eq!(steps.step(&later, "x"), "fresh1 fresh2 later");
    }

    #[test]
    fn each_of_several_builds_without_cache_has_a_mount_of_its_own() {
        let Some(steps) = Steps::new() else { return };
        let builds: Vec<_> = (0..4).map(|_| build()).collect();
        for (n, one) in builds.iter().enumerate() {
            steps.mounts.forget(one, "id", false).unwrap();
            assert_eq!(steps.step(one, &format!("a{n}")), "");
        }
        for (n, one) in builds.iter().enumerate() {
            assert_eq!(steps.step(one, &format!("b{n}")), format!("a{n}"));
        }
        drop(builds);
        assert_eq!(steps.records(), 1);
    }

    #[test]
    fn a_step_that_outlives_its_build_keeps_its_mount_until_it_ends() {
        let Some(steps) = Steps::new() else { return };
        let running = build();
        let open_mount = steps.open(&running);
        steps.mounts.forget(&build(), "id", false).unwrap();
        drop(running);
        let root = open_mount.mutable.as_ref().unwrap().root().unwrap();
        root.create("still", 0o644).unwrap();
        drop(root);
        drop(open_mount);
        assert_eq!(steps.records(), 0);
    }

    #[test]
    fn replaced_mounts_of_a_killed_daemon_are_deleted_at_the_next_start() {
        let Some(steps) = Steps::new() else { return };
        let running = build();
        steps.step(&running, "x");
        steps.mounts.forget(&build(), "id", false).unwrap();
        assert_eq!(steps.records(), 1);
        let again = CacheMounts::new(&steps.store);
        assert_eq!(steps.records(), 0);
        drop(again);
    }
}
