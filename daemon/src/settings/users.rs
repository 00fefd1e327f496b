//! User namespaces of steps.

use executor::IdRange;

use super::SettingsError;

/// Whether steps get a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespaces {
    /// They share the host's users.
    Off,
    /// Steps have one where the kernel and the file system can map ids.
    Auto,
    /// Steps have one, or the daemon does not start.
    On,
}

/// Above what systems give to people and most containers, up to the last id that there is: what steps lose are ids that nobody has.
pub(super) const IDS: IdRange = IdRange {
    base: 0x1000_0000,
    count: u32::MAX - 0x1000_0000,
};
/// What an image needs: the ids up to `nobody`.
const LEAST_IDS: u32 = 65536;

pub(super) fn mode(text: &str) -> Result<UserNamespaces, SettingsError> {
    match text {
        "off" | "false" => Ok(UserNamespaces::Off),
        "auto" => Ok(UserNamespaces::Auto),
        "on" | "true" => Ok(UserNamespaces::On),
        _ => Err(SettingsError::Flag {
            flag: "oci-worker-user-namespaces",
            message: format!("expected off, auto or on, got {text:?}"),
        }),
    }
}

pub(super) fn range(text: &str) -> Result<IdRange, SettingsError> {
    let range = text.split_once(':').and_then(|(base, count)| {
        Some(IdRange {
            base: base.parse().ok()?,
            count: count.parse().ok()?,
        })
    });
    let fits = |range: &IdRange| {
        // The last number is no id: it stands for "as it is" in chown(2).
        range.base > 0 && range.count >= LEAST_IDS && range.base.checked_add(range.count).is_some()
    };
    range.filter(fits).ok_or_else(|| SettingsError::Value {
        key: "worker.oci.userNamespaceIds",
        message: format!(
            "expected BASE:COUNT with at least {LEAST_IDS} ids, none of them 0 or above 4294967294, got {text:?}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Args, Defaults, Settings, file::File};

    fn resolve(args: &[&str], text: &str) -> Settings {
        let args = Args::parse_from(std::iter::once("buildkitd").chain(args.iter().copied()));
        let (file, warnings) = File::parse(text).unwrap();
        Settings::resolve(&args, file, warnings, &Defaults::of("buildkitd")).unwrap()
    }

    #[test]
    fn a_range_of_ids_that_has_roots_or_too_few_is_refused() {
        for (text, want) in [
            ("268435456:4026531839", Some((IDS.base, IDS.count))),
            ("268435456:4026531840", None),
            ("100000:65536", Some((100_000, 65536))),
            ("100000:65535", None),
            ("0:65536", None),
            ("4294901760:65536", None),
            ("4294967295:65536", None),
            ("100000", None),
            ("-1:65536", None),
            ("", None),
        ] {
            let parsed = range(text).ok().map(|range| (range.base, range.count));
            assert_eq!(parsed, want, "{text:?}");
        }
        let file =
            "[worker.oci]\n  userNamespaces = \"auto\"\n  userNamespaceIds = \"100000:65536\"\n";
        let worker = resolve(&[], file).worker;
        assert_eq!(worker.user_namespaces, UserNamespaces::Auto);
        assert_eq!(worker.user_namespace_ids.base, 100_000);
        let worker = resolve(&["--oci-worker-user-namespaces", "on"], file).worker;
        assert_eq!(worker.user_namespaces, UserNamespaces::On);
        assert_eq!(
            resolve(&[], "").worker.user_namespaces,
            UserNamespaces::Auto
        );
        let worker = resolve(&[], "[worker.oci]\n  userNamespaces = \"off\"\n").worker;
        assert_eq!(worker.user_namespaces, UserNamespaces::Off);
    }
}
