//! The network that steps get when they ask for none: one for the whole daemon, whoever its clients are.

use std::sync::Arc;

use executor::SandboxNetwork;
use net::{Bridge, Carrier, CarrierKind, Cni, CniConfig, NetError, OnFirewall, Uplink, Upstreams};

use crate::settings::{Settings, UplinkSetting};
use crate::wire::WireError;

/// Makes the network that the settings name.
pub(crate) async fn open(settings: &Settings) -> Result<SandboxNetwork, WireError> {
    match settings.worker.network.as_deref() {
        None | Some("auto") if prefers_bridge() => bridge(settings, OnFirewall::Warn)
            .await
            .map_err(failed("bridge"))
            .map(bridged),
        Some("cni") => cni(settings).await,
        None | Some("auto") if settings.worker.cni.config.exists() => cni(settings).await,
        // As under buildkitd without CNI, steps share the host's network, and builds reach registries and mirrors on its loopback
        // interface.
        None | Some("host") => Ok(SandboxNetwork::Host),
        Some("auto") => automatic(settings).await,
        Some("none") => Ok(SandboxNetwork::None),
        Some("bridge") => {
            let bridge = bridge(settings, OnFirewall::Warn).await;
            bridge.map_err(failed("bridge")).map(bridged)
        }
        Some(other) => Err(WireError::Network(other.into())),
    }
}

/// Whether the environment says, as to buildkitd, that the network is the bridge where the configuration names none.
fn prefers_bridge() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment is read in daemon and cli only"
    )]
    let variable = std::env::var("BUILDKIT_NETWORK_BRIDGE_AUTO");
    variable.is_ok_and(|value| gostd::strconv::parse_bool(&value).unwrap_or(false))
}

/// What an administrator gets who wrote `auto`: the bridge where steps reach the outside by it, the host's network elsewhere.
// DIFFERS: buildkitd's `auto` never is a bridge unless BUILDKIT_NETWORK_BRIDGE_AUTO says so. What it does without a word of the
// administrator is what we do, too.
async fn automatic(settings: &Settings) -> Result<SandboxNetwork, WireError> {
    match bridge(settings, OnFirewall::Refuse).await {
        Ok(bridge) => Ok(bridged(bridge)),
        // What is written wrong is wrong everywhere.
        Err(error) if error.kind() == oci::ErrorKind::Invalid => Err(failed("bridge")(error)),
        Err(error) => {
            tracing::warn!(
                %error,
                "steps share the host's network, for a bridge does not work here (worker.oci.networkMode = \"auto\")"
            );
            Ok(SandboxNetwork::Host)
        }
    }
}

fn bridged(bridge: Bridge) -> SandboxNetwork {
    SandboxNetwork::Bridge(Arc::new(bridge))
}

fn failed(mode: &'static str) -> impl FnOnce(NetError) -> WireError {
    move |source| WireError::StepNetwork { mode, source }
}

/// Has the programs of the configuration make a first network.
async fn cni(settings: &Settings) -> Result<SandboxNetwork, WireError> {
    let config = CniConfig {
        network: settings.worker.cni.config.clone(),
        folders: settings.worker.cni.folders.clone(),
        state: settings.root.join("net/cni"),
        pool_size: settings.worker.bridge.pool_size,
    };
    let opened = task::blocking("open the networks of CNI", move || Cni::open(config)).await;
    let cni = opened.map_err(failed("CNI"))?;
    Ok(SandboxNetwork::Cni(Arc::new(cni)))
}

/// Makes the bridge, and tries it.
async fn bridge(settings: &Settings, on_firewall: OnFirewall) -> Result<Bridge, NetError> {
    let keys = &settings.worker.bridge;
    // A nameserver that is not an address is refused with the first step, as in the other modes.
    let nameservers: Vec<std::net::IpAddr> = settings
        .dns
        .iter()
        .flat_map(|dns| &dns.nameservers)
        .filter_map(|text| text.parse().ok())
        .collect();
    let config = net::Config {
        name: keys.name.clone(),
        subnet: keys.subnet.as_deref().map(str::parse).transpose()?,
        pool_size: keys.pool_size,
        reveal_metadata: keys.reveal_metadata,
        upstreams: Upstreams::new(&nameservers),
        on_firewall,
    };
    let uplink = uplink(keys.uplink).await?;
    let bridge = task::blocking("make the bridge", move || match uplink {
        None => Bridge::open(config),
        Some(uplink) => Bridge::open_behind(config, uplink),
    })
    .await?;
    if let Err(error) = bridge.check().await {
        bridge.close().await;
        return Err(error);
    }
    Ok(bridge)
}

