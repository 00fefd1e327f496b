//! Builds that are cancelled during each kind of work.

use super::*;

fn kind(name: u64, deps: &[(bool, bool)]) -> Kind {
    Kind {
        name,
        outputs: 1,
        deps: deps.to_vec(),
        collapse: 0,
        maps: 1,
        fails: false,
    }
}

fn vertex(kind: Kind, inputs: &[&Edge<Model>]) -> Edge<Model> {
    let digest = Digest::sha256(format!("leaving {}", kind.name));
    let mut vertex = Vertex::new(digest, format!("k{}", kind.name), Arc::new(kind));
    vertex.inputs = inputs.iter().map(|edge| (*edge).clone()).collect();
    Edge {
        vertex: Arc::new(vertex),
        index: 0,
    }
}

/// A base, a step on it, and a step that reads the content of that step.
fn graph() -> Edge<Model> {
    let base = vertex(kind(0, &[]), &[]);
    let step = vertex(kind(1, &[(false, false)]), &[&base]);
    vertex(kind(2, &[(true, true)]), &[&step])
}

type IsKind = fn(&Work<Model>) -> bool;

const KINDS: [(&str, IsKind); 6] = [
    ("cache map", |work| matches!(work, Work::CacheMap { .. })),
    ("content key", |work| matches!(work, Work::Slow { .. })),
    ("execution", |work| matches!(work, Work::Exec { .. })),
    ("look-up", |work| matches!(work, Work::Lookup(_))),
    ("load", |work| matches!(work, Work::Load { .. })),
    ("save", |work| matches!(work, Work::Save { .. })),
];

impl World {
    /// Runs until work of a kind is in progress.
    fn until(&mut self, is_kind: IsKind) -> bool {
        loop {
            let mut pending = self.pending.iter();
            if pending.any(|(_, work)| matches!(work, Pending::Started(work) if is_kind(work))) {
                return true;
            }
            if !self.step() {
                return false;
            }
        }
    }

    /// A world in which the results are stored, if the kind of work is a load.
    fn ready_for(seed: u64, name: &str, edge: &Edge<Model>) -> Self {
        let mut world = Self::new(seed);
        if name == "load" {
            world.apply(job(1));
            world.start(1, 1, edge);
            while world.step() {}
            world.apply(Event::Discard(1));
            world.replies.clear();
        }
        world
    }

    fn content_of(&mut self, build: BuildId) -> u64 {
        let reply = self.replies.remove(&build).expect("it was told");
        reply.unwrap().content
    }
}

#[test]
fn a_cancelled_build_cancels_its_work_of_any_kind_and_the_next_build_is_right() {
    let edge = graph();
    let right = content(&edge, &mut HashMap::new()).unwrap();
    for (name, is_kind) in KINDS {
        for seed in 1..30 {
            let mut world = World::ready_for(seed, name, &edge);
            world.apply(job(2));
            world.start(2, 2, &edge);
            if !world.until(is_kind) {
                // In this order of events the key store was asked at once.
                assert_eq!(name, "look-up", "seed {seed}");
                continue;
            }
            world.apply(Event::Leave(2));
            for (_, work) in &world.pending {
                // A look-up runs to its end.
                let is_lookup = matches!(
                    work,
                    Pending::Started(Work::Lookup(_)) | Pending::Answered(WorkOutcome::Lookup(_))
                );
                assert!(is_lookup, "seed {seed}: work goes on after {name}");
            }
            assert!(world.replies.is_empty(), "{name}");
            world.apply(job(3));
            world.start(3, 3, &edge);
            while world.step() {}
            assert_eq!(world.content_of(3), right, "seed {seed}: {name}");
            world.apply(Event::Discard(2));
            world.apply(Event::Discard(3));
            assert!(world.scheduler.vertices.is_empty() && world.pending.is_empty());
        }
    }
}

