//! The /etc/hosts of a container.

use std::fmt::Write;
use std::net::IpAddr;

/// The host name a container has when none is chosen.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// The file's contents.
pub fn contents(hostname: &str, extra: &[(String, IpAddr)]) -> String {
    let hostname = if hostname.is_empty() {
        DEFAULT_HOSTNAME
    } else {
        hostname
    };
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (host, address) in extra {
        let _ = writeln!(text, "{address}\t{host}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_names_the_container_and_the_extra_hosts() {
        let extra = [
            ("db".to_owned(), "10.0.0.7".parse().unwrap()),
            ("six".to_owned(), "fe80::1".parse().unwrap()),
        ];
        let want = "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\nfe80::1\tsix\n";
        assert_eq!(super::contents("", &extra), want);
        assert!(super::contents("builder", &[]).starts_with("127.0.0.1\tlocalhost builder\n"));
    }
}
