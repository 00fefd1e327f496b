use super::*;
use crate::fixture::{digest, result, way};

fn descriptors(layers: &[&str]) -> HashMap<Digest, Arc<Descriptor>> {
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
    let mut chains = RecordChains::default();
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
    let mut chains = RecordChains::default();
    let add = |chains: &mut RecordChains, name: &str, inputs: &[Vec<InputLink>], results| {
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
    let mut chains = RecordChains::default();
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
    let mut again = RecordChains::default();
    again.add_config(&config, &HashMap::new()).unwrap();
}

#[test]
fn what_follows_from_a_random_key_is_not_kept() {
    let mut chains = RecordChains::default();
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
    let mut chains = RecordChains::default();
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
    let mut again = RecordChains::default();
    again.add_config(&config, &blobs).unwrap();
    assert_eq!(again.config().0, config);
    // A result of which a layer is not described is left out, its record is not.
    let mut less = RecordChains::default();
    less.add_config(&config, &descriptors(&["a", "c"])).unwrap();
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
        let got = RecordChains::default()
            .add_config(&config, &descriptors(&["x", "y"]))
            .unwrap_err();
        assert_eq!(got.to_string(), want);
    }
}

#[test]
fn long_chains_overflow_nothing() {
    let mut chains = RecordChains::default();
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
    let mut again = RecordChains::default();
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
    let mut chains = RecordChains::default();
    chains.add_config(&config, &descriptors(&["a"])).unwrap();
    let entries = chains.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].results.len(), MAX_RESULTS_PER_RECORD);
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
        let mut chains = RecordChains::default();
        chains.add_config(&config, &descriptors(&["a"])).unwrap();
        assert_eq!(chains.entries()[0].results.len(), want, "{count}");
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }
}

fn text(config: &CacheConfig) -> String {
    String::from_utf8(gostd::json::to_vec(config)).unwrap()
}

#[test]
fn any_records_can_be_written_and_read_back_and_each_comes_after_what_it_follows_from() {
    for seed in 1..200 {
        let mut numbers = Numbers(seed);
        let mut chains = RecordChains::default();
        let mut items: Vec<usize> = Vec::new();
        for _ in 0..numbers.below(30) + 2 {
            // Few names, so that records meet and are merged.
            let name = numbers.below(6).to_string();
            let inputs: Vec<Vec<InputLink>> = (0..numbers.below(3).min(items.len()))
                .map(|_| {
                    let ways = (0..numbers.below(2) + 1).map(|_| {
                        let selector = ["", "sha256:s"][numbers.below(2)];
                        (items[numbers.below(items.len())], selector.to_owned())
                    });
                    ways.collect()
                })
                .collect();
            let layers: Vec<&str> = ["a", "b", "c"][..numbers.below(4)].to_vec();
            let results = match layers.is_empty() {
                true => Vec::new(),
                false => vec![result(numbers.below(9) as u64, &layers)],
            };
            items.extend(chains.add(&digest(&name), &inputs, results).unwrap());
        }
        let mut seen = HashSet::new();
        for entry in chains.entries() {
            for (from, _) in entry.ways.iter().flatten() {
                assert!(
                    seen.contains(from),
                    "seed {seed}: {from} before {}",
                    entry.at
                );
            }
            assert!(
                seen.insert(entry.at),
                "seed {seed}: {} comes once",
                entry.at
            );
        }
        let (config, blobs) = chains.config();
        let mut again = RecordChains::default();
        again.add_config(&config, &blobs).unwrap();
        let (read, _) = again.config();
        // Records that only a later way showed to be the same become one when they are read.
        assert!(read.records.len() <= config.records.len(), "seed {seed}");
        assert!(read.layers.len() <= config.layers.len(), "seed {seed}");
    }
}

