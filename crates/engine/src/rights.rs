//! Entitlements: what the client grants, as far as the daemon allows it.

use executor::Entitlements;

use crate::api::{Failure, FailureKind};

const NETWORK_HOST: &str = "network.host";
const SECURITY_INSECURE: &str = "security.insecure";
const DEVICE: &str = "device";

/// Returns what the build may do: what was asked for, all of which must be allowed.
pub(crate) fn grant(asked: &[String], allowed: &[String]) -> Result<Entitlements, Failure> {
    let mut granted = Entitlements::default();
    for text in asked {
        let name = text.split_once('=').map_or(text.as_str(), |(name, _)| name);
        let refused = |message| Err(Failure::new(FailureKind::Unknown, message));
        if ![NETWORK_HOST, SECURITY_INSECURE, DEVICE].contains(&name)
            || (name != DEVICE && name != text)
        {
            return refused(format!("unknown entitlement {text}"));
        }
        if !allowed
            .iter()
            .any(|a| a.split_once('=').map_or(a.as_str(), |(a, _)| a) == name)
        {
            return refused(format!(
                "granting entitlement {name} is not allowed by build daemon configuration"
            ));
        }
        match name {
            NETWORK_HOST => granted.network_host = true,
            SECURITY_INSECURE => granted.security_insecure = true,
            _ => return Err(Failure::not_built("the entitlement device")),
        }
    }
    Ok(granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_daemon_allows_is_granted() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let granted = grant(&list(&["network.host"]), &list(&["network.host"])).unwrap();
        assert!(granted.network_host && !granted.security_insecure);
        let text = |asked: &[&str], allowed: &[&str]| {
            grant(&list(asked), &list(allowed)).unwrap_err().message
        };
        assert_eq!(
            text(&["security.insecure"], &["network.host"]),
            "granting entitlement security.insecure is not allowed by build daemon configuration"
        );
        assert_eq!(text(&["root"], &[]), "unknown entitlement root");
    }
}
