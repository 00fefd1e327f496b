//! Platforms as people write them: `os[(version[+feature]…)][/arch[/variant]]`, or an architecture alone.

use std::borrow::Cow;

use gostd::strconv::quote;

use crate::ErrorKind;

use super::{KNOWN_ARCH, KNOWN_OS, Platform, normal_arch, normal_os};

/// A text is not a platform. The messages are containerd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// The operating system has characters that are not allowed.
    #[error(
        r#"{} is an invalid OS component of {}: OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$": invalid argument"#,
        quote(text),
        quote(whole)
    )]
    Os {
        /// The component.
        text: String,
        /// The whole text.
        whole: String,
    },
    /// Another component has characters that are not allowed.
    #[error(
        "{} is an invalid component of {}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument",
        quote(text),
        quote(whole)
    )]
    Component {
        /// The component.
        text: String,
        /// The whole text.
        whole: String,
    },
    /// A percent sign in the version is not followed by two hexadecimal digits.
    #[error(
        "{} has an invalid OS version {}: invalid URL escape {}",
        quote(whole),
        quote(text),
        quote(escape)
    )]
    Version {
        /// The version.
        text: String,
        /// The whole text.
        whole: String,
        /// The text after the percent sign.
        escape: String,
    },
    /// A feature has an invalid escape.
    #[error(
        "{} has invalid OS features: invalid os feature {}: invalid URL escape {}",
        quote(whole),
        quote(text),
        quote(escape)
    )]
    Feature {
        /// The feature.
        text: String,
        /// The whole text.
        whole: String,
        /// The text after the percent sign.
        escape: String,
    },
    /// The one word given is neither an operating system nor an architecture.
    #[error("{}: unknown operating system or architecture: invalid argument", quote(.0))]
    Unknown(String),
    /// There are more than three components.
    #[error("{}: cannot parse platform specifier: invalid argument", quote(.0))]
    Shape(String),
    /// A wildcard stands where one platform is needed.
    #[error("{}: wildcards not yet supported: invalid argument", quote(.0))]
    Wildcard(String),
}

impl PlatformError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Os { .. }
            | Self::Component { .. }
            | Self::Version { .. }
            | Self::Feature { .. }
            | Self::Unknown(_)
            | Self::Shape(_) => ErrorKind::Invalid,
            Self::Wildcard(_) => ErrorKind::Unsupported,
        }
    }
}

impl Platform {
    /// Parses `os/arch/variant`, `os/arch`, `os` or `arch`, filling what is missing from the host.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        if text.contains('*') {
            return Err(PlatformError::Wildcard(text.into()));
        }
        // Text after the third slash is one part, as in the reference's errors.
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let mut platform = system(parts[0], text)?;
        for part in &parts[1..] {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            if part.is_empty() || !part.bytes().all(fits) {
                return Err(PlatformError::Component {
                    text: (*part).into(),
                    whole: text.into(),
                });
            }
        }
        let host = Self::host();
        (platform.architecture, platform.variant) = match parts.as_slice() {
            [_] if KNOWN_OS.contains(&platform.os.as_str()) => (host.architecture, host.variant),
            [arch] => {
                let (architecture, variant) = normal_arch(arch, "");
                if !KNOWN_ARCH.contains(&architecture.as_str()) {
                    return Err(PlatformError::Unknown((*arch).into()));
                }
                platform.os = host.os;
                without_usual_variant(architecture, variant)
            }
            [_, arch] => {
                let (architecture, variant) = normal_arch(arch, "");
                without_usual_variant(architecture, variant)
            }
            [_, arch, variant] => match normal_arch(arch, variant) {
                (arch, variant) if arch == "arm64" && variant.is_empty() => (arch, "v8".into()),
                normal => normal,
            },
            _ => return Err(PlatformError::Shape(text.into())),
        };
        Ok(platform)
    }

    /// Returns `os/arch[/variant]`, without version and features.
    pub fn format(&self) -> String {
        if self.os.is_empty() {
            return "unknown".into();
        }
        self.with_system(&self.os)
    }

    /// Returns `os[(version[+feature]…)]/arch[/variant]`, which [`Platform::parse`] reads.
    pub fn format_all(&self) -> String {
        if self.os.is_empty() {
            return "unknown".into();
        }
        let mut features: Vec<&String> = self.os_features.iter().collect();
        features.retain(|feature| !feature.is_empty());
        features.sort();
        features.dedup();
        if self.os_version.is_empty() && features.is_empty() {
            return self.format();
        }
        let mut os = format!("{}({}", self.os, escaped(&self.os_version));
        for feature in features {
            os.push('+');
            os.push_str(&escaped(feature));
        }
        os.push(')');
        self.with_system(&os)
    }

    fn with_system(&self, os: &str) -> String {
        let rest = [&self.architecture, &self.variant];
        let rest = rest.into_iter().filter(|part| !part.is_empty());
        rest.fold(os.to_owned(), |text, part| format!("{text}/{part}"))
    }
}

