//! What a client is shown of a vertex beyond what the vertex says of itself.
//!
//! Facts of `solver/progress.go` (v0.34.2): when a vertex starts, those of its inputs that have not completed did not
//! have to, and are shown as cached, then theirs. DIFFERS: one that has started is left alone, it may be downloading. When the build ends, a vertex that started and did not complete is
//! completed with an error, unless a vertex above it was cached.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use oci::Digest;

use crate::event::Vertex;

#[derive(Debug, Default)]
pub(crate) struct VertexStream {
    known: HashMap<Digest, Vertex>,
    was_cached: HashSet<Digest>,
}

impl VertexStream {
    /// Returns what to show now that `vertex` is so.
    pub(crate) fn push(&mut self, vertex: Vertex) -> Vec<Vertex> {
        let mut out = Vec::new();
        let mut work = vec![vertex];
        // Inputs go out before what reads them: the list is made from the end.
        while let Some(vertex) = work.pop() {
            self.known.insert(vertex.digest.clone(), vertex.clone());
            if vertex.started.is_some() {
                for input in &vertex.inputs {
                    let skipped = self
                        .known
                        .get(input)
                        .filter(|v| !v.cached && v.started.is_none() && v.completed.is_none())
                        .cloned();
                    if let Some(mut skipped) = skipped {
                        self.known.remove(input);
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
            if let Some(vertex) = self.known.get(&digest)
                && self.was_cached.insert(digest)
            {
                work.extend(vertex.inputs.iter().cloned());
            }
        }
    }

    /// Returns what to show when nothing more will come.
    pub(crate) fn finish(&mut self, now: SystemTime) -> Vec<Vertex> {
        let mut out: Vec<Vertex> = Vec::new();
        for (digest, mut vertex) in self.known.drain() {
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
    fn an_input_that_is_at_work_is_not_called_cached() {
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
}
