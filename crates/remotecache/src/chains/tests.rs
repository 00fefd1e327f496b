use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn digest(name: &str) -> Digest {
    Digest::sha256(name)
}

fn way(at: usize) -> Vec<Way> {
    vec![(at, String::new())]
}

fn result(seconds: u64, layers: &[&str]) -> ChainResult {
    let layers = layers
        .iter()
        .map(|l| Arc::new(Descriptor::new(media_type::DOCKER_LAYER_GZIP, digest(l), 1)));
    ChainResult {
        created: UNIX_EPOCH + Duration::from_secs(seconds),
        layers: layers.collect(),
    }
}

fn known(layers: &[&str]) -> HashMap<Digest, Arc<Descriptor>> {
    let described = layers.iter().map(|l| {
        (
            digest(l),
            Arc::new(Descriptor::new(media_type::OCI_LAYER_GZIP, digest(l), 1)),
        )
    });
    described.collect()
}

#[test]
fn records_that_are_the_same_are_one_and_the_newest_result_is_written() {
    let mut chains = Chains::default();
    let base = chains
        .add(&digest("base"), &[], Vec::new())
        .unwrap()
        .unwrap();
    let old = chains
        .add(&digest("run"), &[way(base)], vec![result(1, &["a", "b"])])
        .unwrap()
        .unwrap();
    let new = chains
        .add(&digest("run"), &[way(base)], vec![result(2, &["a", "c"])])
        .unwrap()
        .unwrap();
    assert_eq!(old, new);
    let (config, blobs) = chains.config();
    assert_eq!((config.records.len(), config.layers.len()), (2, 2));
    assert_eq!(blobs[&digest("c")].media_type, media_type::OCI_LAYER_GZIP);
    let run = config
        .records
        .iter()
        .find(|r| r.digest == digest("run"))
        .unwrap();
    assert_eq!(
        config.blobs(run.results[0].layer),
        [digest("a"), digest("c")]
    );
}

#[test]
fn ways_that_meet_make_one_record_of_two() {
    let mut chains = Chains::default();
    let add = |chains: &mut Chains, name: &str, inputs: &[Vec<Way>], results| {
        chains.add(&digest(name), inputs, results).unwrap().unwrap()
    };
    let (a, b) = (
        add(&mut chains, "a", &[], vec![]),
        add(&mut chains, "b", &[], vec![]),
    );
    let from_a = add(&mut chains, "copy", &[way(a)], vec![result(1, &["x"])]);
    let from_b = add(&mut chains, "copy", &[way(b)], vec![]);
    let top = add(&mut chains, "top", &[way(from_b)], vec![]);
    assert_ne!(from_a, from_b);
    let both = add(
        &mut chains,
        "copy",
        &[vec![(a, String::new()), (b, String::new())]],
        vec![],
    );
    assert_eq!(both, from_a);
    // Names from before go on meaning the same record.
    assert_eq!(add(&mut chains, "top", &[way(from_b)], vec![]), top);
    let (config, _) = chains.config();
    assert_eq!(config.records.len(), 4);
    let copy = config
        .records
        .iter()
        .find(|r| r.digest == digest("copy"))
        .unwrap();
    assert_eq!((copy.inputs[0].len(), copy.results.len()), (2, 1));
}

#[test]
fn a_record_never_follows_from_itself() {
    let mut chains = Chains::default();
    let base = chains
        .add(&digest("base"), &[], Vec::new())
        .unwrap()
        .unwrap();
    let one = chains
        .add(&digest("copy"), &[way(base)], Vec::new())
        .unwrap()
        .unwrap();
    let two = chains
        .add(&digest("copy"), &[way(one)], Vec::new())
        .unwrap()
        .unwrap();
    let ways = vec![
        (base, String::new()),
        (two, String::new()),
        (one, String::new()),
    ];
    chains.add(&digest("copy"), &[ways], Vec::new()).unwrap();
    let (config, _) = chains.config();
    let mut again = Chains::default();
    again.add_config(&config, &HashMap::new()).unwrap();
}

#[test]
fn what_follows_from_a_random_key_is_not_kept() {
    let mut chains = Chains::default();
    let random = chains
        .add(&Digest::key("random:x"), &[], Vec::new())
        .unwrap();
    assert_eq!(random, None);
    assert_eq!(
        chains
            .add(&digest("run"), &[Vec::new()], Vec::new())
            .unwrap(),
        None
    );
}