/// The variant of `arm` is `v7` if none is given.
fn without_usual_variant(architecture: String, variant: String) -> (String, String) {
    if architecture == "arm" && variant == "v7" {
        (architecture, String::new())
    } else {
        (architecture, variant)
    }
}

/// Reads `os[(version[+feature]…)]`.
fn system(part: &str, whole: &str) -> Result<Platform, PlatformError> {
    let wrong = || PlatformError::Os {
        text: part.into(),
        whole: whole.into(),
    };
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let option = |b: u8| is_word(b) || matches!(b, b'.' | b'%');
    let (os, options) = match part.split_once('(') {
        Some((os, rest)) => (os, Some(rest.strip_suffix(')').ok_or_else(wrong)?)),
        None => (part, None),
    };
    if os.is_empty() || !os.bytes().all(is_word) {
        return Err(wrong());
    }
    let mut platform = Platform {
        os: normal_os(os),
        ..Platform::default()
    };
    let mut options = options.unwrap_or_default().split('+');
    let version = options.next().unwrap_or_default();
    if !version.bytes().all(option) {
        return Err(wrong());
    }
    for feature in options {
        if feature.is_empty() || !feature.bytes().all(option) {
            return Err(wrong());
        }
        let feature = unescaped(feature).map_err(|escape| PlatformError::Feature {
            text: feature.into(),
            whole: whole.into(),
            escape,
        })?;
        platform.os_features.push(feature);
    }
    platform.os_version = unescaped(version).map_err(|escape| PlatformError::Version {
        text: version.into(),
        whole: whole.into(),
        escape,
    })?;
    Ok(platform)
}

/// The characters that mean something in a platform's text, as URLs write them.
fn escaped(option: &str) -> Cow<'_, str> {
    let special = ['%', '+', '(', ')', '/'];
    if !option.contains(special) {
        return Cow::Borrowed(option);
    }
    let mut out = String::new();
    for c in option.chars() {
        if special.contains(&c) {
            out.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The error is the invalid escape.
fn unescaped(option: &str) -> Result<String, String> {
    let mut out = Vec::new();
    let mut parts = option.split('%');
    out.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let code = part
            .get(..2)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(byte) = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) else {
            return Err(format!("%{}", part.get(..2).unwrap_or(part)));
        };
        out.push(byte);
        out.extend(part.bytes().skip(2));
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_names_are_parsed_and_normalized() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("linux/arm64/9", "linux/arm64/v9"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/arm", "linux/arm"),
            ("aarch64", "linux/arm64"),
            ("windows/amd64", "windows/amd64"),
            ("Windows(10.0.20348)/amd64", "windows(10.0.20348)/amd64"),
            ("linux(+b+a+b)/amd64", "linux(+a+b)/amd64"),
            (
                "windows(10%2f%2B+win32k)/amd64",
                "windows(10%2F%2B+win32k)/amd64",
            ),
        ] {
            assert_eq!(Platform::parse(text).unwrap().format_all(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_platform_is_refused_in_containerds_words() {
        for (text, want) in [
            (
                "a/b/c/d",
                r#""a/b/c/d": cannot parse platform specifier: invalid argument"#,
            ),
            (
                "linux/*",
                r#""linux/*": wildcards not yet supported: invalid argument"#,
            ),
            (
                "vax",
                r#""vax": unknown operating system or architecture: invalid argument"#,
            ),
            (
                "no such",
                r#""no such" is an invalid OS component of "no such": OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$": invalid argument"#,
            ),
            (
                "linux/a b",
                r#""a b" is an invalid component of "linux/a b": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument"#,
            ),
            (
                "linux(1%2)/amd64",
                r#""linux(1%2)/amd64" has an invalid OS version "1%2": invalid URL escape "%2""#,
            ),
        ] {
            assert_eq!(Platform::parse(text).unwrap_err().to_string(), want);
        }
        for text in [
            "linux(",
            "linux(1",
            "linux(1)x",
            "linux(+)",
            "(1)",
            "linux()x/amd64",
            "",
        ] {
            let error = Platform::parse(text).unwrap_err();
            assert!(matches!(error, PlatformError::Os { .. }), "{text}: {error}");
        }
    }
}
