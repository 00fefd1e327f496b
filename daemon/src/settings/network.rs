//! The networks of steps.

use std::path::PathBuf;

use super::args::Args;
use super::{Defaults, SettingsError};

/// Networks that are prepared unless the configuration says otherwise: a step seldom waits, and a daemon that idles holds little.
const PREPARED_NETWORKS: usize = 2;

/// Where programs of CNI are when nobody says: buildkitd's folder, Debian's and Fedora's.
// DIFFERS: buildkitd looks into the first only, which distributions leave to others.
const CNI_FOLDERS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// The bridge network of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSettings {
    /// The name of the bridge; `None` for one that is free.
    pub name: Option<String>,
    /// The subnet of steps; `None` for one that is free.
    pub subnet: Option<String>,
    /// How many networks are always prepared.
    pub pool_size: usize,
    /// Whether steps reach metadata services.
    pub reveal_metadata: bool,
    /// What carries its packets where the daemon has no rights in its network.
    pub uplink: UplinkSetting,
}

/// Which program carries packets of a bridge that is not in the host's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UplinkSetting {
    /// The first that works.
    #[default]
    Auto,
    /// This one.
    One(net::CarrierKind),
    /// None: such a daemon has no bridge.
    None,
}

impl UplinkSetting {
    pub(super) fn parse(word: &str) -> Result<Self, SettingsError> {
        let kinds = net::CarrierKind::ALL.into_iter();
        match word {
            "" | "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            word => {
                let mut named = kinds.filter(|kind| kind.program() == word);
                named
                    .next()
                    .map(Self::One)
                    .ok_or_else(|| SettingsError::Value {
                        key: "worker.oci.bridgeUplink",
                        message: format!("`{word}` is none of auto, pasta, slirp4netns and none"),
                    })
            }
        }
    }
}

/// Networks of steps by CNI; as many are prepared as behind the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniSettings {
    /// The file that describes the network.
    pub config: PathBuf,
    /// Folders of programs.
    pub folders: Vec<PathBuf>,
}

/// How many are always prepared.
pub(super) fn pool_size(args: &Args, file: Option<usize>) -> usize {
    args.oci_cni_pool_size.or(file).unwrap_or(PREPARED_NETWORKS)
}

impl CniSettings {
    pub(super) fn resolve(
        args: &Args,
        [config, folder]: [Option<String>; 2],
        defaults: &Defaults,
    ) -> Self {
        let first = |flag: &Option<String>, file: Option<String>| {
            let said = flag.clone().or(file);
            said.filter(|path| !path.is_empty()).map(PathBuf::from)
        };
        Self {
            config: first(&args.oci_cni_config_path, config)
                .unwrap_or_else(|| defaults.config.with_file_name("cni.json")),
            folders: first(&args.oci_cni_binary_dir, folder).map_or_else(
                || CNI_FOLDERS.map(PathBuf::from).to_vec(),
                |folder| vec![folder],
            ),
        }
    }
}
