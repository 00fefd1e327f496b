//! Pruning and rules of collection, as tables over one stock of records.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, params};
use store::{Config, DiskSpace, GcPolicy, PruneOptions, RefOptions, Store};
use testkit::requires;

use crate::support::Lab;

/// Name, what it stands on, type, seconds since its last use, uses, bytes.
type Line = (
    &'static str,
    Option<&'static str>,
    &'static str,
    Option<i64>,
    i64,
    i64,
);

const STOCK: &[Line] = &[
    ("a", None, "regular", Some(10), 1, 100),
    ("b", None, "regular", Some(1_000), 5, 200),
    ("c", Some("b"), "regular", Some(500), 1, 300),
    ("l", None, "source.local", Some(5_000), 1, 400),
    ("m", None, "exec.cachemount", Some(2_000), 3, 500),
    ("i", None, "internal", Some(9_000), 1, 600),
    ("f", None, "frontend", Some(9_000), 1, 700),
    ("n", None, "source.git.checkout", None, 0, 50),
];
const TOTAL: i64 = 2_850;

/// A store with the stock in it. Sizes, times and uses are written to the index, which believes them.
fn stock() -> Lab {
    let lab = Lab::new();
    let mut refs: Vec<store::ImmutableRef> = Vec::new();
    for (name, parent, ..) in STOCK {
        let parent = parent.map(|parent| {
            let parent = refs.iter().find(|r| r.description() == parent);
            parent.unwrap().clone()
        });
        let mutable = lab
            .store
            .new_mutable(parent.as_ref(), RefOptions::described(*name));
        refs.push(mutable.unwrap().commit().unwrap());
    }
    drop(refs);
    let Lab { dir, store } = lab;
    store.close().unwrap();
    drop(store);
    let index = Connection::open(dir.path().join("index.db")).unwrap();
    let now = task::clock::wall()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let now = i64::try_from(now.as_nanos()).unwrap();
    for (at, (name, _, kind, ago, uses, size)) in (0..).zip(STOCK) {
        let used = ago.map(|seconds| now - seconds * 1_000_000_000);
        let is_mutable = *kind == "exec.cachemount";
        let sql = "UPDATE refs SET record_type = ?2, used = ?3, uses = ?4, size = ?5, mutable = ?6, created = ?7
                   WHERE description = ?1";
        let row = params![name, kind, used, uses, size, is_mutable, i64::from(at)];
        assert_eq!(index.execute(sql, row).unwrap(), 1);
    }
    index.execute("UPDATE refs SET retain = 1", []).unwrap();
    drop(index);
    let store = Store::open(Config::new(dir.path())).unwrap();
    Lab { dir, store }
}

/// What goes, in the order in which it goes; without limits of space that order means nothing, and is that of the names.
fn pruned(options: &PruneOptions) -> String {
    let lab = stock();
    let mut gone = Vec::new();
    let mut tell = |u: store::UsageRecord| gone.push(u.description);
    lab.store.prune(options, &mut tell).unwrap();
    let left = lab.store.disk_usage(&[], Duration::ZERO).unwrap();
    assert_eq!(left.len() + gone.len(), STOCK.len(), "{options:?}");
    let is_limited =
        options.max_used_space != 0 || options.reserved_space != 0 || options.min_free_space != 0;
    if !is_limited {
        gone.sort();
    }
    gone.join(" ")
}

fn filtered(filters: &[&str]) -> PruneOptions {
    PruneOptions {
        filters: filters.iter().map(|f| (*f).to_owned()).collect(),
        ..PruneOptions::default()
    }
}

