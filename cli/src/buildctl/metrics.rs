//! `--debug-json-cache-metrics`: how much of a build came from the cache.

use std::collections::BTreeMap;
use std::time::Duration;

use client::SolveStatus;
use serde::Serialize;

/// What is counted of each vertex.
#[derive(Debug, Default)]
struct VertexCounts {
    name: String,
    cached: bool,
    completed: bool,
}

/// The vertices of a build.
#[derive(Debug, Default)]
pub(super) struct CacheMetrics {
    vertices: BTreeMap<String, VertexCounts>,
}

#[derive(Debug, Default, Serialize)]
struct MetricsLine {
    total: i64,
    completed: i64,
    user_total: i64,
    user_cached: i64,
    user_completed: i64,
    user_cacheable: i64,
    from: i64,
    miss: i64,
    client_duration_ms: u64,
}

impl CacheMetrics {
    pub(super) fn take(&mut self, status: &SolveStatus) {
        for vertex in &status.vertexes {
            let counted = self.vertices.entry(vertex.digest.clone()).or_default();
            if counted.name.is_empty() {
                counted.name.clone_from(&vertex.name);
            }
            counted.cached |= vertex.cached;
            counted.completed |= vertex.completed.is_some();
        }
    }

    /// A line for each miss, and the numbers.
    pub(super) fn report(&self, took: Duration) -> String {
        const INTERNAL: [&str; 4] = ["[internal]", "[auth]", "importing cache", "exporting "];
        let mut text = String::new();
        let mut line = MetricsLine {
            client_duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            ..MetricsLine::default()
        };
        for vertex in self.vertices.values() {
            line.total += 1;
            line.completed += i64::from(vertex.completed);
            if INTERNAL
                .iter()
                .any(|prefix| vertex.name.starts_with(prefix))
            {
                continue;
            }
            let is_from = vertex.name.starts_with('[') && vertex.name.contains("] FROM");
            line.user_total += 1;
            line.user_cacheable += i64::from(!is_from);
            line.from += i64::from(is_from);
            line.user_completed += i64::from(vertex.completed);
            if vertex.cached {
                line.user_cached += 1;
            } else if !is_from {
                line.miss += 1;
                text += &format!("cache miss: {}\n", vertex.name);
            }
        }
        text += &String::from_utf8_lossy(&gostd::json::to_vec(&line));
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {

    use client::Vertex;

    use super::*;

    #[test]
    fn steps_of_the_user_are_counted_by_what_became_of_them() {
        let vertex = |digest: &str, name: &str, cached, completed: bool| Vertex {
            digest: digest.into(),
            name: name.into(),
            cached,
            completed: completed.then(task::clock::wall),
            ..Vertex::default()
        };
        let mut metrics = CacheMetrics::default();
        metrics.take(&SolveStatus {
            vertexes: vec![
                vertex("a", "[internal] load build definition", false, true),
                vertex("b", "[1/3] FROM base", false, true),
                vertex("c", "[2/3] RUN one", false, false),
                vertex("d", "[3/3] RUN two", true, true),
            ],
            ..SolveStatus::default()
        });
        metrics.take(&SolveStatus {
            vertexes: vec![vertex("c", "[2/3] RUN one", false, true)],
            ..SolveStatus::default()
        });
        assert_eq!(
            metrics.report(Duration::from_millis(7)),
            "cache miss: [2/3] RUN one\n{\"total\":4,\"completed\":4,\"user_total\":3,\"user_cached\":1,\"user_completed\":3,\
             \"user_cacheable\":2,\"from\":1,\"miss\":1,\"client_duration_ms\":7}\n"
        );
    }
}
