//! The address of the debugging listener, and which pages are shown to those who can reach it.
//!
//! Its pages show names of builds and steps, and two of them do something; there is no login. So they are for the owner of a unix
//! socket and for this machine. Metrics and health name nobody: with [`Settings::allow_insecure_debug_address`] others get those.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use tokio::net::TcpListener;

use crate::listen::{self, ListenError, Listener};
use crate::settings::Settings;

/// What a listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// Everything, to whoever may open the unix socket.
    Socket,
    /// Everything, to programs of this machine.
    Loopback,
    /// Metrics and health; the sentence says why not more.
    MetricsOnly(&'static str),
}

const REMOTE: &str = "others than this machine can reach the address of the debugging listener: use a unix socket or a loopback address for pages below /debug";
const STEPS: &str = "build steps share this host's network and could read this page: use a unix socket for the debugging listener, or insist with --allow-insecure-loopback";

/// Opens the debugging listener, if there is to be one.
pub(crate) fn open(settings: &Settings) -> Result<Option<(Listener, Exposure)>, ListenError> {
    let Some(address) = &settings.debug_address else {
        return Ok(None);
    };
    if let Some(path) = address.strip_prefix("unix://") {
        let listener = listen::unix(address, Path::new(path), settings.socket_owner)?;
        return Ok(Some((listener, Exposure::Socket)));
    }
    // As with BuildKit, a bare `host:port` is TCP.
    let host = address.strip_prefix("tcp://").unwrap_or(address);
    if host.contains("://") {
        return Err(ListenError::DebugAddress(address.clone()));
    }
    let failed = |source| ListenError::Bind {
        address: address.clone(),
        source,
    };
    let addresses: Vec<SocketAddr> = host.to_socket_addrs().map_err(failed)?.collect();
    let exposure = exposure(address, &addresses, settings)?;
    let listener = std::net::TcpListener::bind(addresses.as_slice()).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    Ok(Some((Listener::Tcp(listener, None), exposure)))
}

// DIFFERS: BuildKit shows everything to whoever reaches the address.
fn exposure(
    address: &str,
    bound: &[SocketAddr],
    settings: &Settings,
) -> Result<Exposure, ListenError> {
    if bound.iter().any(|a| !a.ip().is_loopback()) {
        return if settings.allow_insecure_debug_address {
            Ok(Exposure::MetricsOnly(REMOTE))
        } else {
            Err(ListenError::OpenDebug(address.to_owned()))
        };
    }
    Ok(match settings.steps_on_host_network() {
        Some(_) if !settings.allow_insecure_loopback => Exposure::MetricsOnly(STEPS),
        Some(_) | None => Exposure::Loopback,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Args, Defaults, file::File};

    fn settings(args: &[&str], text: &str) -> Settings {
        let args = Args::parse_from(std::iter::once("rbuildd").chain(args.iter().copied()));
        let (file, warnings) = File::parse(text).unwrap();
        Settings::resolve(&args, file, warnings, &Defaults::of("rbuildd")).unwrap()
    }

    #[test]
    fn pages_are_for_this_machine_and_metrics_for_others_only_where_that_is_said() {
        let bridge = "[worker.oci]\nnetworkMode = \"bridge\"\n";
        let told = "[grpc]\nallowInsecureDebugAddress = true\n";
        let both = format!("{told}{bridge}");
        for (bound, args, text, shown) in [
            ("127.0.0.1:1", &[][..], bridge, Ok(Exposure::Loopback)),
            ("[::1]:1", &[], bridge, Ok(Exposure::Loopback)),
            ("127.0.0.1:1", &[], "", Ok(Exposure::MetricsOnly(STEPS))),
            (
                "127.0.0.1:1",
                &["--allow-insecure-loopback"],
                "",
                Ok(Exposure::Loopback),
            ),
            ("0.0.0.0:1", &[], bridge, Err(())),
            ("0.0.0.0:1", &["--allow-insecure-loopback"], bridge, Err(())),
            ("10.0.0.1:1", &[], &both, Ok(Exposure::MetricsOnly(REMOTE))),
            (
                "0.0.0.0:1",
                &["--allow-insecure-debugaddr"],
                "",
                Ok(Exposure::MetricsOnly(REMOTE)),
            ),
        ] {
            let settings = settings(args, text);
            let result = exposure("a", &[bound.parse().unwrap()], &settings);
            assert_eq!(result.map_err(|_| ()), shown, "{bound} {args:?} {text}");
        }
    }

    #[tokio::test]
    async fn an_address_is_a_socket_or_a_host_with_or_without_its_scheme() {
        let dir = tempfile::tempdir().unwrap();
        let socket = format!("unix://{}", dir.path().join("d.sock").display());
        let open = |address: &str| open(&settings(&["--debugaddr", address], ""));
        assert!(open("").unwrap().is_none());
        assert_eq!(open(&socket).unwrap().unwrap().1, Exposure::Socket);
        for address in ["127.0.0.1:0", "tcp://127.0.0.1:0"] {
            let (listener, _) = open(address).unwrap().unwrap();
            assert!(matches!(listener, Listener::Tcp(..)), "{address}");
        }
        let refused = open("fd://3").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "debugging address \"fd://3\" is not understood: use unix:///path, tcp://host:port or host:port"
        );
        let refused = open("0.0.0.0:0").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "refusing to serve metrics on 0.0.0.0:0, which others than this machine can reach; use a loopback address or a unix socket, or insist with --allow-insecure-debugaddr (then only metrics and health are shown)"
        );
    }
}