#[test]
fn filters_choose_what_is_pruned() {
    requires!(overlay);
    for (filters, gone) in [
        (&[][..], "a b c l m n"),
        (&["type==regular"], "a b c"),
        (&["type==source.local"], "l"),
        (&["type==exec.cachemount"], "m"),
        (&["type==source.git.checkout"], "n"),
        (&["type==internal"], ""),
        (&["type~=^source"], "l n"),
        (&["mutable"], "m"),
        (&["immutable,type!=regular"], "l n"),
        (&["private"], "a b c l m n"),
        (&["shared"], ""),
        (&["inuse"], ""),
        (&["parents~=."], "c"),
        // What something stands on stays, however it is chosen.
        (&["description==b"], ""),
        (&["description~=^[bc]$"], "b c"),
        (&["description==a", "description==l"], "a l"),
        (&["description==a,type==source.local"], ""),
        (&["unknown"], ""),
        (&["unknown!=x"], "a b c l m n"),
    ] {
        assert_eq!(pruned(&filtered(filters)), gone, "{filters:?}");
    }
}

#[test]
fn internal_records_go_only_when_all_is_asked_for() {
    requires!(overlay);
    let all = |options| PruneOptions {
        all: true,
        ..options
    };
    assert_eq!(pruned(&all(PruneOptions::default())), "a b c f i l m n");
    assert_eq!(pruned(&all(filtered(&["type==internal"]))), "i");
    assert_eq!(pruned(&all(filtered(&["type==frontend"]))), "f");
}

#[test]
fn what_was_used_lately_is_kept_and_what_was_never_used_is_not() {
    requires!(overlay);
    for (seconds, filters, gone) in [
        (1, &[][..], "a b c l m n"),
        (100, &[], "b c l m n"),
        // What stands on `b` was used lately, so that `b` is kept too.
        (700, &[], "l m n"),
        (3_000, &[], "l n"),
        (100_000, &[], "n"),
        (3_000, &["type==source.local"], "l"),
        (100_000, &["type==source.local"], ""),
    ] {
        let options = PruneOptions {
            keep_duration: Duration::from_secs(seconds),
            ..filtered(filters)
        };
        assert_eq!(pruned(&options), gone, "{options:?}");
    }
}

#[test]
fn limits_of_space_take_the_oldest_and_least_used_until_they_hold() {
    requires!(overlay);
    // Order of eviction: by the rank of the last use and that of the number of uses.
    const ORDER: &str = "n l c m a b";
    let prefix = |count: usize| ORDER.split(' ').take(count).collect::<Vec<_>>().join(" ");
    let disk = i64::MAX;
    for (what, max, reserved, min_free, count) in [
        ("more than there is", TOTAL + 1, 0, 0, 0),
        ("as much as there is", TOTAL, 0, 0, 1),
        ("a little less", TOTAL - 60, 0, 0, 2),
        ("down to the third", 2_400, 0, 0, 3),
        ("nothing may stay: internal records do", 1, 0, 0, 6),
        ("what is reserved stays", 100, 2_500, 0, 2),
        ("all of it is reserved", 1, TOTAL + 1, 0, 0),
        ("only a reserve is named", 0, 2_500, 0, 2),
        ("enough is free, and nothing else is asked", 0, 0, 1, 0),
        ("enough is free, and there is a limit", 2_400, 0, 1, 3),
        (
            "too little is free, but some is reserved",
            0,
            2_500,
            disk,
            2,
        ),
        (
            "too little is free, and there is a limit",
            2_400,
            2_000,
            disk,
            4,
        ),
    ] {
        let options = PruneOptions {
            max_used_space: max,
            reserved_space: reserved,
            min_free_space: min_free,
            ..PruneOptions::default()
        };
        assert_eq!(pruned(&options), prefix(count), "{what}");
    }
}

#[test]
fn limits_respect_filters_and_recent_use() {
    requires!(overlay);
    let small = PruneOptions {
        max_used_space: 1,
        ..PruneOptions::default()
    };
    let with = |filters: &[&str], seconds| PruneOptions {
        keep_duration: Duration::from_secs(seconds),
        filters: filtered(filters).filters,
        ..small.clone()
    };
    for (options, gone) in [
        (with(&["type==regular"], 0), "c a b"),
        (with(&["type==source.local"], 0), "l"),
        (with(&[], 700), "n l m"),
        (with(&["type==regular"], 100_000), ""),
    ] {
        assert_eq!(pruned(&options), gone, "{options:?}");
    }
}

