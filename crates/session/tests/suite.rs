//! File sync over real trees, and what a hostile client cannot do.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "suite/limits.rs"]
mod limits;
#[path = "suite/sessions.rs"]
mod sessions;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fstree::hash::TreeHashes;
use fstree::walk::{Filter, Walk};
use fstree::{Root, Stat};
use session::diffcopy::compare::Compare;
use session::diffcopy::{
    FilteredTree, ReceiveCounts, ReceiveError, ReceiveOptions, SendOptions, receive, send,
};
use session::{Packet, PacketStream};

type TestResult = Result<(), Box<dyn std::error::Error>>;

async fn sync(
    from: &Path,
    to: &Path,
    filter: Filter,
    options: ReceiveOptions,
) -> Result<ReceiveCounts, Box<dyn std::error::Error>> {
    let (left, right) = PacketStream::pair();
    let source = Arc::new(FilteredTree {
        root: Root::open(from)?,
        filter,
        map: None,
        change_marks: true,
    });
    let (sent, received) = tokio::join!(
        send(left, source, SendOptions::default()),
        receive(right, Root::open(to)?, options)
    );
    let received = received?;
    sent?;
    Ok(received)
}

fn list(dir: &Path) -> Vec<Stat> {
    Walk::new(&Root::open(dir).unwrap(), &Filter::default())
        .unwrap()
        .map(|s| s.unwrap())
        .collect()
}

fn contents(dir: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    list(dir)
        .into_iter()
        .map(|s| {
            let bytes = if s.is_file() {
                fs::read(dir.join(&s.path)).unwrap()
            } else {
                s.linkname.to_string_lossy().into_owned().into_bytes()
            };
            (s.path.to_string_lossy().into_owned(), (s.mode, bytes))
        })
        .collect()
}

fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("src/deep")).unwrap();
    fs::write(dir.join("src/main.rs"), "fn main() {}").unwrap();
    fs::write(dir.join("src/deep/empty"), "").unwrap();
    fs::write(dir.join("src-b"), "sorts after src/").unwrap();
    fs::write(dir.join("big"), vec![7; 3 << 20]).unwrap();
    fs::set_permissions(dir.join("src/main.rs"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("src/main.rs", dir.join("link")).unwrap();
    fs::hard_link(dir.join("big"), dir.join("src/big-too")).unwrap();
    fs::set_permissions(dir.join("src/deep"), fs::Permissions::from_mode(0o500)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_arrives_as_it_is_and_costs_nothing_when_unchanged() -> TestResult {
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    tree(from.path());
    let first = sync(
        from.path(),
        to.path(),
        Filter::default(),
        ReceiveOptions::default(),
    )
    .await?;
    assert_eq!(contents(from.path()), contents(to.path()));
    assert_eq!((first.listed, first.requested), (8, 4));
    let times = |dir: &Path| {
        list(dir)
            .into_iter()
            .map(|s| (s.path, s.mod_time))
            .collect::<Vec<_>>()
    };
    assert_eq!(times(from.path()), times(to.path()));
    let (first_name, second_name) = (
        fs::metadata(to.path().join("big"))?,
        fs::metadata(to.path().join("src/big-too"))?,
    );
    assert_eq!(
        first_name.ino(),
        second_name.ino(),
        "hard links stay hard links"
    );
    let again = sync(
        from.path(),
        to.path(),
        Filter::default(),
        ReceiveOptions::default(),
    )
    .await?;
    assert_eq!((again.requested, again.changed), (0, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_asked_for_and_what_is_gone_is_deleted() -> TestResult {
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    tree(from.path());
    sync(
        from.path(),
        to.path(),
        Filter::default(),
        ReceiveOptions::default(),
    )
    .await?;
    fs::write(from.path().join("src/main.rs"), "fn main() { changed() }")?;
    fs::remove_dir_all(from.path().join("src/deep"))?;
    fs::write(from.path().join("src/deep"), "a file now")?;
    fs::remove_file(from.path().join("link"))?;
    fs::create_dir(from.path().join("link"))?;
    fs::write(from.path().join("link/inside"), "x")?;
    fs::remove_file(from.path().join("src-b"))?;
    let second = sync(
        from.path(),
        to.path(),
        Filter::default(),
        ReceiveOptions::default(),
    )
    .await?;
    assert_eq!(contents(from.path()), contents(to.path()));
    assert_eq!(second.requested, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_leaves_alone_what_is_not_listed() -> TestResult {
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fs::create_dir(from.path().join("d"))?;
    fs::write(from.path().join("d/new"), "new")?;
    fs::write(from.path().join("same-name"), "sent")?;
    fs::create_dir(to.path().join("d"))?;
    fs::write(to.path().join("d/kept"), "kept")?;
    fs::create_dir(to.path().join("same-name"))?;
    fs::write(to.path().join("same-name/x"), "x")?;
    sync(
        from.path(),
        to.path(),
        Filter::default(),
        ReceiveOptions {
            merge: true,
            compare: Compare::Nothing,
            ..Default::default()
        },
    )
    .await?;
    assert_eq!(fs::read_to_string(to.path().join("d/kept"))?, "kept");
    assert_eq!(fs::read_to_string(to.path().join("d/new"))?, "new");
    assert_eq!(fs::read_to_string(to.path().join("same-name"))?, "sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_metadata_maps_apply_and_digests_made_on_the_way_are_right() -> TestResult {
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    tree(from.path());
    let hashes = Arc::new(TreeHashes::new());
    let options = ReceiveOptions {
        hashes: Some(hashes.clone()),
        map: Some(Arc::new(|s: &mut Stat| {
            s.mode &= !0o077;
            true
        })),
        ..Default::default()
    };
    let plain = ReceiveOptions {
        hashes: Some(hashes.clone()),
        ..Default::default()
    };
    sync(
        from.path(),
        to.path(),
        Filter {
            exclude: vec!["big".into()],
            ..Filter::default()
        },
        plain,
    )
    .await?;
    assert!(!to.path().join("big").exists());
    assert_eq!(
        fs::read(to.path().join("src/big-too"))?.len(),
        3 << 20,
        "a link whose first name is filtered out is a file"
    );
    let root = Root::open(to.path())?;
    for path in [
        "/link",
        "/src-b",
        "/src/main.rs",
        "/src/big-too",
        "/src/deep/empty",
        "/src/deep",
        "/src",
    ] {
        let on_the_way = hashes.checksum(&root, path, &fstree::hash::Options::default())?;
        let afterwards =
            TreeHashes::new().checksum(&root, path, &fstree::hash::Options::default())?;
        assert_eq!(on_the_way, afterwards, "{path}");
    }
    sync(from.path(), to.path(), Filter::default(), options).await?;
    assert_eq!(
        fs::metadata(to.path().join("src/main.rs"))?
            .permissions()
            .mode()
            & 0o7777,
        0o4700
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_small_files_arrive_once_and_cost_nothing_again() -> TestResult {
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for d in 0..20 {
        let dir = from.path().join(format!("d{d}"));
        fs::create_dir(&dir)?;
        for f in 0..100 {
            fs::write(dir.join(format!("f{f}")), vec![u8::try_from(f)?; 6000])?;
        }
    }
    let start = task::clock::monotonic();
    let hashes = Arc::new(TreeHashes::new());
    let first = sync(
        from.path(),
        to.path(),
        Filter::default(),
        ReceiveOptions {
            hashes: Some(hashes),
            ..Default::default()
        },
    )
    .await?;
    let cold = start.elapsed();
    let start = task::clock::monotonic();
    let again = sync(
        from.path(),
        to.path(),
        Filter::default(),
        ReceiveOptions::default(),
    )
    .await?;
    eprintln!("cold {cold:?}, unchanged {:?}", start.elapsed());
    assert_eq!(
        (first.listed, first.requested, again.requested),
        (2020, 2000, 0)
    );
    Ok(())
}

async fn attack(packets: Vec<Packet>) -> (Result<ReceiveCounts, ReceiveError>, tempfile::TempDir) {
    attack_with(packets, ReceiveOptions::default()).await
}

async fn attack_with(
    packets: Vec<Packet>,
    options: ReceiveOptions,
) -> (Result<ReceiveCounts, ReceiveError>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    let (client, server) = PacketStream::pair();
    let root = Root::open(dir.path().join("in")).unwrap();
    let attacker = async move {
        for packet in packets {
            if client.outgoing.send(packet).await.is_err() {
                break;
            }
        }
        drop(client);
    };
    let (_, result) = tokio::join!(attacker, receive(server, root, options));
    (result, dir)
}

fn stat(path: &str, mode: u32, link: &str) -> Packet {
    Packet::Stat(Some(Box::new(Stat {
        path: path.into(),
        mode,
        linkname: link.into(),
        ..Stat::default()
    })))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_client_writes_nothing_outside_the_root() {
    use fstree::stat::{MODE_DIR, MODE_SYMLINK};
    let file = 0o644;
    let attacks: Vec<Vec<Packet>> = vec![
        vec![stat("../out/x", file, "")],
        vec![stat("/out/x", file, "")],
        vec![
            stat("a", MODE_SYMLINK | 0o777, "../out"),
            stat("a/x", file, ""),
        ],
        vec![
            stat("a", MODE_SYMLINK | 0o777, "../out"),
            stat("a", MODE_DIR | 0o755, ""),
            stat("a/x", file, ""),
        ],
        vec![stat("a", file, "../out/x")],
        vec![
            stat("a", file, ""),
            Packet::Data {
                id: 0,
                bytes: Bytes::from_static(b"x"),
            },
            Packet::Data {
                id: 9,
                bytes: Bytes::new(),
            },
        ],
        vec![stat("b", file, ""), stat("a", file, "")],
        vec![Packet::Fin],
        vec![Packet::Req(0)],
        vec![Packet::Err("I give up".into())],
        vec![Packet::Stat(None), stat("late", file, "")],
    ];
    for packets in attacks {
        let packets_text = format!("{packets:?}");
        let (result, dir) = attack(packets).await;
        assert!(result.is_err(), "{packets_text}");
        assert_eq!(
            fs::read_dir(dir.path().join("out")).unwrap().count(),
            0,
            "{packets_text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_vanishes_is_an_error_and_the_next_sync_repairs_the_tree() -> TestResult {
    let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    tree(from.path());
    let (client, server) = PacketStream::pair();
    client.outgoing.send(stat("big", 0o644, "")).await?;
    client.outgoing.send(stat("src-b", 0o644, "")).await?;
    drop(client);
    assert!(
        receive(server, Root::open(to.path())?, ReceiveOptions::default())
            .await
            .is_err()
    );
    sync(
        from.path(),
        to.path(),
        Filter::default(),
        ReceiveOptions::default(),
    )
    .await?;
    assert_eq!(contents(from.path()), contents(to.path()));
    Ok(())
}

fn any_packet() -> impl proptest::strategy::Strategy<Value = Packet> {
    use fstree::stat::{MODE_CHAR_DEVICE, MODE_DEVICE, MODE_DIR, MODE_SYMLINK};
    use proptest::prelude::*;
    let name = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        "[a-c]{1,2}"
    ];
    let path = proptest::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let mode = prop_oneof![
        4 => Just(0o644),
        4 => Just(MODE_DIR | 0o755),
        2 => Just(MODE_SYMLINK | 0o777),
        1 => Just(MODE_DEVICE | MODE_CHAR_DEVICE | 0o666),
        1 => any::<u32>()
    ];
    let link = prop_oneof![
        3 => Just(String::new()),
        1 => Just("../out".to_owned()),
        1 => Just("a".to_owned()),
        1 => Just("/".to_owned())
    ];
    prop_oneof![
        8 => (path, mode, link).prop_map(|(path, mode, link)| stat(&path, mode, &link)),
        1 => Just(Packet::Stat(None)),
        1 => any::<u32>().prop_map(|id| Packet::Req(id % 8)),
        3 => (any::<u32>(), "[x]{0,3}").prop_map(|(id, text)| Packet::Data { id: id % 8, bytes: text.into() }),
        1 => Just(Packet::Fin)
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_sequence_of_packets_panics_hangs_or_leaves_the_root(packets in proptest::collection::vec(any_packet(), 0..24)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let outside = runtime.block_on(async {
            let (_result, dir) = tokio::time::timeout(std::time::Duration::from_secs(20), attack(packets)).await.expect("it ends");
            fs::read_dir(dir.path().join("out")).unwrap().count()
        });
        proptest::prop_assert_eq!(outside, 0);
    }
}
