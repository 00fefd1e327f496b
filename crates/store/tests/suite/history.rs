//! Records of builds, pins, values of records.

use std::time::{Duration, SystemTime};

use oci::Digest;
use store::{HistoryRecord, PruneOptions, RefId, RefOptions};
use testkit::requires;

use crate::support::Lab;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn build(id: &str, created: u64, completed: Option<u64>) -> HistoryRecord {
    HistoryRecord {
        id: id.into(),
        created: at(created),
        completed: completed.map(at),
        pinned: false,
        record: id.as_bytes().to_vec(),
    }
}

fn ids(records: Vec<HistoryRecord>) -> String {
    let ids: Vec<String> = records.into_iter().map(|record| record.id).collect();
    ids.join(" ")
}

#[test]
fn a_record_is_read_as_it_was_written_and_the_last_one_of_a_name_counts() {
    requires!(overlay);
    let lab = Lab::new();
    assert_eq!(lab.store.history("a").unwrap(), None);
    let first = build("a", 5, None);
    lab.store.put_history(&first).unwrap();
    assert_eq!(lab.store.history("a").unwrap(), Some(first));
    let last = HistoryRecord {
        pinned: true,
        record: vec![0, 255, 10],
        ..build("a", 6, Some(9))
    };
    lab.store.put_history(&last).unwrap();
    let lab = lab.reopen();
    assert_eq!(lab.store.history("a").unwrap(), Some(last));
    assert!(lab.store.delete_history("a").unwrap());
    assert!(!lab.store.delete_history("a").unwrap());
    assert_eq!(lab.store.history("a").unwrap(), None);
}

#[test]
fn records_are_listed_newest_first_in_pages_that_leave_none_out() {
    requires!(overlay);
    let lab = Lab::new();
    for (id, created) in [
        ("b", 7),
        ("a", 7),
        ("c", 7),
        ("old", 1),
        ("new", 9),
        ("before 1970", 0),
    ] {
        lab.store.put_history(&build(id, created, None)).unwrap();
    }
    let list = |after, limit| lab.store.list_history(after, limit).unwrap();
    assert_eq!(ids(list(None, 100)), "new a b c old before 1970");
    for page in 1..=6 {
        let mut all = Vec::new();
        loop {
            let last = all
                .last()
                .map(|r: &HistoryRecord| (r.created, r.id.clone()));
            let after = last.as_ref().map(|(at, id)| (*at, id.as_str()));
            let next = lab.store.list_history(after, page).unwrap();
            if next.is_empty() {
                break;
            }
            all.extend(next);
        }
        assert_eq!(ids(all), "new a b c old before 1970", "pages of {page}");
    }
    assert_eq!(ids(list(None, 0)), "");
}

#[test]
fn records_expire_by_number_and_age_but_not_those_that_are_exempt_or_run() {
    requires!(overlay);
    let lab = Lab::new();
    for (id, completed) in [
        ("a", Some(10)),
        ("b", Some(20)),
        ("c", Some(30)),
        ("run", None),
    ] {
        lab.store.put_history(&build(id, 1, completed)).unwrap();
    }
    let expired = |keep, before, limit| {
        let mut names = lab.store.expired_history(keep, at(before), limit).unwrap();
        names.sort();
        names.join(" ")
    };
    for (keep, before, limit, names) in [
        (0, 100, 10, "a b c"),
        (1, 100, 10, "a b"),
        (3, 100, 10, ""),
        (0, 20, 10, "a"),
        (0, 10, 10, ""),
        (2, 20, 10, "a"),
        (0, 100, 0, ""),
    ] {
        assert_eq!(
            expired(keep, before, limit),
            names,
            "{keep} {before} {limit}"
        );
    }
    assert_eq!(expired(0, 100, 1).len(), 1);
    assert!(lab.store.pin_history("c", true).unwrap());
    assert!(!lab.store.pin_history("none", true).unwrap());
    assert_eq!(expired(0, 100, 10), "a b");
    // One that is exempt does not count among those that are kept.
    assert_eq!(expired(1, 100, 10), "a");
    assert!(lab.store.pin_history("c", false).unwrap());
    assert_eq!(expired(1, 100, 10), "a b");
}

#[test]
fn blobs_are_listed_in_order_and_pins_go_with_the_record_that_owns_them() {
    requires!(overlay);
    let lab = Lab::new();
    let mut digests: Vec<Digest> = Vec::new();
    for text in ["one", "two", "three"] {
        let blob = lab
            .store
            .put_blob(&lab.store.lease(), text.as_bytes())
            .unwrap();
        lab.store.pin_blob("history:a", &blob.digest).unwrap();
        assert_eq!(blob.size, text.len() as u64);
        digests.push(blob.digest);
    }
    lab.store.pin_blob("history:b", &digests[0]).unwrap();
    lab.store.pin_blob("history:b", &digests[0]).unwrap();
    let listed = |after: &str, limit| -> Vec<Digest> {
        let list = lab.store.list_blobs(after, limit).unwrap();
        list.into_iter().map(|blob| blob.digest).collect()
    };
    let mut sorted = digests.clone();
    sorted.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    assert_eq!(listed("", 10), sorted);
    assert_eq!(listed("", 2), sorted[..2]);
    assert_eq!(listed(sorted[0].as_str(), 10), sorted[1..]);
    assert_eq!(listed(sorted[2].as_str(), 10), []);
    lab.store.put_history(&build("a", 1, Some(2))).unwrap();
    assert!(lab.store.delete_history("a").unwrap());
    lab.store
        .prune(
            &PruneOptions {
                all: true,
                ..PruneOptions::default()
            },
            &mut |_| {},
        )
        .unwrap();
    assert_eq!(
        listed("", 10),
        [digests[0].clone()],
        "the other record pins it still"
    );
    lab.store.unpin_blobs("history:b").unwrap();
    lab.store
        .prune(
            &PruneOptions {
                all: true,
                ..PruneOptions::default()
            },
            &mut |_| {},
        )
        .unwrap();
    assert_eq!(listed("", 10), []);
}