#[test]
fn a_broken_filter_prunes_nothing() {
    requires!(overlay);
    let lab = stock();
    let mut gone = 0;
    let error = lab.store.prune(&filtered(&["type=="]), &mut |_| gone += 1);
    assert_eq!(error.unwrap_err().kind(), oci::ErrorKind::Invalid);
    let error = lab.store.disk_usage(&["id~=(".to_owned()], Duration::ZERO);
    assert_eq!(error.unwrap_err().kind(), oci::ErrorKind::Invalid);
    assert_eq!(gone, 0);
}

#[test]
fn usage_is_told_smallest_first_and_without_what_was_used_lately() {
    requires!(overlay);
    let lab = stock();
    let sizes_unused_for = |filters: &[&str], seconds| {
        let usage = lab
            .store
            .disk_usage(&filtered(filters).filters, Duration::from_secs(seconds))
            .unwrap();
        let lines = usage
            .iter()
            .map(|u| format!("{}={}", u.description, u.size));
        lines.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        sizes_unused_for(&[], 0),
        "n=50 a=100 b=200 c=300 l=400 m=500 i=600 f=700"
    );
    assert_eq!(sizes_unused_for(&["type==regular"], 0), "a=100 b=200 c=300");
    assert_eq!(
        sizes_unused_for(&[], 700),
        "n=50 b=200 l=400 m=500 i=600 f=700"
    );
    let c = lab
        .store
        .disk_usage(&["description==c".into()], Duration::ZERO)
        .unwrap();
    assert_eq!(c[0].parents.len(), 1);
    assert_eq!(
        (c[0].usage_count, c[0].mutable, c[0].in_use),
        (1, false, false)
    );
}

#[test]
fn rules_run_in_their_order_each_on_what_the_one_before_left() {
    requires!(overlay);
    // Limits of rules are about the whole directory, whose index alone is larger than the stock; those here are not about space.
    let rule = |filters: &[&str], seconds, all| GcPolicy {
        filters: filtered(filters).filters,
        keep_duration: Duration::from_secs(seconds),
        all,
        ..GcPolicy::default()
    };
    for (rules, gone) in [
        (vec![], ""),
        (vec![rule(&["type==source.local"], 0, false)], "l"),
        (
            vec![
                rule(&["type==source.local"], 0, false),
                rule(&["type==regular"], 700, false),
            ],
            "l",
        ),
        (
            vec![
                rule(&["description==c"], 0, false),
                rule(&["description==b"], 0, false),
                rule(&["type==internal"], 0, false),
                rule(&["type==frontend"], 0, true),
            ],
            "c b f",
        ),
    ] {
        let lab = stock();
        let mut order = Vec::new();
        let mut tell = |u: store::UsageRecord| order.push(u.description);
        lab.store.collect(&rules, &mut tell).unwrap();
        assert_eq!(order.join(" "), gone, "{rules:?}");
    }
}

#[test]
fn a_rule_about_space_keeps_the_directory_to_it_and_never_what_is_held() {
    requires!(overlay);
    let lab = stock();
    let usage = lab
        .store
        .disk_usage(&["description==c".into()], Duration::ZERO)
        .unwrap();
    let in_use = lab.store.get(&usage[0].id).unwrap();
    let rule = GcPolicy {
        all: true,
        max_used: DiskSpace::bytes(1),
        ..GcPolicy::default()
    };
    let mut gone = Vec::new();
    let mut tell = |u: store::UsageRecord| gone.push(u.description);
    lab.store.collect(&[rule], &mut tell).unwrap();
    gone.sort();
    assert_eq!(gone, ["a", "f", "i", "l", "m", "n"]);
    assert_eq!(in_use.description(), "c");
    assert_eq!(in_use.parents()[0].description(), "b");
}
