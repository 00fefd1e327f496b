use std::process::Command;

use exporter::{ExportSource, Exporter, LocalExporter, TarExporter};

use crate::client::{World, attrs, single};

fn platforms(world: &World, files: [(&str, &str); 2]) -> ExportSource {
    let platforms = r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}},{"ID":"linux/arm64","Platform":{"os":"linux","architecture":"arm64"}}]}"#;
    let mut source = ExportSource::default();
    source
        .metadata
        .insert("refs.platforms".into(), platforms.into());
    for (id, file) in ["linux/amd64", "linux/arm64"].into_iter().zip(files) {
        source
            .refs
            .insert(id.into(), Some(world.layer(None, id, &[file])));
    }
    source
}

fn out(world: &World, path: &str) -> String {
    std::fs::read_to_string(world.dir.path().join("out").join(path)).unwrap()
}

#[tokio::test]
async fn files_arrive_in_the_clients_folder_each_platform_in_its_own() {
    let Some(world) = World::new() else { return };
    let local = |list: &[(&str, &str)]| LocalExporter.resolve(0, &attrs(list)).unwrap();
    let base = world.layer(None, "base", &[("d/a.txt", "one")]);
    let top = world.layer(Some(&base), "top", &[("d/b.txt", "two")]);
    local(&[("source-date-epoch", "1000000000")])
        .export(&world.ctx, &single(top.clone(), "{}"))
        .await
        .unwrap();
    assert_eq!(
        (
            out(&world, "d/a.txt").as_str(),
            out(&world, "d/b.txt").as_str()
        ),
        ("one", "two")
    );
    let meta = std::fs::metadata(world.dir.path().join("out/d/a.txt")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&meta), 1_000_000_000);

    local(&[("src", "d/b.txt")])
        .export(&world.ctx, &single(top.clone(), "{}"))
        .await
        .unwrap_err();
    local(&[("src", "d")])
        .export(&world.ctx, &single(top, "{}"))
        .await
        .unwrap();
    assert_eq!(out(&world, "b.txt"), "two");

    let source = platforms(&world, [("x", "amd"), ("x", "arm")]);
    local(&[]).export(&world.ctx, &source).await.unwrap();
    assert_eq!(
        (
            out(&world, "linux_amd64/x").as_str(),
            out(&world, "linux_arm64/x").as_str()
        ),
        ("amd", "arm")
    );
    let trees = world.received.lock().trees;
    local(&[("mode", "delete")])
        .export(&world.ctx, &source)
        .await
        .unwrap();
    assert_eq!(
        world.received.lock().trees,
        trees + 1,
        "one tree for all where the client deletes"
    );
    let error = local(&[("platform-split", "false")])
        .export(&world.ctx, &source)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "cannot overwrite x from linux/amd64 with linux/arm64 when split option is disabled"
    );
    let apart = platforms(&world, [("p", "amd"), ("q", "arm")]);
    local(&[("platform-split", "false"), ("mode", "delete")])
        .export(&world.ctx, &apart)
        .await
        .unwrap();
    assert_eq!(
        (out(&world, "p").as_str(), out(&world, "q").as_str()),
        ("amd", "arm")
    );
}

#[tokio::test]
async fn a_tar_holds_the_files_of_the_result() {
    let Some(world) = World::new() else { return };
    let big = "x".repeat(1_000_000);
    let layer = world.layer(None, "base", &[("d/a.txt", "one"), ("d/big", &big)]);
    let instance = TarExporter.resolve(0, &attrs(&[])).unwrap();
    instance
        .export(&world.ctx, &single(layer, "{}"))
        .await
        .unwrap();
    let file = world.dir.path().join("x.tar");
    std::fs::write(&file, &world.received.lock().file).unwrap();
    let listed = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    assert_eq!(
        String::from_utf8(listed.stdout).unwrap(),
        "d/\nd/a.txt\nd/big\n"
    );
}

#[test]
fn a_client_that_takes_nothing_holds_no_thread_of_others_and_is_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let Some(world) = World::new() else { return };
        world.received.lock().stalls = true;
        let big = "x".repeat(4_000_000);
        let layer = world.layer(None, "base", &[("big", &big)]);
        let source = single(layer, "{}");
        let instances = (0..6).map(|n| {
            let exporter: &dyn Exporter = if n % 2 == 0 {
                &TarExporter
            } else {
                &LocalExporter
            };
            exporter.resolve(n, &attrs(&[])).unwrap()
        });
        let instances: Vec<_> = instances.collect();
        let all = instances.iter().map(|i| i.export(&world.ctx, &source));
        let mut exports = std::pin::pin!(futures::future::join_all(all));
        let others = async {
            while world.received.lock().opened < 6 {
                tokio::task::yield_now().await;
            }
            task::blocking("other work", || 7).await
        };
        tokio::select! {
            seven = others => assert_eq!(seven, 7),
            _ = &mut exports => panic!("other work waits for the client"),
        }
        for export in exports.await {
            let error = export.unwrap_err().to_string();
            assert!(error.contains("nothing moved for 300 seconds"), "{error}");
        }
    });
}
