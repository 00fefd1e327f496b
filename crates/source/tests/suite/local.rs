use std::sync::atomic::Ordering;

use session::diffcopy::compare::Compare;
use source::Source;
use source::local::LocalSource;

use crate::client::{Client, World, attrs, files, listed, write};

#[tokio::test]
async fn an_unchanged_folder_is_not_sent_again_and_a_changed_file_is() {
    let Some(mut world) = World::new() else {
        return;
    };
    let dir = world.folder("context");
    write(dir.join("a.txt"), "one");
    write(dir.join("sub/b.txt"), &"x".repeat(100_000));
    write(dir.join("sub/skip.log"), "no");
    let client = Client::new("s1", &dir);
    let sent = client.sent.clone();
    let ctx = world.connect(client);
    let source = LocalSource::new(world.store.clone());
    let instance = source
        .resolve(
            "local",
            "context",
            &attrs(&[
                ("local.session", "s1"),
                ("local.excludepatterns", "[\"**/*.log\"]"),
            ]),
            None,
        )
        .unwrap();
    assert!(
        instance
            .cache_key(&ctx, 0)
            .await
            .unwrap()
            .key
            .starts_with("session:context:sha256:")
    );
    let first_copy = instance.snapshot(&ctx).await.unwrap().unwrap();
    let big = "x".repeat(100_000);
    assert_eq!(
        files(&first_copy),
        listed(&[("a.txt", "one"), ("sub/b.txt", &big)])
    );
    assert!(sent.load(Ordering::SeqCst) > 100_000);
    let id = first_copy.id().clone();
    drop(first_copy);

    let second_copy = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert!(
        sent.load(Ordering::SeqCst) < 1000,
        "{}",
        sent.load(Ordering::SeqCst)
    );
    assert_eq!(
        files(&second_copy),
        listed(&[("a.txt", "one"), ("sub/b.txt", &big)])
    );
    // While somebody holds the folder, another build gets a copy of its own.
    write(dir.join("a.txt"), "two!");
    let changed_copy = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert_ne!(changed_copy.id(), second_copy.id());
    assert_eq!(files(&changed_copy)[0].1, "two!");
    assert_eq!(
        files(&second_copy)[0].1,
        "one",
        "what a build holds does not change under it"
    );
    drop((second_copy, changed_copy));
    // What was received before is known by its digests without reading it again.
    let snapshot = instance.snapshot(&ctx).await.unwrap().unwrap();
    for path in ["/a.txt", "/sub", "/sub/b.txt"] {
        let kept_digest = snapshot
            .content_hash(path, Default::default())
            .await
            .unwrap();
        let fresh_digest = fstree::hash::TreeHashes::new()
            .checksum(&snapshot.root().unwrap(), path, &Default::default())
            .unwrap();
        assert_eq!(kept_digest, fresh_digest, "{path}");
    }
    drop(snapshot);

    std::fs::remove_dir_all(dir.join("sub")).unwrap();
    let last = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert_eq!(files(&last), listed(&[("a.txt", "two!")]));
    assert_ne!(last.id(), &id);
}

#[tokio::test]
async fn a_folder_without_a_client_is_an_error() {
    let Some(world) = World::new() else { return };
    let source = LocalSource::new(world.store.clone());
    let instance = source
        .resolve("local", "context", &attrs(&[]), None)
        .unwrap();
    let ctx = world.alone();
    assert_eq!(
        instance.cache_key(&ctx, 0).await.unwrap_err().to_string(),
        "could not access local files without session"
    );
    assert_eq!(
        instance.snapshot(&ctx).await.unwrap_err().to_string(),
        "no active sessions"
    );
}

#[tokio::test]
async fn a_file_is_never_taken_for_one_that_looks_like_it() {
    let Some(mut world) = World::new() else {
        return;
    };
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let dirs = ["one", "two"].map(|name| world.folder(name));
    let put = |at: usize, text: &str| {
        let file = dirs[at].join("file");
        write(&file, text);
        let file = std::fs::File::open(file).unwrap();
        file.set_modified(time).unwrap();
    };
    // Who tells of changes is compared by what it tells, others by what their files have in them.
    let ways = [(true, Compare::Metadata), (false, Compare::Contents)];
    for (n, (tells, compare)) in ways.into_iter().enumerate() {
        let source = LocalSource::comparing(world.store.clone(), compare);
        let name = format!("folder{n}");
        let mut contents = Vec::new();
        let mut build = 0;
        let steps = [(0, "aaa"), (1, "bbb"), (0, "aaa"), (0, "ccc")];
        for (at, text) in steps {
            put(at, text);
            build += 1;
            let session = format!("s{n}-{build}");
            let mut client = Client::new(&session, &dirs[at]);
            client.tells_changes = tells;
            let ctx = world.connect(client);
            let attrs = attrs(&[("local.session", session.as_str())]);
            let instance = source.resolve("local", &name, &attrs, None).unwrap();
            let snapshot = instance.snapshot(&ctx).await.unwrap().unwrap();
            contents.push(files(&snapshot)[0].1.clone());
        }
        assert_eq!(contents, ["aaa", "bbb", "aaa", "ccc"], "{compare:?}");
    }
    // By the metadata alone, as the reference compares, the files are one.
    let source = LocalSource::new(world.store.clone());
    let mut contents = Vec::new();
    for (at, text) in [(0, "aaa"), (1, "bbb")] {
        put(at, text);
        let session = format!("plain{at}");
        let ctx = world.connect(Client::new(&session, &dirs[at]));
        let attrs = attrs(&[("local.session", session.as_str())]);
        let instance = source.resolve("local", "plain", &attrs, None).unwrap();
        let snapshot = instance.snapshot(&ctx).await.unwrap().unwrap();
        contents.push(files(&snapshot)[0].1.clone());
    }
    assert_eq!(contents, ["aaa", "aaa"]);
}
