//! Platforms: names, normal form and which images run where.
//!
//! The rules are those of containerd's `platforms` package, which every client uses: names are lower-cased and
//! aliases resolved (`x86_64` → `amd64`, `aarch64` → `arm64`, `armhf` → `arm/v7`), and a host also runs what its
//! architecture contains (amd64 runs 386, arm/v7 runs arm/v6, arm64 runs arm).

mod text;
mod windows;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use text::PlatformError;

/// An operating system on an architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `linux`, …
    #[serde(default)]
    pub os: String,
    /// Windows' build number.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Windows' features.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const KNOWN_ARCH: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// Makes a platform from its parts as they are.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self {
            architecture: architecture.into(),
            os: os.into(),
            variant: variant.into(),
            ..Self::default()
        }
    }

    /// Returns the platform this program was built for, in normal form.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self::new("linux", architecture, "").normalize()
    }

    /// Returns the normal form: aliases resolved, default variants dropped or added as containerd does.
    #[must_use]
    pub fn normalize(&self) -> Self {
        let (architecture, variant) = normal_arch(&self.architecture, &self.variant);
        let mut os_features = self.os_features.clone();
        os_features.sort();
        os_features.dedup();
        Self {
            os: normal_os(&self.os),
            architecture,
            variant,
            os_features,
            ..self.clone()
        }
    }

    /// Returns the platforms that run on this one, best first, itself included.
    pub fn runs(&self) -> Vec<Self> {
        vector(&self.normalize())
    }

    /// Returns the matcher for images that run on this platform.
    pub fn matcher(&self) -> PlatformMatcher {
        PlatformMatcher {
            ordered: self.runs(),
        }
    }

    fn takes(&self, other: &Self) -> bool {
        let other = other.normalize();
        let own = self.normalize();
        own.os == other.os
            && own.architecture == other.architecture
            && own.variant == other.variant
            && (own.os != "windows" || windows::runs(&own.os_version, &other.os_version))
            && other
                .features()
                .all(|feature| own.os_features.contains(feature))
    }

    /// What an image needs of its system. Windows' `win32k` is everywhere.
    fn features(&self) -> impl Iterator<Item = &String> {
        self.os_features
            .iter()
            .filter(|feature| self.os != "windows" || *feature != "win32k")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format())
    }
}

/// Chooses among platforms: which run on the wanted one, and which of them is best.
#[derive(Debug, Clone)]
pub struct PlatformMatcher {
    ordered: Vec<Platform>,
}

impl PlatformMatcher {
    /// Returns how well `candidate` fits, 0 best, or nothing if it does not run. Of one architecture, what uses more of the
    /// system's features fits better.
    pub fn rank(&self, candidate: &Platform) -> Option<usize> {
        let place = self.ordered.iter().position(|p| p.takes(candidate))?;
        let all = self.ordered.get(place).map_or(0, |p| p.os_features.len());
        let unused = all.saturating_sub(candidate.features().count());
        Some(place * (all + 1) + unused)
    }

    /// Returns whether `candidate` runs on the wanted platform.
    pub fn matches(&self, candidate: &Platform) -> bool {
        self.rank(candidate).is_some()
    }
}

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "" => "linux".into(),
        "macos" => "darwin".into(),
        other => other.into(),
    }
}

fn normal_arch(arch: &str, variant: &str) -> (String, String) {
    let arch = arch.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (a, v) = match (arch.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (a, v) => (a, v),
    };
    (a.to_owned(), v.to_owned())
}

fn vector(platform: &Platform) -> Vec<Platform> {
    let with_arch = |architecture: &str, variant: String| Platform {
        architecture: architecture.into(),
        variant,
        ..platform.clone()
    };
    let number = |text: &str| text.strip_prefix('v').unwrap_or(text).parse::<u32>().ok();
    match platform.architecture.as_str() {
        "amd64" => {
            let mut all = vec![platform.clone()];
            if let Some(version) = number(&platform.variant) {
                all.extend(
                    (1..version)
                        .rev()
                        .map(|v| with_arch("amd64", format!("v{v}"))),
                );
            }
            all.push(with_arch("386", String::new()));
            all
        }
        "arm" => {
            let mut all = vec![platform.clone()];
            if let Some(version) = number(&platform.variant) {
                all.extend(
                    (5..version)
                        .rev()
                        .map(|v| with_arch("arm", format!("v{v}"))),
                );
            }
            all
        }
        "arm64" => {
            let variant = if platform.variant.is_empty() {
                "v8"
            } else {
                &platform.variant
            };
            let (major, minor) = variant.strip_prefix('v').map_or((0, 0), |v| {
                let (major, minor) = v.split_once('.').unwrap_or((v, "0"));
                (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
            });
            let steps: Vec<(u32, u32)> = match (major, minor) {
                (8, 0..=9) => (0..=minor).rev().map(|m| (8, m)).collect(),
                (9, 0..=7) => {
                    let eights: u32 = if minor <= 4 { minor + 5 } else { 9 };
                    (0..=minor)
                        .rev()
                        .map(|m| (9, m))
                        .chain((0..=eights).rev().map(|m| (8, m)))
                        .collect()
                }
                _ => Vec::new(),
            };
            let mut all: Vec<Platform> = steps
                .into_iter()
                .map(|(major, minor)| {
                    with_arch(
                        "arm64",
                        if minor == 0 {
                            format!("v{major}")
                        } else {
                            format!("v{major}.{minor}")
                        },
                    )
                })
                .collect();
            let arm = if major == 8 || major == 9 {
                "v8".to_owned()
            } else {
                variant.to_owned()
            };
            all.extend(vector(&with_arch("arm", arm)));
            all
        }
        _ => vec![platform.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_run_what_their_architecture_contains() {
        let amd64 = Platform::parse("linux/amd64").unwrap().matcher();
        assert_eq!(
            amd64.rank(&Platform::parse("linux/amd64").unwrap()),
            Some(0)
        );
        assert_eq!(amd64.rank(&Platform::parse("linux/386").unwrap()), Some(1));
        assert!(!amd64.matches(&Platform::parse("linux/arm64").unwrap()));
        let arm64 = Platform::parse("linux/arm64").unwrap().matcher();
        assert_eq!(
            arm64.rank(&Platform::parse("linux/arm64/v8").unwrap()),
            Some(0)
        );
        assert!(arm64.matches(&Platform::parse("linux/arm/v6").unwrap()));
    }

    #[test]
    fn images_that_use_features_of_the_system_are_preferred_where_it_has_them() {
        let with = |features: &[&str]| Platform {
            os_features: features.iter().map(|f| (*f).to_owned()).collect(),
            ..Platform::new("linux", "amd64", "")
        };
        let plain = with(&[]).matcher();
        assert!(plain.matches(&with(&[])) && !plain.matches(&with(&["a"])));
        let two = with(&["a", "b"]).matcher();
        assert_eq!(two.rank(&with(&["b", "a"])), Some(0));
        assert_eq!(two.rank(&with(&["a"])), Some(1));
        assert_eq!(two.rank(&with(&[])), Some(2));
        assert_eq!(two.rank(&with(&["c"])), None);
        let windows = Platform::new("windows", "amd64", "").matcher();
        let win32k = Platform {
            os: "windows".into(),
            ..with(&["win32k"])
        };
        assert!(windows.matches(&win32k));
    }
}
