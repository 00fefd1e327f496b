//! The budget of the state directory.

use std::io::Write as _;
use std::time::Duration;

use store::{DiskSpace, GcPolicy, RefOptions};

use testkit::requires;

use crate::support::Lab;

const MB: i64 = 1_000_000;

fn at_most(bytes: i64) -> Vec<GcPolicy> {
    vec![GcPolicy {
        all: true,
        max_used: DiskSpace::bytes(bytes),
        ..GcPolicy::default()
    }]
}

/// A step's result of so many bytes.
fn step(lab: &Lab, megabytes: usize) -> store::ImmutableRef {
    let mutable = lab.store.new_mutable(None, RefOptions::default()).unwrap();
    let mut file = mutable.root().unwrap().create("f", 0o644).unwrap();
    for _ in 0..megabytes {
        file.write_all(&vec![7; 1_000_000]).unwrap();
    }
    drop(file);
    mutable.commit().unwrap()
}

/// Bytes that the state directory takes, as `du` tells it.
fn on_disk(lab: &Lab) -> i64 {
    let out = std::process::Command::new("du")
        .args(["-s", "-B1"])
        .arg(lab.dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn what_is_counted_is_what_the_directory_takes() {
    requires!(overlay);
    let lab = Lab::new();
    let empty = lab.store.used().unwrap();
    let record = step(&lab, 5);
    drop(record);
    // A blob of the history, one on its way in, a bundle of git, and trash that is being deleted.
    let lease = lab.store.lease();
    let mut loose = lab.store.blob_writer(&lease).unwrap();
    loose.write_all(&vec![1; 3_000_000]).unwrap();
    loose.commit(None).unwrap();
    let mut coming = lab.store.blob_writer(&lease).unwrap();
    coming.write_all(&vec![2; 2_000_000]).unwrap();
    let bundle = lab.dir.path().join("git/bundle-1");
    std::fs::create_dir_all(&bundle).unwrap();
    std::fs::write(bundle.join("pack"), vec![3; 1_000_000]).unwrap();
    let used = lab.store.used().unwrap() - empty;
    assert!((11 * MB..11 * MB + 200_000).contains(&used), "{used}");
    let all = lab.store.used().unwrap();
    assert!(
        (on_disk(&lab) - all).abs() < 2 * MB,
        "{} {all}",
        on_disk(&lab)
    );
    drop(coming);
}

#[test]
fn after_a_collection_the_whole_directory_is_within_the_budget() {
    requires!(overlay);
    let lab = Lab::new();
    let fixed = lab.store.used().unwrap();
    for _ in 0..6 {
        drop(step(&lab, 5));
    }
    let rules = at_most(fixed + 12 * MB);
    assert!(lab.store.excess(&rules).unwrap() > 15 * MB);
    assert!(!lab.store.keeps_to(&rules).unwrap());
    lab.store.collect(&rules, &mut |_| {}).unwrap();
    assert!(lab.store.keeps_to(&rules).unwrap());
    assert_eq!(lab.store.excess(&rules).unwrap(), 0);
    assert!(
        on_disk(&lab) < fixed + 14 * MB,
        "{} on the disk",
        on_disk(&lab)
    );
    // What fits is kept.
    assert_eq!(lab.store.disk_usage(&[], Duration::ZERO).unwrap().len(), 2);
}

#[test]
fn rules_that_are_not_about_everything_are_never_taken_to_be_kept() {
    requires!(overlay);
    let lab = Lab::new();
    let rule = |change: fn(&mut GcPolicy)| {
        let mut rules = at_most(1_000 * MB);
        change(&mut rules[0]);
        rules
    };
    let cases: [(&str, Vec<GcPolicy>, bool); 5] = [
        ("all of it", rule(|_| {}), true),
        (
            "some records",
            rule(|r| r.filters = vec!["type==regular".into()]),
            false,
        ),
        (
            "no limit: nothing is kept",
            rule(|r| r.max_used = DiskSpace::default()),
            false,
        ),
        (
            "space for others",
            rule(|r| r.min_free = DiskSpace::bytes(i64::MAX)),
            false,
        ),
        (
            "old records",
            rule(|r| r.keep_duration = Duration::from_secs(9)),
            true,
        ),
    ];
    for (what, rules, kept) in cases {
        assert_eq!(lab.store.keeps_to(&rules).unwrap(), kept, "{what}");
    }
}

#[tokio::test]
async fn a_step_on_a_full_budget_waits_until_there_is_room() {
    requires!(overlay);
    let lab = Lab::new();
    let fixed = lab.store.used().unwrap();
    let rules = at_most(fixed + 12 * MB);
    lab.store.set_budget(rules.clone());
    for _ in 0..4 {
        drop(step(&lab, 5));
    }
    tokio::join!(lab.store.make_room(), lab.store.make_room());
    assert_eq!(lab.store.excess(&rules).unwrap(), 0);
    // What a build holds is not taken from it, and its steps go on.
    let in_use = [step(&lab, 5), step(&lab, 5), step(&lab, 5)];
    lab.store.make_room().await;
    assert!(lab.store.excess(&rules).unwrap() > 0);
    assert!(
        in_use
            .iter()
            .all(|r| r.root().unwrap().lstat("f").unwrap().size == 5_000_000)
    );
}
