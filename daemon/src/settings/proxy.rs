//! The proxy network of steps.

use proxy::AllowList;

use super::{Args, SettingsError};

/// Which builds are on the proxy network, and which hosts it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// Whether all builds are on it; otherwise only those that ask for it.
    pub all_builds: bool,
    /// The hosts that steps can reach by it.
    pub allow: AllowList,
}

impl ProxySettings {
    pub(super) fn resolve(
        args: &Args,
        enabled: bool,
        allow: Option<&[String]>,
    ) -> Result<Self, SettingsError> {
        let list = allow.map(|patterns| AllowList::parse(patterns.iter().map(String::as_str)));
        let list = list.transpose().map_err(|error| SettingsError::Value {
            key: "proxyNetworkAllow",
            message: error.to_string(),
        })?;
        Ok(Self {
            all_builds: args.proxy_network.unwrap_or(enabled),
            allow: list.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::file::File;

    fn resolved(flags: &[&str], text: &str) -> Result<ProxySettings, SettingsError> {
        let args = Args::parse_from(["rbuildd"].iter().chain(flags));
        let (file, warnings) = File::parse(text).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let allow = file.proxy_network_allow.as_deref();
        ProxySettings::resolve(&args, file.proxy_network, allow)
    }

    #[test]
    fn the_flag_counts_before_the_key_and_without_both_builds_ask() {
        for (flags, text, all_builds) in [
            (&[][..], "", false),
            (&[], "proxyNetwork = true", true),
            (&["--proxy-network"], "", true),
            (&["--proxy-network=false"], "proxyNetwork = true", false),
        ] {
            let settings = resolved(flags, text).unwrap();
            assert_eq!(settings.all_builds, all_builds, "{flags:?} {text}");
            assert_eq!(settings.allow, AllowList::everything());
        }
    }

    #[test]
    fn an_allow_list_is_read_and_a_pattern_that_names_no_host_stops_the_daemon() {
        let text = "proxyNetworkAllow = ['*.debian.org', 'pypi.org:443']";
        let allow = resolved(&[], text).unwrap().allow;
        assert_eq!(
            allow,
            AllowList::parse(["*.debian.org", "pypi.org:443"]).unwrap()
        );
        let nothing = resolved(&[], "proxyNetworkAllow = []").unwrap().allow;
        assert_ne!(nothing, AllowList::everything());
        let error = resolved(&[], "proxyNetworkAllow = ['https://pypi.org']").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("proxyNetworkAllow: invalid host pattern `https://pypi.org`"),
            "{error}"
        );
    }
}
