//! Which builds of Windows run images of which. Facts: containerd's `platform_windows_compat.go`, Microsoft's "Windows container
//! version compatibility".

/// Windows Server 2022. Before it, a host runs images of its own build only.
const SERVER_2022: u16 = 20348;

/// `major.minor.build…`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Version {
    major: u8,
    minor: u8,
    build: u16,
}

impl Version {
    /// All fields are zero when the text is not a version.
    fn parse(text: &str) -> Self {
        let mut parts = text.split('.');
        let mut next = || parts.next();
        let read = |major: &str, minor: &str, build: &str| {
            Some(Self {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                build: build.parse().ok()?,
            })
        };
        match (next(), next(), next()) {
            (Some(major), Some(minor), Some(build)) => read(major, minor, build),
            _ => None,
        }
        .unwrap_or_default()
    }
}

/// Whether Windows of version `host` runs images of version `image`. Unknown versions fit any.
pub(super) fn runs(host: &str, image: &str) -> bool {
    let host = Version::parse(host);
    if host == Version::default() || image.is_empty() {
        return true;
    }
    let image = Version::parse(image);
    if (host.major, host.minor) != (image.major, image.minor) {
        return false;
    }
    // From Server 2022 on, hosts also run what is newer than the long-term release before their own.
    let oldest = if host.build < SERVER_2022 {
        host.build
    } else {
        SERVER_2022
    };
    (oldest..=host.build).contains(&image.build)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_2025: u16 = 26100;

    #[test]
    fn newer_hosts_run_images_of_the_release_before() {
        let server_2025 = format!("10.0.{SERVER_2025}");
        for (host, image, want) in [
            ("10.0.17763.1", "10.0.17763.2", true),
            ("10.0.17763", "10.0.20348", false),
            ("10.0.20348", "10.0.17763", false),
            ("10.0.22621", "10.0.20348.5", true),
            (&server_2025, "10.0.25398", true),
            ("10.0.26200", "10.0.20348", true),
            ("10.0.20348", &server_2025, false),
            ("10.1.20348", "10.0.20348", false),
            ("", "10.0.20348", true),
            ("10.0", "10.0.20348", true),
            ("10.0.20348", "", true),
            ("10.0.20348", "odd", false),
        ] {
            assert_eq!(runs(host, image), want, "{host} {image}");
        }
    }
}
