use engine::api::{Activity, CacheParentLine, WaitNode};

use super::*;

async fn get(pages: &Pages, path: &str) -> (u16, String) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let answer = pages
        .answer(&Method::GET, path, query, query == "format=json")
        .await;
    (answer.status.as_u16(), answer.body)
}

#[tokio::test]
async fn a_daemon_is_healthy_from_the_start_and_ready_only_while_it_takes_builds() {
    let pages = Pages::new();
    let (status, said) = get(&pages, "/readyz").await;
    assert_eq!((status, said.starts_with("starting")), (503, true));
    assert_eq!(get(&pages, "/healthz").await.0, 200);
    pages.serving(Box::new(Vec::new));
    assert_eq!(get(&pages, "/readyz").await, (200, "ok\n".to_owned()));
    pages.draining();
    let (status, said) = get(&pages, "/readyz").await;
    assert_eq!((status, said.starts_with("draining")), (503, true));
    assert_eq!(get(&pages, "/healthz").await.0, 200);
    assert!(
        get(&pages, "/metrics")
            .await
            .1
            .contains("\nrbuild_draining 1\n")
    );
    metrics::DRAINING.set(NoLabels, 0);
}

#[tokio::test]
async fn pages_answer_and_what_does_not_exist_says_why() {
    let pages = Pages::new();
    for (path, status, words) in [
        ("/", 200, "/debug/graph"),
        ("/metrics", 200, "# TYPE buildkit_builds_total counter"),
        ("/metrics", 200, "process_resident_memory_bytes "),
        ("/debug/vars", 200, "\"rbuild.builds.active\": 0"),
        ("/debug/builds", 200, "0 builds run"),
        ("/debug/requests?format=json", 200, "\"builds\": []"),
        ("/debug/graph?format=json", 200, "\"nodes\": []"),
        ("/debug/cache/all", 200, ""),
        (
            "/debug/cache/lookup",
            400,
            "digest query parameter is required",
        ),
        ("/debug/cache/lookup?digest=x", 400, "invalid digest"),
        ("/debug/gc", 200, "given back"),
        ("/debug/prune", 405, "method not allowed"),
        ("/debug/pprof/heap", 501, "profiles of Go's runtime"),
        ("/debug/flight/trace", 501, "flight recorder"),
        ("/debug/compaction", 501, "SQLite"),
        ("/debug/nothing", 404, "no such page"),
    ] {
        let (got, said) = get(&pages, path).await;
        assert!(
            got == status && said.contains(words),
            "{path}: {got} {said}"
        );
    }
    let delete = pages.answer(&Method::DELETE, "/metrics", "", false).await;
    assert_eq!(delete.status.as_u16(), 405);
    let prune = pages.answer(&Method::POST, "/debug/prune", "", false).await;
    assert_eq!(prune.status.as_u16(), 200);
}

#[test]
fn the_graph_shows_what_works_before_what_waits_and_acts_on_no_terminal() {
    let digest = |text: &str| Digest::sha256(text);
    let node = |name: &str, activity, waits_for: &[&str]| WaitNode {
        digest: digest(name),
        name: name.to_owned(),
        jobs: vec!["build-1".to_owned()],
        activity,
        waits_for: waits_for.iter().map(|name| digest(name)).collect(),
    };
    let graph = WaitGraph {
        nodes: vec![
            node("app", Activity::Waiting, &["base\u{1b}[31m"]),
            node("base\u{1b}[31m", Activity::Executing, &[]),
        ],
        has_more: true,
    };
    let graphs = [("user-7", graph)];
    let text = graph_text(&graphs);
    let lines: Vec<_> = text.lines().collect();
    let base = digest("base\u{1b}[31m");
    assert_eq!(lines[0], "tenant user-7");
    assert_eq!(lines[1], "2 steps are waited for");
    assert_eq!(lines[2], format!("{} [running] base[31m", short(&base)));
    assert_eq!(lines[6], format!("    waits for {} base[31m", short(&base)));
    assert_eq!(lines[7], "there are more");
    let json = graph_json(&graphs);
    assert_eq!(json["nodes"][0]["waitsFor"][0], base.as_str());
    assert_eq!(json["nodes"][1]["activity"], "running");
    assert_eq!(json["truncated"], true);
}

#[test]
fn a_cache_key_shows_its_results_and_what_it_follows_from() {
    let record = CacheRecordLine {
        key: "k".into(),
        results: vec![("r".into(), UNIX_EPOCH)],
        parents: vec![CacheParentLine {
            input: 1,
            key: "p".into(),
            digest: Digest::sha256("op"),
            selector: Some(Digest::sha256("part")),
        }],
    };
    let mut text = String::new();
    record_text(&mut text, &record);
    let (op, part) = (Digest::sha256("op"), Digest::sha256("part"));
    assert_eq!(
        text,
        format!("k\n  result r\n  input 1 of p: {op}\n    selector {part}\n")
    );
    assert_eq!(
        record_json(&record)["parents"][0]["selector"],
        part.as_str()
    );
}
