//! Every driver of snapshots keeps to the suite of the snapshot seam.

use std::sync::Arc;

use fstree::Root;
use store::{Config, DriverKind, ImmutableRef, RefOptions, Store};
use testkit::conformance::snapshots::{self, Layers};
use testkit::requires;

struct Driver {
    dir: tempfile::TempDir,
    store: Arc<Store>,
}

impl Driver {
    fn new(driver: DriverKind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            driver,
            ..Config::new(dir.path())
        };
        let store = Store::open(config).unwrap();
        Self { dir, store }
    }

    fn begin(&self, below: Option<&ImmutableRef>, work: &dyn Fn(&Root)) -> store::MutableRef {
        let options = RefOptions::described("a layer");
        let mutable = self.store.new_mutable(below, options).unwrap();
        work(&mutable.root().unwrap());
        mutable
    }
}

impl Layers for Driver {
    type Layer = ImmutableRef;

    fn commit(&self, below: Option<&ImmutableRef>, work: &dyn Fn(&Root)) -> ImmutableRef {
        self.begin(below, work).commit().unwrap()
    }

    fn abandon(&self, below: Option<&ImmutableRef>, work: &dyn Fn(&Root)) {
        self.begin(below, work).release();
    }

    fn view(&self, layer: &ImmutableRef) -> Root {
        layer.root().unwrap()
    }

    fn count(&self) -> usize {
        let snapshots = self.dir.path().join("snapshots");
        std::fs::read_dir(snapshots).unwrap().count()
    }
}

#[test]
fn every_driver_does_what_all_drivers_do() {
    requires!(overlay);
    for driver in [DriverKind::Auto, DriverKind::Overlay, DriverKind::Native] {
        snapshots::all(|| Driver::new(driver));
    }
}