#[test]
fn a_config_is_read_back_as_it_was() {
    let mut chains = Chains::default();
    let base = chains
        .add(&digest("base"), &[], Vec::new())
        .unwrap()
        .unwrap();
    let run = chains
        .add(&digest("run"), &[way(base)], vec![result(1, &["a", "b"])])
        .unwrap()
        .unwrap();
    let selected = vec![(run, "sha256:s".to_owned())];
    chains
        .add(
            &digest("copy"),
            &[way(base), selected],
            vec![result(2, &["c"])],
        )
        .unwrap();
    let (config, blobs) = chains.config();
    let mut again = Chains::default();
    again.add_config(&config, &blobs).unwrap();
    assert_eq!(again.config().0, config);
    // A result of which a layer is not described is left out, its record is not.
    let mut less = Chains::default();
    less.add_config(&config, &known(&["a", "c"])).unwrap();
    let (less, _) = less.config();
    assert_eq!((less.records.len(), less.layers.len()), (3, 1));
}

#[test]
fn configs_that_contradict_themselves_are_refused() {
    let record = |name: &str, layer: &[i64], links: &[&[i64]]| CacheRecord {
        results: layer
            .iter()
            .map(|l| CacheResult {
                layer: *l,
                created_at: crate::format::never(),
            })
            .collect(),
        chains: Vec::new(),
        digest: digest(name),
        inputs: links
            .iter()
            .map(|links| {
                links
                    .iter()
                    .map(|l| CacheInput {
                        selector: String::new(),
                        link: *l,
                    })
                    .collect()
            })
            .collect(),
    };
    let layer = |name: &str, parent| CacheLayer {
        blob: digest(name),
        parent,
        annotations: None,
    };
    for (records, want) in [
        (
            vec![record("a", &[], &[&[1]]), record("b", &[], &[&[0]])],
            "invalid looping record",
        ),
        (vec![record("a", &[], &[&[0]])], "invalid looping record"),
        (vec![record("a", &[], &[&[7]])], "invalid record ID: 7"),
        (vec![record("a", &[], &[&[-1]])], "invalid record ID: -1"),
        (
            vec![record("a", &[], &[&[]])],
            "invalid empty input for record 0",
        ),
        (vec![record("a", &[9], &[])], "invalid layer index 9"),
        (vec![record("a", &[0], &[])], "invalid looping layer"),
    ] {
        let config = CacheConfig {
            layers: vec![layer("x", 1), layer("y", 0)],
            records,
        };
        let got = Chains::default()
            .add_config(&config, &known(&["x", "y"]))
            .unwrap_err();
        assert_eq!(got.to_string(), want);
    }
}

#[test]
fn long_chains_overflow_nothing() {
    let mut chains = Chains::default();
    let mut below = chains
        .add(&digest("base"), &[], Vec::new())
        .unwrap()
        .unwrap();
    for step in 0..20_000 {
        below = chains
            .add(&digest(&step.to_string()), &[way(below)], Vec::new())
            .unwrap()
            .unwrap();
    }
    let (config, _) = chains.config();
    let mut again = Chains::default();
    again.add_config(&config, &HashMap::new()).unwrap();
    assert_eq!(again.entries().len(), 20_001);
}

#[test]
fn a_record_of_very_many_results_takes_no_time() {
    // 90,000 results are what a document of 4 MiB can list for one record: compared each with each, they take minutes.
    let record = CacheRecord {
        results: (0..90_000)
            .map(|at| CacheResult {
                layer: 0,
                created_at: Timestamp::from_seconds(at),
            })
            .collect(),
        chains: Vec::new(),
        digest: digest("root"),
        inputs: Vec::new(),
    };
    let config = CacheConfig {
        layers: vec![CacheLayer {
            blob: digest("a"),
            parent: -1,
            annotations: None,
        }],
        records: vec![record.clone(), record],
    };
    let mut chains = Chains::default();
    chains.add_config(&config, &known(&["a"])).unwrap();
    let entries = chains.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].results.len(), MAX_RESULTS);
}

#[test]
fn results_of_more_layers_than_can_be_stacked_are_left_out() {
    let layers = |count: usize| -> Vec<CacheLayer> {
        let parents = -1..i64::try_from(count).unwrap() - 1;
        parents
            .map(|parent| CacheLayer {
                blob: digest("a"),
                parent,
                annotations: None,
            })
            .collect()
    };
    for (count, want) in [(MAX_LAYERS, 1), (MAX_LAYERS + 1, 0), (40_000, 0)] {
        let config = CacheConfig {
            layers: layers(count),
            records: vec![CacheRecord {
                results: vec![CacheResult {
                    layer: i64::try_from(count).unwrap() - 1,
                    created_at: Timestamp::from_seconds(1),
                }],
                chains: Vec::new(),
                digest: digest("root"),
                inputs: Vec::new(),
            }],
        };
        let mut chains = Chains::default();
        chains.add_config(&config, &known(&["a"])).unwrap();
        assert_eq!(chains.entries()[0].results.len(), want, "{count}");
    }
}
