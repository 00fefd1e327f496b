use std::sync::atomic::Ordering;

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
    let first = instance.snapshot(&ctx).await.unwrap().unwrap();
    let big = "x".repeat(100_000);
    assert_eq!(
        files(&first),
        listed(&[("a.txt", "one"), ("sub/b.txt", &big)])
    );
    assert!(sent.load(Ordering::SeqCst) > 100_000);
    let id = first.id().clone();
    drop(first);

    let again = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert!(
        sent.load(Ordering::SeqCst) < 1000,
        "{}",
        sent.load(Ordering::SeqCst)
    );
    assert_eq!(
        files(&again),
        listed(&[("a.txt", "one"), ("sub/b.txt", &big)])
    );
    // While somebody holds the folder, another build gets a copy of its own.
    write(dir.join("a.txt"), "two!");
    let other = instance.snapshot(&ctx).await.unwrap().unwrap();
    assert_ne!(other.id(), again.id());
    assert_eq!(files(&other)[0].1, "two!");
    assert_eq!(
        files(&again)[0].1,
        "one",
        "what a build holds does not change under it"
    );
    drop((again, other));
    // What was received before is known by its digests without reading it again.
    let once = instance.snapshot(&ctx).await.unwrap().unwrap();
    for path in ["/a.txt", "/sub", "/sub/b.txt"] {
        let known = once.content_hash(path, Default::default()).await.unwrap();
        let fresh = fstree::hash::TreeHashes::new()
            .checksum(&once.root().unwrap(), path, &Default::default())
            .unwrap();
        assert_eq!(known, fresh, "{path}");
    }
    drop(once);

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