#[test]
fn the_order_in_which_records_come_does_not_show_in_the_document() {
    let add = |chains: &mut RecordChains, order: &[&str]| {
        let mut items: HashMap<&str, usize> = HashMap::new();
        for name in order {
            let (inputs, layers): (&[&str], &[&str]) = match *name {
                "base" | "context" => (&[], &[]),
                "run" => (&["base"], &["a", "b"]),
                "copy" => (&["run", "context"], &["a", "b", "c"]),
                _ => (&["copy"], &["a", "b", "d"]),
            };
            let inputs: Vec<_> = inputs.iter().map(|name| way(items[name])).collect();
            let results = match layers {
                [] => Vec::new(),
                layers => vec![result(1, layers)],
            };
            let item = chains.add(&digest(name), &inputs, results).unwrap();
            items.insert(name, item.unwrap());
        }
    };
    let mut texts = BTreeSet::new();
    for order in [
        ["base", "context", "run", "copy", "top"],
        ["context", "base", "run", "copy", "top"],
        ["base", "run", "context", "copy", "top"],
    ] {
        let mut chains = RecordChains::default();
        add(&mut chains, &order);
        // What comes twice is there once.
        add(&mut chains, &order);
        texts.insert(text(&chains.config().0));
    }
    assert_eq!(texts.len(), 1, "{texts:#?}");
}

#[test]
fn the_document_is_that_of_the_reference() {
    let mut chains = RecordChains::default();
    let base = chains.add(&digest("base"), &[], vec![]).unwrap().unwrap();
    let run = vec![result(1_700_000_000, &["a", "b"])];
    let run = chains
        .add(&digest("run"), &[way(base)], run)
        .unwrap()
        .unwrap();
    let selected = vec![(run, digest("selector").to_string())];
    let copy = vec![result(1_700_000_001, &["a", "c"])];
    chains
        .add(&digest("copy"), &[way(base), selected], copy)
        .unwrap();
    // Layers by blob and parent, records by digest; a parent of 0 is left out.
    let mut layers = [digest("a"), digest("b"), digest("c")];
    layers.sort();
    let at = |name: &str| layers.iter().position(|l| *l == digest(name)).unwrap();
    let layers: Vec<String> = layers
        .iter()
        .map(|blob| match at("a") {
            _ if *blob == digest("a") => format!("{{\"blob\":\"{blob}\",\"parent\":-1}}"),
            0 => format!("{{\"blob\":\"{blob}\"}}"),
            parent => format!("{{\"blob\":\"{blob}\",\"parent\":{parent}}}"),
        })
        .collect();
    let mut records = [digest("base"), digest("run"), digest("copy")];
    records.sort();
    let of = |name: &str| records.iter().position(|r| *r == digest(name)).unwrap();
    let (base, run, selector) = (of("base"), of("run"), digest("selector"));
    let records: Vec<String> = records
        .iter()
        .map(|record| {
            let time = |second: u8| format!("2023-11-14T22:13:2{second}Z");
            let result = |layer, second| {
                format!("\"layers\":[{{\"layer\":{layer},\"createdAt\":\"{}\"}}]", time(second))
            };
            if *record == digest("base") {
                format!("{{\"digest\":\"{record}\"}}")
            } else if *record == digest("run") {
                let result = result(at("b"), 0);
                format!("{{{result},\"digest\":\"{record}\",\"inputs\":[[{{\"link\":{base}}}]]}}")
            } else {
                let result = result(at("c"), 1);
                let second = format!("[{{\"selector\":\"{selector}\",\"link\":{run}}}]");
                format!("{{{result},\"digest\":\"{record}\",\"inputs\":[[{{\"link\":{base}}}],{second}]}}")
            }
        })
        .collect();
    let expected = format!(
        "{{\"layers\":[{}],\"records\":[{}]}}",
        layers.join(","),
        records.join(",")
    );
    assert_eq!(text(&chains.config().0), expected);
}

#[test]
fn a_selector_tells_ways_from_the_same_input_apart() {
    let mut chains = RecordChains::default();
    let base = chains.add(&digest("base"), &[], vec![]).unwrap().unwrap();
    let mut add = |selector: &str| {
        let ways = vec![vec![(base, selector.to_owned())]];
        chains.add(&digest("copy"), &ways, vec![]).unwrap().unwrap()
    };
    let whole = add("");
    assert_ne!(whole, add("sha256:a"));
    assert_eq!(whole, add(""));
}

