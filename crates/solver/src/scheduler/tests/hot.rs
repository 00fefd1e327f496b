//! The cost of a fully cached build for the scheduler, in counts, because times on a shared machine vary.

use super::*;

/// Counts of one build.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cost {
    /// Steps of the scheduler.
    steps: usize,
    cache_maps: usize,
    lookups: usize,
    loads: usize,
    /// Executions, content keys and saves.
    other_work: usize,
    /// Attached vertices.
    attaches: usize,
    /// Events of the scheduler.
    events: usize,
}

/// A chain of steps; every tenth also copies from a source of its own.
fn dockerfile(steps: u64) -> (Edge<Model>, usize) {
    let kind = |name, deps: &[(bool, bool)]| Kind {
        name,
        outputs: 1,
        deps: deps.to_vec(),
        collapse: 0,
        maps: 1,
        fails: false,
    };
    let vertex = |kind: Kind, inputs: Vec<Edge<Model>>| {
        let digest = Digest::sha256(format!("hot {}", kind.name));
        let mut vertex = Vertex::new(digest, format!("k{}", kind.name), Arc::new(kind));
        vertex.inputs = inputs;
        Edge {
            vertex: Arc::new(vertex),
            index: 0,
        }
    };
    let mut top = vertex(kind(0, &[]), Vec::new());
    let mut count = 1;
    for step in 1..steps {
        if step % 10 == 0 {
            let source = vertex(kind(1_000 + step, &[]), Vec::new());
            let copy = kind(step, &[(false, false), (true, false)]);
            top = vertex(copy, vec![top, source]);
            count += 2;
        } else {
            top = vertex(kind(step, &[(false, false)]), vec![top]);
            count += 1;
        }
    }
    (top, count)
}

/// Builds an edge in a job of its own, and counts.
fn build(world: &mut World, id: u64, edge: &Edge<Model>) -> Cost {
    let mut cost = Cost::default();
    let mut events = VecDeque::from([
        job(id),
        Event::Build(BuildRequest {
            build: id,
            by: Requester::Job(id),
            edge: edge.clone(),
            sources: Vec::new(),
            loaded: super::super::Loaded::<Model>::default(),
        }),
    ]);
    let mut has_reply = false;
    while let Some(event) = events.pop_front() {
        let mut out = Vec::new();
        cost.events += 1;
        world.scheduler.take(world.clock, event, &mut out);
        while world.scheduler.go_on(1, &mut out) {
            cost.steps += 1;
        }
        for effect in out {
            match effect {
                Effect::Start(work, what) => {
                    match &what {
                        Work::CacheMap { .. } => cost.cache_maps += 1,
                        Work::Lookup(_) => cost.lookups += 1,
                        Work::Load { .. } => cost.loads += 1,
                        Work::Slow { .. } | Work::Exec { .. } | Work::Save { .. } => {
                            cost.other_work += 1
                        }
                    }
                    let outcome = world.perform(what);
                    events.push_back(Event::Done(work, outcome));
                }
                Effect::Attach(_) => cost.attaches += 1,
                Effect::Reply(_, result) => {
                    assert!(result.is_ok());
                    has_reply = true;
                }
                Effect::Cancel(_) | Effect::Release(_) => {}
            }
        }
    }
    assert!(has_reply);
    world.apply(Event::Discard(id));
    cost
}

#[test]
fn the_steps_of_a_fully_cached_build_grow_linearly_with_its_vertices() {
    let mut per_vertex = Vec::new();
    for steps in [50, 300] {
        let mut world = World::new(1);
        let (edge, vertices) = dockerfile(steps);
        build(&mut world, 1, &edge);
        let hot = build(&mut world, 2, &edge);
        eprintln!("{vertices} vertices, all known: {hot:?}");
        assert_eq!(hot.cache_maps, vertices);
        // One look-up per vertex, and one more for a vertex whose two inputs are found one after the other.
        assert!(
            (vertices..=vertices + vertices / 5).contains(&hot.lookups),
            "{hot:?}"
        );
        assert_eq!(
            (hot.loads, hot.other_work),
            (1, 0),
            "only the result is loaded"
        );
        assert_eq!(hot.attaches, vertices);
        assert_eq!(hot.events, 2 + hot.cache_maps + hot.lookups + hot.loads);
        per_vertex.push(hot.steps / vertices);
        assert!(hot.steps <= 14 * vertices, "{hot:?}");
    }
    assert!(per_vertex[1] <= per_vertex[0] + 1, "{per_vertex:?}");
}
