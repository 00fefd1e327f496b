//! The vertices as a client sees them, with states that vertices do not report themselves.
//!
//! Facts from `solver/progress.go` (v0.34.2): when a vertex starts, its inputs that have not completed did not
//! have to run, and are shown as cached, and so are theirs. DIFFERS: an input that has started is left alone, it may be downloading. When the build ends, a vertex that started and did not complete is
//! completed with an error, unless a vertex above it was cached.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use oci::Digest;

use crate::event::Vertex;

#[derive(Debug, Default)]
pub(crate) struct VertexStream {
    vertices: HashMap<Digest, Vertex>,
    was_cached: HashSet<Digest>,
}

impl VertexStream {
    /// Returns the vertices to show for the new state of `vertex`.
    pub(crate) fn push(&mut self, vertex: Vertex) -> Vec<Vertex> {
        let mut out = Vec::new();
        let mut work = vec![vertex];
        // Inputs are shown before the vertices that use them: the list is built from the end.
        while let Some(vertex) = work.pop() {
            self.vertices.insert(vertex.digest.clone(), vertex.clone());
            if vertex.started.is_some() {
                for input in &vertex.inputs {
                    let skipped = self
                        .vertices
                        .get(input)
                        .filter(|v| !v.cached && v.started.is_none() && v.completed.is_none())
                        .cloned();
                    if let Some(mut skipped) = skipped {
                        self.vertices.remove(input);
                        skipped.cached = true;
                        skipped.started = vertex.started;
                        skipped.completed = vertex.started;
                        work.push(skipped);
                    }
                }
            }
            if vertex.cached {
                self.mark_cached(&vertex.digest);
            }
            out.push(vertex);
        }
        out.reverse();
        out
    }

    fn mark_cached(&mut self, digest: &Digest) {
        let mut work = vec![digest.clone()];
        while let Some(digest) = work.pop() {
            if let Some(vertex) = self.vertices.get(&digest)
                && self.was_cached.insert(digest)
            {
                work.extend(vertex.inputs.iter().cloned());
            }
        }
    }

    /// Returns the vertices to show after the last event.
    pub(crate) fn finish(&mut self, now: SystemTime) -> Vec<Vertex> {
        let mut out: Vec<Vertex> = Vec::new();
        for (digest, mut vertex) in self.vertices.drain() {
            if vertex.started.is_some() && vertex.completed.is_none() {
                vertex.completed = Some(now);
                if !self.was_cached.contains(&digest) && vertex.error.is_empty() {
                    vertex.error = "context canceled".into();
                }
                out.push(vertex);
            }
        }
        out.sort_by_key(|v| v.started);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(name: &str, inputs: &[&str]) -> Vertex {
        Vertex::new(
            Digest::key(name),
            name,
            inputs.iter().map(|i| Digest::key(i)).collect(),
        )
    }

    fn names(shown: &[Vertex]) -> Vec<String> {
        shown
            .iter()
            .map(|v| {
                format!(
                    "{}{}{}",
                    v.name,
                    if v.cached { " cached" } else { "" },
                    if v.error.is_empty() { "" } else { " error" }
                )
            })
            .collect()
    }

    #[test]
    fn inputs_that_did_not_have_to_run_are_shown_as_cached() {
        let mut stream = VertexStream::default();
        for v in [vertex("a", &[]), vertex("b", &["a"]), vertex("c", &["b"])] {
            assert_eq!(stream.push(v).len(), 1);
        }
        let at = Some(SystemTime::UNIX_EPOCH);
        let shown = stream.push(Vertex {
            started: at,
            cached: true,
            ..vertex("c", &["b"])
        });
        assert_eq!(names(&shown), ["a cached", "b cached", "c cached"]);
        let shown = stream.push(Vertex {
            started: at,
            completed: at,
            cached: true,
            ..vertex("c", &["b"])
        });
        assert_eq!(names(&shown), ["c cached"]);
        assert!(stream.finish(SystemTime::UNIX_EPOCH).is_empty());
    }

    #[test]
    fn a_running_input_is_not_shown_as_cached() {
        let mut stream = VertexStream::default();
        let at = Some(SystemTime::UNIX_EPOCH);
        let pulling = Vertex {
            started: at,
            ..vertex("image", &[])
        };
        stream.push(pulling);
        let shown = stream.push(Vertex {
            started: at,
            ..vertex("run", &["image"])
        });
        assert_eq!(names(&shown), ["run"]);
    }

    #[test]
    fn a_vertex_cut_off_by_the_end_is_shown_as_canceled() {
        let mut stream = VertexStream::default();
        let at = Some(SystemTime::UNIX_EPOCH);
        assert_eq!(
            stream
                .push(Vertex {
                    started: at,
                    ..vertex("a", &[])
                })
                .len(),
            1
        );
        assert_eq!(names(&stream.finish(SystemTime::UNIX_EPOCH)), ["a error"]);
    }

    fn started(name: &str, inputs: &[&str]) -> Vertex {
        Vertex {
            started: Some(SystemTime::UNIX_EPOCH),
            ..vertex(name, inputs)
        }
    }

    fn ended(name: &str, inputs: &[&str]) -> Vertex {
        Vertex {
            completed: Some(SystemTime::UNIX_EPOCH),
            ..started(name, inputs)
        }
    }

    #[test]
    fn inputs_of_several_vertices_are_shown_as_cached_once() {
        let mut stream = VertexStream::default();
        for v in [
            vertex("base", &[]),
            vertex("left", &["base"]),
            vertex("right", &["base"]),
            vertex("top", &["left", "right", "left"]),
        ] {
            stream.push(v);
        }
        let shown = names(&stream.push(started("top", &["left", "right", "left"])));
        let place = |name: &str| {
            let mut places = shown.iter().enumerate().filter(|(_, shown)| *shown == name);
            let (at, _) = places.next().unwrap();
            assert!(places.next().is_none(), "{name} in {shown:?}");
            at
        };
        let (base, top) = (place("base cached"), place("top"));
        for middle in [place("left cached"), place("right cached")] {
            assert!(middle < top && base < top, "{shown:?}");
        }
    }

    #[test]
    fn ended_and_unknown_inputs_are_not_shown() {
        let mut stream = VertexStream::default();
        stream.push(ended("done", &[]));
        let shown = stream.push(started("run", &["done", "of another build"]));
        assert_eq!(names(&shown), ["run"]);
    }

    #[test]
    fn inputs_of_a_cached_vertex_are_not_shown_as_canceled() {
        let mut stream = VertexStream::default();
        stream.push(started("pull", &[]));
        stream.push(started("own", &[]));
        stream.push(Vertex {
            error: "exit code: 1".into(),
            ..started("failed", &[])
        });
        stream.push(Vertex {
            cached: true,
            ..ended("run", &["mid", "pull"])
        });
        let mut unfinished = names(&stream.finish(SystemTime::UNIX_EPOCH));
        unfinished.sort();
        assert_eq!(unfinished, ["failed error", "own error", "pull"]);
        assert!(stream.finish(SystemTime::UNIX_EPOCH).is_empty());
    }

    #[test]
    fn a_long_chain_of_cached_vertices_overflows_nothing() {
        let mut stream = VertexStream::default();
        stream.push(vertex("0", &[]));
        for n in 1..50_000 {
            let below = (n - 1).to_string();
            stream.push(vertex(&n.to_string(), &[&below]));
        }
        let shown = stream.push(started("50000", &["49999"]));
        assert_eq!(shown.len(), 50_001);
        assert_eq!(shown.first().unwrap().name, "0");
    }
}
