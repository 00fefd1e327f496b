//! The network that steps get when they ask for none: one for the whole daemon, whoever its clients are.

use std::sync::Arc;

use executor::SandboxNetwork;
use net::{Bridge, NetError, Upstreams};

use crate::settings::Settings;
use crate::wire::WireError;

/// Makes what the settings name.
pub(crate) async fn open(settings: &Settings) -> Result<SandboxNetwork, WireError> {
    match settings.worker.network.as_str() {
        // The one place that says what `auto` is. As under buildkitd without CNI, steps share the host's network, and builds reach
        // registries and mirrors on its loopback interface.
        "auto" | "host" | "" => Ok(SandboxNetwork::Host),
        "none" => Ok(SandboxNetwork::None),
        "bridge" => Ok(SandboxNetwork::Bridge(Arc::new(bridge(settings).await?))),
        other => Err(WireError::Network(other.into())),
    }
}

/// Makes the bridge, and tries it.
async fn bridge(settings: &Settings) -> Result<Bridge, NetError> {
    let keys = &settings.worker.bridge;
    // What is no address is refused with the first step, as in the other modes.
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
    };
    let bridge = task::blocking("make the bridge", move || Bridge::open(config)).await?;
    if let Err(error) = bridge.check().await {
        bridge.close().await;
        return Err(error);
    }
    Ok(bridge)
}

/// Removes what was made. The last thing that is done: steps may run until then.
pub(crate) async fn close(network: SandboxNetwork) {
    match network {
        SandboxNetwork::Bridge(bridge) => bridge.close().await,
        SandboxNetwork::Host | SandboxNetwork::None => {}
    }
}
