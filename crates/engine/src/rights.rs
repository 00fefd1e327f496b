//! Entitlements: what the client grants, as far as the daemon allows it.

use executor::{DeviceRights, Entitlements};

use crate::api::{Failure, FailureKind};

const NETWORK_HOST: &str = "network.host";
const SECURITY_INSECURE: &str = "security.insecure";
const DEVICE: &str = "device";

/// Returns what the build may do: what was asked for, all of which must be allowed.
pub(crate) fn grant(asked: &[String], allowed: &[String]) -> Result<Entitlements, Failure> {
    let mut granted = Entitlements::default();
    for text in asked {
        let name = text.split_once('=').map_or(text.as_str(), |(name, _)| name);
        let refused = |message: String| Err(Failure::new(FailureKind::Unknown, message));
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
            _ => {
                let value = text.split_once('=').map_or("", |(_, value)| value);
                let rights = granted.devices.get_or_insert_default();
                device(value, rights).map_err(|e| Failure::new(FailureKind::Unknown, e))?;
            }
        }
    }
    Ok(granted)
}

/// Adds what one entitlement grants: all devices, or `name[,alias=other]`. Under an alias steps ask for the other name.
fn device(value: &str, rights: &mut DeviceRights) -> Result<(), String> {
    if value.is_empty() {
        rights.all = true;
        return Ok(());
    }
    let mut fields = value.split(',');
    let name = fields.next().unwrap_or_default();
    let mut alias = "";
    for field in fields {
        match field.split_once('=') {
            Some(("alias", value)) => alias = value,
            Some((key, _)) => return Err(format!("unknown device config key {key:?}")),
            None => return Err(format!("invalid device config {field:?}")),
        }
    }
    let (key, other) = if alias.is_empty() {
        (name, "")
    } else {
        (alias, name)
    };
    rights.names.insert(key.to_owned(), other.to_owned());
    Ok(())
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
            grant(&list(asked), &list(allowed)).unwrap_err().message()
        };
        assert_eq!(
            text(&["security.insecure"], &["network.host"]),
            "granting entitlement security.insecure is not allowed by build daemon configuration"
        );
        assert_eq!(text(&["root"], &[]), "unknown entitlement root");
        assert_eq!(
            text(&["device=a.com/b,x=y"], &["device"]),
            "unknown device config key \"x\""
        );
        let asked = list(&["device=a.com/b=c", "device=a.com/d=e,alias=f"]);
        let devices = grant(&asked, &list(&["device"])).unwrap().devices.unwrap();
        assert!(!devices.all);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert!(
            devices
                .names
                .into_iter()
                .eq([pair("a.com/b=c", ""), pair("f", "a.com/d=e")])
        );
    }
}