#[test]
fn work_that_another_job_waits_for_goes_on_when_one_leaves() {
    let edge = graph();
    let right = content(&edge, &mut HashMap::new()).unwrap();
    for (name, is_kind) in KINDS {
        for seed in 1..30 {
            let mut world = World::ready_for(seed, name, &edge);
            for id in [2, 3] {
                world.apply(job(id));
                world.start(id, id, &edge);
            }
            if !world.until(is_kind) {
                continue;
            }
            let before = world.cancelled.len();
            let leaves = if seed % 2 == 0 {
                Event::Leave(2)
            } else {
                Event::Discard(2)
            };
            world.apply(leaves);
            assert_eq!(world.cancelled.len(), before, "seed {seed}: {name}");
            while world.step() {}
            assert_eq!(world.content_of(3), right, "seed {seed}: {name}");
            let mut ran: Vec<_> = world
                .ran
                .iter()
                .map(|(edge, _)| &edge.vertex.digest)
                .collect();
            ran.sort();
            let runs = ran.len();
            ran.dedup();
            assert_eq!(ran.len(), runs, "seed {seed}: nothing ran twice");
            world.apply(Event::Discard(2));
            world.apply(Event::Discard(3));
            assert!(world.scheduler.vertices.is_empty() && world.pending.is_empty());
        }
    }
}

#[test]
fn a_result_that_cannot_be_loaded_is_computed_and_saved_again() {
    let edge = graph();
    let right = content(&edge, &mut HashMap::new()).unwrap();
    for seed in 1..60 {
        let mut world = World::ready_for(seed, "load", &edge);
        world.ran.clear();
        world.load_fails = 100;
        world.apply(job(2));
        world.start(2, 2, &edge);
        while world.step() {}
        assert_eq!(world.content_of(2), right, "seed {seed}");
        assert_eq!(world.ran.len(), 3, "seed {seed}: all of it ran, once");
        world.apply(Event::Discard(2));
        world.load_fails = 0;
        world.ran.clear();
        world.apply(job(3));
        world.start(3, 3, &edge);
        while world.step() {}
        assert_eq!(world.content_of(3), right, "seed {seed}");
        assert!(world.ran.is_empty(), "seed {seed}");
        world.apply(Event::Discard(3));
    }
}

#[test]
fn an_error_reaches_every_job_that_waits_and_the_op_fails_once() {
    for seed in 1..60 {
        let mut world = World::new(seed);
        let base = vertex(kind(0, &[]), &[]);
        let failing = Kind {
            fails: true,
            ..kind(1, &[(false, false)])
        };
        let failing = vertex(failing, &[&base]);
        let tops = [2, 3, 4].map(|name| vertex(kind(name, &[(false, false)]), &[&failing]));
        for (id, top) in (10..).zip(&tops) {
            world.apply(job(id));
            world.start(id, id, top);
        }
        while world.step() {}
        for id in 10..13 {
            let error = world.replies.remove(&id).expect("it was told").unwrap_err();
            assert_eq!(error.vertex(), Some(&failing.vertex.digest), "seed {seed}");
        }
        let failures = world.ran.iter().filter(|(_, fails)| *fails).count();
        assert_eq!(failures, 1, "seed {seed}");
        // A job that joins while the others wait gets the same error; a later one does not.
        world.apply(job(20));
        world.start(20, 20, &tops[0]);
        while world.step() {}
        assert!(world.replies.remove(&20).expect("it was told").is_err());
        let failures = world.ran.iter().filter(|(_, fails)| *fails).count();
        assert_eq!(failures, 1, "seed {seed}");
        for id in [10, 11, 12, 20] {
            world.apply(Event::Discard(id));
        }
        world.apply(job(30));
        world.start(30, 30, &tops[0]);
        while world.step() {}
        let failures = world.ran.iter().filter(|(_, fails)| *fails).count();
        assert_eq!(failures, 2, "seed {seed}");
        world.apply(Event::Discard(30));
    }
}

#[test]
fn a_job_that_ends_replies_to_its_builds_and_shared_work_continues_for_others() {
    let edge = graph();
    for seed in 1..60 {
        let mut world = World::new(seed);
        for id in [1, 2] {
            world.apply(job(id));
            world.start(id, id, &edge);
        }
        world.start(1, 3, &edge);
        for _ in 0..seed % 7 {
            world.step();
        }
        world.apply(Event::Discard(1));
        for build in [1, 3] {
            if let Some(Err(error)) = world.replies.remove(&build) {
                assert!(
                    matches!(error, SolveError::Canceled),
                    "seed {seed}: {error}"
                );
            }
        }
        // A job's build of an unknown edge is refused with an error.
        world.start(1, 4, &edge);
        let refused = world.replies.remove(&4).expect("it was told");
        assert!(matches!(refused, Err(SolveError::Canceled)));
        while world.step() {}
        assert!(world.replies.remove(&2).expect("it was told").is_ok());
        world.apply(Event::Discard(2));
        assert!(world.scheduler.vertices.is_empty());
    }
}