#[test]
fn a_record_that_brings_three_together_has_the_results_of_all() {
    let mut chains = RecordChains::default();
    let bases: Vec<usize> = ["a", "b", "c"]
        .iter()
        .map(|name| chains.add(&digest(name), &[], vec![]).unwrap().unwrap())
        .collect();
    let mut tops = Vec::new();
    for (at, base) in bases.iter().enumerate() {
        let layers = ["x", "y", "x"][at];
        let copy = chains.add(&digest("copy"), &[way(*base)], vec![result(1, &[layers])]);
        let copy = copy.unwrap().unwrap();
        tops.push(
            chains
                .add(&digest("top"), &[way(copy)], vec![])
                .unwrap()
                .unwrap(),
        );
    }
    let all: Vec<InputLink> = bases.iter().map(|base| (*base, String::new())).collect();
    let copy = chains
        .add(&digest("copy"), &[all], vec![])
        .unwrap()
        .unwrap();
    let entries = chains.entries();
    let merged = entries.iter().find(|entry| entry.at == copy).unwrap();
    assert_eq!(merged.results.len(), 2, "equal results are one");
    assert_eq!(merged.ways[0].len(), 3);
    // What followed from each of them follows from the one that is left, and is found there.
    let top = chains
        .add(&digest("top"), &[way(copy)], vec![])
        .unwrap()
        .unwrap();
    assert!(tops.contains(&top));
    assert!(
        chains
            .entries()
            .iter()
            .all(|entry| entry.digest == &digest("top")
                || entry.ways.iter().all(|ways| !ways.is_empty()))
    );
}

/// A config of one record that has these chains, over these layers.
fn chained(layers: &[(&str, i64)], chains: &[&[i64]]) -> CacheConfig {
    CacheConfig {
        layers: layers
            .iter()
            .map(|(name, parent)| CacheLayer {
                blob: digest(name),
                parent: *parent,
                annotations: None,
            })
            .collect(),
        records: vec![CacheRecord {
            results: Vec::new(),
            chains: chains
                .iter()
                .map(|layers| crate::format::ChainedResult {
                    layers: layers.to_vec(),
                    created_at: Timestamp::from_seconds(1),
                })
                .collect(),
            digest: digest("run"),
            inputs: Vec::new(),
        }],
    }
}

#[test]
fn results_that_list_their_layers_have_those_whatever_the_parents_of_the_layers_are() {
    let layers = [("a", -1), ("b", 0), ("c", 7)];
    for (chain, expected) in [
        (&[0, 1][..], Some(&["a", "b"][..])),
        (&[1, 0], Some(&["b", "a"])),
        (&[2], Some(&["c"])),
        (&[0, 0], Some(&["a", "a"])),
        (&[], None),
    ] {
        let config = chained(&layers, &[chain]);
        let mut chains = RecordChains::default();
        chains
            .add_config(&config, &descriptors(&["a", "b", "c"]))
            .unwrap();
        let entries = chains.entries();
        let found = entries[0].results.first().map(|result| {
            let layers = result.layers.iter().map(|layer| layer.digest.clone());
            layers.collect::<Vec<_>>()
        });
        let expected = expected.map(|names| names.iter().map(|n| digest(n)).collect::<Vec<_>>());
        assert_eq!(found, expected, "{chain:?}");
    }
    for bad in [&[3][..], &[0, -1], &[i64::MAX], &[i64::MIN]] {
        let config = chained(&layers, &[bad]);
        let error = RecordChains::default().add_config(&config, &descriptors(&["a"]));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("invalid layer index"), "{bad:?}: {error}");
    }
}

#[test]
fn a_cache_that_lists_more_layers_than_any_honest_one_is_given_up() {
    let layers: Vec<i64> = vec![0; MAX_LAYERS];
    let chains: Vec<&[i64]> = vec![&layers; MAX_LISTED_LAYERS / MAX_LAYERS + 2];
    let config = chained(&[("a", -1)], &chains);
    let error = RecordChains::default().add_config(&config, &descriptors(&["a"]));
    assert_eq!(
        error.unwrap_err().to_string(),
        "the cache has too many records"
    );
}

#[test]
fn of_equally_new_results_the_first_is_written_and_layers_that_both_have_are_listed_once() {
    let mut chains = RecordChains::default();
    let results = vec![
        result(5, &["a", "b"]),
        result(5, &["a", "c"]),
        result(4, &["z"]),
    ];
    chains.add(&digest("run"), &[], results).unwrap();
    chains
        .add(&digest("other"), &[], vec![result(1, &["a", "b", "d"])])
        .unwrap();
    let (config, blobs) = chains.config();
    let mut names: Vec<_> = config
        .layers
        .iter()
        .map(|layer| layer.blob.clone())
        .collect();
    names.sort();
    let mut expected = [digest("a"), digest("b"), digest("d")];
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(blobs.len(), 3);
}
