//! What `du`, `prune` and `debug workers` print, as text.

use std::collections::BTreeMap;
use std::time::Duration;

use client::DaemonVersion;

use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

const NOW: u64 = 1_000_000;

fn record(id: &str) -> UsageRecord {
    UsageRecord {
        id: id.into(),
        mutable: false,
        in_use: false,
        shared: false,
        size: 1_500,
        parents: Vec::new(),
        created: Some(at(0)),
        last_used: Some(at(NOW - 90)),
        usage_count: 2,
        description: String::new(),
        kind: "regular".into(),
    }
}

#[test]
fn ages_are_told_in_the_largest_unit_that_is_full() {
    for (age, text) in [
        (0, "0 seconds ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (3600, "1 hour ago"),
        (86399, "23 hours ago"),
        (86400, "1 day ago"),
        (900_000, "10 days ago"),
    ] {
        assert_eq!(ago(Some(at(NOW - age)), at(NOW)), text);
    }
    assert_eq!(ago(None, at(NOW)), "");
    // A daemon's clock may be ahead of ours.
    assert_eq!(ago(Some(at(NOW + 5)), at(NOW)), "0 seconds ago");
}

#[test]
fn a_table_of_usage_marks_what_is_mutable_or_shared_and_adds_up() {
    let table = usage_table(
        &[
            record("a"),
            UsageRecord {
                mutable: true,
                in_use: true,
                ..record("b")
            },
            UsageRecord {
                shared: true,
                size: 2_000_000,
                last_used: None,
                ..record("c")
            },
        ],
        false,
        at(NOW),
    );
    let blank = |count: usize| " ".repeat(count);
    let expected = format!(
        "ID{}\tRECLAIMABLE\tSIZE{}\tLAST ACCESSED\n\
         a{}\ttrue{}\t1.50kB{}\t1 minute ago\n\
         b*{}\tfalse{}\t1.50kB{}\t1 minute ago\n\
         c{}\ttrue{}\t2.00MB*{}\t\n\
         Shared:\t\t2.00MB\nPrivate:\t3.00kB\nReclaimable:\t2.00MB\nTotal:\t\t2.00MB\n",
        blank(73),
        blank(7),
        blank(74),
        blank(7),
        blank(5),
        blank(73),
        blank(6),
        blank(5),
        blank(74),
        blank(7),
        blank(4),
    );
    assert_eq!(table, expected);
}

#[test]
fn nothing_is_told_as_nothing_and_sums_do_not_overflow() {
    let empty = usage_table(&[], false, at(NOW));
    assert!(
        empty.ends_with("LAST ACCESSED\nReclaimable:\t0B\nTotal:\t\t0B\n"),
        "{empty}"
    );
    let huge = UsageRecord {
        size: i64::MAX,
        ..record("a")
    };
    let table = usage_table(&[huge.clone(), huge], true, at(NOW));
    assert!(table.ends_with("Total:\t\t9223.37PB\n"), "{table}");
}

#[test]
fn all_of_a_record_is_told_when_it_is_asked_for() {
    let record = UsageRecord {
        parents: vec!["p".into(), "q".into()],
        description: "pulled from x".into(),
        created: None,
        ..record("a")
    };
    assert_eq!(
        verbose(&record, at(NOW)),
        "ID:\t\ta\nParents:\tp, q\nCreated at:\t\nMutable:\tfalse\nReclaimable:\ttrue\nShared:\t\tfalse\nSize:\t\t1.50kB\n\
         Description:\tpulled from x\nUsage count:\t2\nLast used:\t1 minute ago\nType:\t\tregular\n\n"
    );
}

#[test]
fn workers_are_a_table_and_in_full_with_labels_and_rules() {
    let worker = WorkerRecord {
        id: "w1".into(),
        labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        platforms: vec!["linux/amd64".into(), "linux/arm64".into()],
        version: DaemonVersion {
            package: "rbuild".into(),
            version: "v1".into(),
            revision: "r".into(),
            dockerfile: String::new(),
        },
        gc: vec![PruneFilter {
            filters: vec!["type==regular".into(), "id~=x".into()],
            keep_duration: Duration::from_secs(7200),
            max_used_space: 5_000_000_000,
            ..PruneFilter::default()
        }],
        devices: Vec::new(),
    };
    let workers = [worker];
    assert_eq!(
        worker_table(&workers, false),
        "ID\t\t\t\tPLATFORMS\nw1\tlinux/amd64,linux/arm64\n"
    );
    assert_eq!(
        worker_table(&workers, true),
        "ID:\t\tw1\nPlatforms:\tlinux/amd64,linux/arm64\nBuildKit:\trbuild v1 r\nLabels:\n\tk:\tv\n\
         GC Policy rule#0:\n\tAll:\tfalse\n\tFilters:\ttype==regular id~=x\n\tKeep duration:\t7200s\n\tReserved space:\t0B\n\
         \tMax used space:\t5.00GB\n\tMin free space:\t0B\n\n"
    );
}