/// The way out of a bridge that cannot be in the daemon's own network, for that is somebody else's; nothing where it can.
async fn uplink(setting: UplinkSetting) -> Result<Option<Uplink>, NetError> {
    let is_ours = sys::netns::is_ours().map_err(|source| NetError::System {
        during: "find out whose the network is",
        source,
    })?;
    if is_ours {
        return Ok(None);
    }
    let carriers = carriers(setting, crate::rootless::find_program);
    let mut last = NetError::NoCarrier;
    for carrier in carriers {
        let program = carrier.kind.program();
        match task::blocking("make the uplink", move || Uplink::open(carrier)).await {
            Ok(uplink) => return Ok(Some(uplink)),
            Err(error) => {
                tracing::warn!(%error, program, "steps' packets cannot be carried by this program");
                last = error;
            }
        }
    }
    Err(last)
}

/// The programs to be tried, in this order.
fn carriers(
    setting: UplinkSetting,
    find: impl Fn(&str) -> Option<std::path::PathBuf>,
) -> Vec<Carrier> {
    let kinds = CarrierKind::ALL.into_iter().filter(|kind| match setting {
        UplinkSetting::Auto => true,
        UplinkSetting::One(one) => one == *kind,
        UplinkSetting::None => false,
    });
    kinds
        .filter_map(|kind| {
            let path = find(kind.program())?;
            Some(Carrier { kind, path })
        })
        .collect()
}

/// Removes the network. It is called last: steps may run until then.
pub(crate) async fn close(network: SandboxNetwork) {
    match network {
        SandboxNetwork::Bridge(bridge) => bridge.close().await,
        SandboxNetwork::Cni(cni) => cni.close().await,
        SandboxNetwork::Host | SandboxNetwork::None => {}
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::file::File;
    use crate::settings::{Args, Defaults};

    /// What a daemon with this configuration gives its steps, or why it does not start.
    async fn outcome(text: &str) -> String {
        let args = Args::try_parse_from(["rbuildd"]).unwrap();
        let (file, warnings) = File::parse(text).unwrap();
        let defaults = Defaults::of("rbuildd");
        let settings = match Settings::resolve(&args, file, warnings, &defaults) {
            Ok(settings) => settings,
            Err(error) => return error.to_string(),
        };
        match open(&settings).await {
            Ok(network) => {
                let label = network.label().to_owned();
                close(network).await;
                label
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_setting_and_what_is_installed_say_who_carries_packets() {
        let both: &[&str] = &["slirp4netns", "pasta"];
        for (setting, installed, expected) in [
            (UplinkSetting::Auto, both, vec!["pasta", "slirp4netns"]),
            (UplinkSetting::Auto, &["slirp4netns"], vec!["slirp4netns"]),
            (UplinkSetting::Auto, &[], vec![]),
            (
                UplinkSetting::One(CarrierKind::Slirp),
                both,
                vec!["slirp4netns"],
            ),
            (UplinkSetting::One(CarrierKind::Slirp), &["pasta"], vec![]),
            (UplinkSetting::None, both, vec![]),
        ] {
            let find = |name: &str| installed.contains(&name).then(|| name.into());
            let programs: Vec<_> = carriers(setting, find)
                .into_iter()
                .map(|carrier| carrier.kind.program())
                .collect();
            assert_eq!(programs, expected, "{setting:?} with {installed:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_mode_says_what_steps_get() {
        for (text, expected) in [
            ("", "host"),
            ("networkMode = ''", "host"),
            ("networkMode = 'host'", "host"),
            ("networkMode = 'none'", "none"),
            (
                "networkMode = 'cni'\ncniConfigPath = '/no/such.json'",
                "steps cannot have a CNI network (worker.oci.networkMode): cannot read the CNI configuration /no/such.json (worker.oci.cniConfigPath): no such file or directory",
            ),
            // It is there, and no configuration: as under buildkitd the mode is `cni`, and the daemon does not start.
            (
                "cniConfigPath = '/dev/null'",
                "steps cannot have a CNI network (worker.oci.networkMode): cannot use the CNI configuration /dev/null: EOF while parsing a value at line 1 column 0",
            ),
            (
                "networkMode = 'auto'\ncniConfigPath = '/dev/null'",
                "steps cannot have a CNI network (worker.oci.networkMode): cannot use the CNI configuration /dev/null: EOF while parsing a value at line 1 column 0",
            ),
            // There is no second loopback interface: a bridge cannot be had, on any machine.
            ("networkMode = 'auto'\nbridgeName = 'lo'", "host"),
            (
                "networkMode = 'auto'\nbridgeName = 'a/b'",
                "steps cannot have a bridge network (worker.oci.networkMode): bridge name `a/b` cannot be used: it needs 1 to 15 letters, digits, `-`, `_` or `.`",
            ),
            (
                "bridgeUplink = 'moon'",
                "worker.oci.bridgeUplink: `moon` is none of auto, pasta, slirp4netns and none",
            ),
            (
                "networkMode = 'moon'",
                "network mode \"moon\" is not known: use auto, bridge, cni, host or none",
            ),
        ] {
            let text = format!("[worker.oci]\n{text}\n");
            assert_eq!(outcome(&text).await, expected, "{text}");
        }
    }
}
