//! The /etc/resolv.conf of a container.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::access::NetworkMode;
use crate::error::ExecError;
use crate::network::ContainerNetwork;

/// What the configuration says instead of the host's file; an empty list leaves the host's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsConfig {
    /// Addresses of nameservers.
    pub nameservers: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
    /// Domains to search.
    pub search_domains: Vec<String>,
}

const HOST_FILE: &str = "/etc/resolv.conf";

/// Where systemd-resolved keeps the servers that its stub forwards to.
const RESOLVED_FILE: &str = "/run/systemd/resolve/resolv.conf";

const RESOLVED_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// Servers for a container on its own network whose host offers only loopback ones.
const PUBLIC_NAMESERVERS: [&str; 4] = [
    "8.8.8.8",
    "8.8.4.4",
    "2001:4860:4860::8888",
    "2001:4860:4860::8844",
];

#[derive(Debug, Default, PartialEq, Eq)]
struct ResolvConf {
    nameservers: Vec<IpAddr>,
    search: Vec<String>,
    options: Vec<String>,
    /// Lines with other keywords, as they are.
    other_lines: Vec<String>,
}

/// The file's contents, from the host's file and the configuration: a container on the host's network may use loopback servers, and one
/// behind a bridge asks the forwarder there, which asks those.
pub(crate) fn contents(
    config: &DnsConfig,
    network: &ContainerNetwork,
) -> Result<String, ExecError> {
    let mode = if network.is_host() {
        NetworkMode::Host
    } else {
        NetworkMode::None
    };
    let main = load(HOST_FILE);
    let host = if mode != NetworkMode::Host && main.nameservers == [RESOLVED_STUB] {
        load(RESOLVED_FILE)
    } else {
        main
    };
    let mut conf = apply(host, config, mode)?;
    if let Some(forwarder) = network.nameserver() {
        conf.nameservers = vec![forwarder.into()];
    }
    Ok(render(&conf))
}

fn load(path: impl AsRef<Path>) -> ResolvConf {
    parse(
        &fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default(),
    )
}

fn parse(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let to_list =
            |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect::<Vec<_>>();
        match words.next() {
            None => {}
            Some("nameserver") => conf
                .nameservers
                .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
            Some("search" | "domain") => {
                let domains = to_list(words);
                if !domains.is_empty() {
                    conf.search = domains;
                }
            }
            Some("options") => conf.options.extend(to_list(words)),
            Some(_) => conf.other_lines.push(line.to_owned()),
        }
    }
    conf
}

fn apply(
    mut conf: ResolvConf,
    config: &DnsConfig,
    mode: NetworkMode,
) -> Result<ResolvConf, ExecError> {
    if !config.nameservers.is_empty() {
        conf.nameservers = config
            .nameservers
            .iter()
            .map(|text| {
                // The dropped error says only that it is no address.
                text.parse()
                    .map_err(|_| ExecError::Nameserver(text.clone()))
            })
            .collect::<Result<_, _>>()?;
    }
    if !config.search_domains.is_empty() {
        conf.search = config
            .search_domains
            .iter()
            .filter(|domain| *domain != ".")
            .cloned()
            .collect();
    }
    if !config.options.is_empty() {
        conf.options.clone_from(&config.options);
    }
    if config.nameservers.is_empty() && (mode != NetworkMode::Host || conf.nameservers.is_empty()) {
        conf.nameservers.retain(|address| !address.is_loopback());
        if conf.nameservers.is_empty() {
            conf.nameservers = PUBLIC_NAMESERVERS
                .iter()
                .filter_map(|address| address.parse().ok())
                .collect();
        }
    }
    Ok(conf)
}

fn render(conf: &ResolvConf) -> String {
    let mut lines: Vec<String> = conf
        .nameservers
        .iter()
        .map(|address| format!("nameserver {address}"))
        .collect();
    if !conf.search.is_empty() {
        lines.push(format!("search {}", conf.search.join(" ")));
    }
    if !conf.options.is_empty() {
        lines.push(format!("options {}", conf.options.join(" ")));
    }
    lines.extend(conf.other_lines.iter().cloned());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_kept_on_the_hosts_network_only() {
        let host = "# c\nnameserver 127.0.0.11\nnameserver 10.0.0.2\nnameserver nonsense\nsearch a\ndomain b c\noptions ndots:1\nsortlist x\n";
        let defaults = DnsConfig::default();
        let text = |source: &str, config: &DnsConfig, mode| {
            render(&apply(parse(source), config, mode).unwrap())
        };
        let tail = "search b c\noptions ndots:1\nsortlist x\n";
        assert_eq!(
            text(host, &defaults, NetworkMode::Host),
            format!("nameserver 127.0.0.11\nnameserver 10.0.0.2\n{tail}")
        );
        assert_eq!(
            text(host, &defaults, NetworkMode::None),
            format!("nameserver 10.0.0.2\n{tail}")
        );
        let public: String = PUBLIC_NAMESERVERS
            .iter()
            .map(|address| format!("nameserver {address}\n"))
            .collect();
        assert_eq!(
            text("nameserver ::1\n", &defaults, NetworkMode::None),
            public
        );
        assert_eq!(text("", &defaults, NetworkMode::Host), public);
        let configured = DnsConfig {
            nameservers: vec!["127.0.0.1".into()],
            search_domains: vec![".".into()],
            ..defaults
        };
        assert_eq!(
            text(host, &configured, NetworkMode::None),
            "nameserver 127.0.0.1\noptions ndots:1\nsortlist x\n"
        );
        let bad = DnsConfig {
            nameservers: vec!["x".into()],
            ..DnsConfig::default()
        };
        assert!(apply(parse(host), &bad, NetworkMode::Host).is_err());
    }

    #[test]
    fn each_setting_replaces_what_the_host_says() {
        let host = "nameserver 10.0.0.1\nsearch host.example\noptions ndots:5\n";
        let list = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        for (nameservers, search, options, text) in [
            (&[][..], &[][..], &[][..], host),
            (
                &["1.1.1.1", "fd00::1"],
                &[],
                &[],
                "nameserver 1.1.1.1\nnameserver fd00::1\nsearch host.example\noptions ndots:5\n",
            ),
            (
                &[],
                &["a", "b"],
                &[],
                "nameserver 10.0.0.1\nsearch a b\noptions ndots:5\n",
            ),
            (&[], &["."], &[], "nameserver 10.0.0.1\noptions ndots:5\n"),
            (
                &[],
                &[],
                &["rotate", "timeout:1"],
                "nameserver 10.0.0.1\nsearch host.example\noptions rotate timeout:1\n",
            ),
        ] {
            let config = DnsConfig {
                nameservers: list(nameservers),
                search_domains: list(search),
                options: list(options),
            };
            let conf = apply(parse(host), &config, NetworkMode::None).unwrap();
            assert_eq!(render(&conf), text);
        }
        let bad = DnsConfig {
            nameservers: list(&["10.0.0.1", "host.example"]),
            ..DnsConfig::default()
        };
        let error = apply(parse(host), &bad, NetworkMode::None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bad nameserver address: \"host.example\""
        );
        assert_eq!(error.kind(), oci::ErrorKind::Invalid);
    }
}
