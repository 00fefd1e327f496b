//! A build's progress: the lines of `--progress=rawjson`.

use std::collections::BTreeMap;

use serde_json::Value;

/// A build's progress.
#[derive(Debug, Default, Clone)]
pub(super) struct Progress {
    /// By digest, in the order of digests.
    pub(super) steps: BTreeMap<String, Step>,
    /// All output of steps, in order of arrival.
    pub(super) logs: String,
    /// Bytes by the name of what moved them.
    pub(super) moved: BTreeMap<String, u64>,
}

/// One vertex.
#[derive(Debug, Default, Clone)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) cached: bool,
    pub(super) started: Option<f64>,
    pub(super) completed: Option<f64>,
    pub(super) error: String,
}

impl Progress {
    /// Reads a stream, one JSON object a line; other lines are left out.
    pub(super) fn read(text: &str) -> Self {
        let mut progress = Self::default();
        for line in text.lines().filter(|line| line.starts_with('{')) {
            if let Ok(status) = serde_json::from_str::<Value>(line) {
                progress.add(&status);
            }
        }
        progress
    }

    fn add(&mut self, status: &Value) {
        let list = |key: &str| {
            status
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        for vertex in list("vertexes") {
            let text = |key: &str| vertex.get(key).and_then(Value::as_str).unwrap_or_default();
            let step = self.steps.entry(text("digest").to_owned()).or_default();
            step.name = text("name").to_owned();
            step.cached |= vertex.get("cached").and_then(Value::as_bool) == Some(true);
            step.started = seconds(text("started")).or(step.started);
            step.completed = seconds(text("completed")).or(step.completed);
            if !text("error").is_empty() {
                step.error = text("error").to_owned();
            }
        }
        for status in list("statuses") {
            let name = status
                .get("id")
                .or_else(|| status.get("name"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            let current = status.get("current").and_then(Value::as_u64).unwrap_or(0);
            let largest = self.moved.entry(name.to_owned()).or_default();
            *largest = current.max(*largest);
        }
        for log in list("logs") {
            let data = log.get("data").and_then(Value::as_str).unwrap_or_default();
            self.logs.push_str(&String::from_utf8_lossy(&base64(data)));
        }
    }

    /// Steps with this in their name that came to their end.
    pub(super) fn ended(&self, part: &str) -> Vec<&Step> {
        self.steps
            .values()
            .filter(|step| step.name.contains(part) && step.completed.is_some())
            .collect()
    }

    /// Steps of the Dockerfile itself, those of the build's set-up left out.
    pub(super) fn steps_of_dockerfile(&self) -> Vec<&Step> {
        self.ended("] ")
            .into_iter()
            .filter(|step| !step.name.starts_with("[internal]"))
            .collect()
    }

    /// One line for each step, for error messages.
    pub(super) fn summary(&self) -> String {
        let mut lines: Vec<String> = self
            .steps
            .values()
            .map(|step| {
                let state = match (step.cached, step.completed.is_some()) {
                    (true, _) => "CACHED",
                    (false, true) => "DONE",
                    (false, false) => "not done",
                };
                format!("{state:8} {} {}", step.name, step.error)
            })
            .collect();
        lines.sort();
        lines.join("\n")
    }
}

/// Seconds since an arbitrary day; times of one build are compared, no more.
fn seconds(stamp: &str) -> Option<f64> {
    let (date, time) = stamp.trim_end_matches('Z').split_once('T')?;
    let day: f64 = date.rsplit('-').next()?.parse().ok()?;
    // An offset other than Z is the same for all stamps of a machine.
    let time = time.split(['+', '-']).next()?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    Some(day * 86400.0 + parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}

/// Decodes the standard alphabet; what is not of it is left out.
fn base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xff).unwrap_or(0));
            held &= (1 << bits) - 1;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Progress, base64, seconds};

    #[test]
    fn a_stream_is_read_with_words_between_its_lines() {
        let text = "{\"vertexes\":[{\"digest\":\"a\",\"name\":\"[1/1] RUN x\",\"started\":\"2024-05-01T00:00:01.5Z\"}]}\nerror: no\n\
                    {\"vertexes\":[{\"digest\":\"a\",\"name\":\"[1/1] RUN x\",\"completed\":\"2024-05-01T00:00:03Z\"}],\"logs\":[{\"data\":\"aGVsbG8K\"}]}";
        let progress = Progress::read(text);
        let steps = progress.steps_of_dockerfile();
        assert_eq!(steps.len(), 1);
        assert_eq!(steps[0].completed.unwrap() - steps[0].started.unwrap(), 1.5);
        assert_eq!(progress.logs, "hello\n");
    }

    #[test]
    fn base64_of_all_lengths_is_decoded() {
        for (text, want) in [
            ("", ""),
            ("YQ==", "a"),
            ("YWI=", "ab"),
            ("YWJj", "abc"),
            ("YWJjZA==", "abcd"),
        ] {
            assert_eq!(base64(text), want.as_bytes());
        }
        assert_eq!(
            seconds("2024-05-02T00:00:00.25Z"),
            Some(2.0 * 86400.0 + 0.25)
        );
    }
}