#[test]
fn a_blob_is_read_up_to_a_limit() {
    requires!(overlay);
    let lab = Lab::new();
    let lease = lab.store.lease();
    let digest = lab.store.put_blob(&lease, b"12345").unwrap().digest;
    assert_eq!(lab.store.read_blob(&digest, 5).unwrap(), b"12345");
    let error = lab.store.read_blob(&digest, 4).unwrap_err();
    assert_eq!(error.kind(), oci::ErrorKind::Hostile);
    let none = Digest::sha256("none");
    let error = lab.store.read_blob(&none, 10).unwrap_err();
    assert_eq!(error.kind(), oci::ErrorKind::NotFound);
    assert_eq!(error.to_string(), format!("content {none}: not found"));
    let empty = lab.store.put_blob(&lease, b"").unwrap();
    assert_eq!(
        (empty.size, lab.store.read_blob(&empty.digest, 0).unwrap()),
        (0, vec![])
    );
}

#[test]
fn leases_hold_a_blob_before_it_is_there_and_as_long_as_one_of_them_lives() {
    requires!(overlay);
    let lab = Lab::new();
    let digest = Digest::sha256(b"bytes");
    let is_here = || {
        lab.store
            .prune(
                &PruneOptions {
                    all: true,
                    ..PruneOptions::default()
                },
                &mut |_| {},
            )
            .unwrap();
        lab.store.blob_info(&digest).unwrap().is_some()
    };
    let early = lab.store.lease();
    early.hold(&digest);
    lab.store.put_blob(&lab.store.lease(), b"bytes").unwrap();
    assert!(is_here(), "held before it came");
    let late = lab.store.lease();
    late.hold(&digest);
    late.hold(&digest);
    let clone = late.clone();
    drop((early, late));
    assert!(is_here(), "held by a clone");
    drop(clone);
    assert!(!is_here());
    // A writer keeps the lease that it was made with.
    let lease = lab.store.lease();
    let writer = lab.store.blob_writer(&lease).unwrap();
    drop(lease);
    let mut writer = writer;
    std::io::Write::write_all(&mut writer, b"bytes").unwrap();
    assert_eq!(writer.written(), 5);
    writer.commit(Some(&digest)).unwrap();
    assert!(!is_here(), "nobody holds it once the writer is gone");
}

#[test]
fn values_are_found_by_what_they_are_and_by_their_beginning() {
    requires!(overlay);
    let lab = Lab::new();
    let record = |name: &str| {
        let mutable = lab
            .store
            .new_mutable(None, RefOptions::described(name))
            .unwrap();
        mutable.commit().unwrap()
    };
    let (one, two) = (record("one"), record("two"));
    let long = vec![b'x'; 513];
    for (record, key, value) in [
        (&one, "local", b"session/a".as_slice()),
        (&two, "local", b"session/b"),
        (&two, "other", b"session/a"),
        (&one, "long", &long),
    ] {
        record.set_meta(key, value).unwrap();
    }
    let names = |ids: Vec<RefId>| -> String {
        let name = |id: RefId| lab.store.get(&id).unwrap().description();
        let mut names: Vec<String> = ids.into_iter().map(name).collect();
        names.sort();
        names.join(" ")
    };
    let find = |key: &str, value: &[u8]| names(lab.store.find_meta(key, value).unwrap());
    let below = |key: &str, prefix: &[u8]| names(lab.store.find_meta_below(key, prefix).unwrap());
    assert_eq!(find("local", b"session/a"), "one");
    assert_eq!(find("local", b"session"), "");
    assert_eq!(find("none", b"session/a"), "");
    assert_eq!(below("local", b"session/"), "one two");
    assert_eq!(below("local", b"session/b"), "two");
    assert_eq!(below("local", b""), "one two");
    assert_eq!(
        find("long", &long),
        "",
        "values that long are not looked up"
    );
    assert_eq!(one.meta("long").unwrap(), Some(long));
    one.set_meta("local", b"changed").unwrap();
    assert_eq!(find("local", b"session/a"), "");
    assert_eq!(find("local", b"changed"), "one");
    lab.store.clear_meta(one.id(), "local").unwrap();
    assert_eq!(one.meta("local").unwrap(), None);
    assert_eq!(below("local", b""), "two");
}
