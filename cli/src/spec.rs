//! Values of flags: `key=value,key=value`, sizes, times, limits.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{CacheSpec, ExporterSpec};

/// Why a flag's value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {value:?} of --{flag}: {reason}")]
pub struct SpecError {
    /// The flag without its dashes.
    pub flag: &'static str,
    /// The value as it was given.
    pub value: String,
    /// Why it is refused.
    pub reason: String,
}

impl SpecError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        oci::ErrorKind::Invalid
    }

    /// Refuses a value.
    pub fn new(flag: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self {
            flag,
            value: value.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Splits a line of comma separated values; quoted ones may hold commas, and `""` is a quote.
#[must_use]
pub fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(last) = fields.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                let _quote = chars.next();
                last.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => last.push(c),
        }
    }
    fields
}

/// Splits `key=value` pairs.
pub fn pairs(flag: &'static str, line: &str) -> Result<BTreeMap<String, String>, SpecError> {
    fields(line)
        .iter()
        .map(|field| {
            let (key, value) = field.split_once('=').ok_or_else(|| {
                SpecError::new(flag, line, format!("{field:?} is no key=value pair"))
            })?;
            Ok((key.trim().to_ascii_lowercase(), value.to_owned()))
        })
        .collect()
}

/// `-o`: a folder, `-`, or `type=…`. The destination stays in `dest`.
pub fn output(line: &str) -> Result<ExporterSpec, SpecError> {
    let spec = |kind: &str, dest: &str| ExporterSpec {
        kind: kind.into(),
        attrs: [("dest".to_owned(), dest.to_owned())].into(),
    };
    if line == "-" {
        return Ok(spec("tar", "-"));
    }
    if !line.contains('=') {
        if line.is_empty() || line.contains(',') {
            return Err(SpecError::new("output", line, "no destination"));
        }
        return Ok(spec("local", line));
    }
    let mut attrs = pairs("output", line)?;
    let mut kind = attrs
        .remove("type")
        .ok_or_else(|| SpecError::new("output", line, "type is required"))?;
    if let Some(dest) = attrs.remove("output") {
        attrs.entry("dest".into()).or_insert(dest);
    }
    if kind == "registry" {
        kind = "image".into();
        attrs.insert("push".into(), "true".into());
    }
    if matches!(kind.as_str(), "local" | "tar" | "oci") && !attrs.contains_key("dest") {
        if kind == "local" {
            return Err(SpecError::new(
                "output",
                line,
                "dest is required for local output",
            ));
        }
        attrs.insert("dest".into(), "-".into());
    }
    Ok(ExporterSpec { kind, attrs })
}

/// `--cache-from`, `--cache-to`.
pub fn cache(flag: &'static str, line: &str) -> Result<CacheSpec, SpecError> {
    if !line.contains('=') {
        return Ok(CacheSpec {
            kind: "registry".into(),
            attrs: [("ref".to_owned(), line.to_owned())].into(),
        });
    }
    let mut attrs = pairs(flag, line)?;
    let kind = attrs
        .remove("type")
        .ok_or_else(|| SpecError::new(flag, line, "type is required"))?;
    Ok(CacheSpec { kind, attrs })
}

/// A number of bytes: `64m`, `1g`, `512`.
pub fn bytes(flag: &'static str, text: &str) -> Result<u64, SpecError> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = lower.get(digits.len()..).unwrap_or_default();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(SpecError::new(flag, text, "unknown unit")),
    };
    digits
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| SpecError::new(flag, text, "not a number of bytes"))
}

/// A time as Go writes it, and days before it: `90s`, `1h30m`, `7d`, `7d12h`.
pub fn duration(flag: &'static str, text: &str) -> Result<Duration, SpecError> {
    let bad = || SpecError::new(flag, text, "not a time like 12h or 7d");
    let parse = |text: &str| gostd::time::parse_std_duration(text).ok_or_else(bad);
    let text = text.trim();
    let Some((days, rest)) = text.split_once('d') else {
        return parse(text);
    };
    if !days.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(bad());
    }
    let days = parse(&format!("{days}h"))?.checked_mul(24);
    let rest = if rest.is_empty() {
        Duration::ZERO
    } else {
        parse(rest)?
    };
    days.and_then(|days| days.checked_add(rest)).ok_or_else(bad)
}

/// `name=soft[:hard]` as the frontend wants it.
pub fn ulimit(text: &str) -> Result<String, SpecError> {
    let bad = |reason: &str| SpecError::new("ulimit", text, reason);
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| bad("expected name=soft[:hard]"))?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    // Of the cause's words (`invalid digit found in string`) none helps.
    let number = |s: &str| s.parse::<i64>().map_err(|_| bad("limits are numbers"));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(bad("the soft limit is above the hard one"));
    }
    Ok(format!("{name}={soft}:{hard}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_have_short_and_long_forms() {
        let of = |line: &str| output(line).map(|s| (s.kind, s.attrs));
        let attrs = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(of("out"), Ok(("local".into(), attrs(&[("dest", "out")]))));
        assert_eq!(of("-"), Ok(("tar".into(), attrs(&[("dest", "-")]))));
        assert_eq!(
            of("type=oci,dest=x.tar"),
            Ok(("oci".into(), attrs(&[("dest", "x.tar")])))
        );
        assert_eq!(
            of(r#"type=image,"name=a,b",push=true"#),
            Ok(("image".into(), attrs(&[("name", "a,b"), ("push", "true")])))
        );
        assert!(of("type=local").is_err());
        assert!(of("dest=x").is_err());
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(bytes("shm-size", "64m"), Ok(64 << 20));
        assert_eq!(bytes("shm-size", "2GiB"), Ok(2 << 30));
        assert!(bytes("shm-size", "12q").is_err());
        let seconds = |t: &str| duration("keep-duration", t).map(|d| d.as_secs());
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(seconds("7d"), Ok(604_800));
        assert!(seconds("7").is_err());
        assert_eq!(ulimit("nofile=10"), Ok("nofile=10:10".into()));
        assert!(ulimit("nofile=10:5").is_err());
    }
}
