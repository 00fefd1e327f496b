//! Entitlements: what the client grants, as far as the daemon allows it.

use executor::{DeviceRights, Entitlements};
use oci::ErrorKind;

use crate::api::{Failure, FailureKind};

const NETWORK_HOST: &str = "network.host";
const SECURITY_INSECURE: &str = "security.insecure";
const DEVICE: &str = "device";

/// Returns the entitlements of a build: all that it requests, or an error if the daemon does not allow one of them.
pub(crate) fn grant(requested: &[String], allowed: &[String]) -> Result<Entitlements, Failure> {
    let mut granted = Entitlements::default();
    for text in requested {
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
                device(value, rights)?;
            }
        }
    }
    Ok(granted)
}

/// Adds the devices of one entitlement: all, or `name[,alias=other]`. With an alias, steps request the device by that name.
fn device(value: &str, rights: &mut DeviceRights) -> Result<(), Failure> {
    if value.is_empty() {
        rights.all = true;
        return Ok(());
    }
    let invalid = |message| Failure::of_build(ErrorKind::Invalid, message);
    let fields = gostd::csv::fields(value).map_err(|e| Failure::of_build(ErrorKind::Invalid, e))?;
    let mut fields = fields.iter().map(String::as_str);
    let name = fields.next().unwrap_or_default();
    let mut alias = "";
    for field in fields {
        match field.split_once('=') {
            Some(("alias", value)) => alias = value,
            Some((key, _)) => return Err(invalid(format!("unknown device config key {key:?}"))),
            None => return Err(invalid(format!("invalid device config {field:?}"))),
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
        let text = |requested: &[&str], allowed: &[&str]| {
            grant(&list(requested), &list(allowed))
                .unwrap_err()
                .message()
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
        let requested = list(&["device=a.com/b=c", "device=a.com/d=e,alias=f"]);
        let devices = grant(&requested, &list(&["device"]))
            .unwrap()
            .devices
            .unwrap();
        assert!(!devices.all);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert!(
            devices
                .names
                .into_iter()
                .eq([pair("a.com/b=c", ""), pair("f", "a.com/d=e")])
        );
    }

    #[test]
    fn every_form_of_an_entitlement_is_granted_or_refused_with_its_own_message() {
        let grant = |requested: &str, allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
            super::grant(&[requested.to_owned()], &allowed)
                .map(|granted| {
                    let devices = granted
                        .devices
                        .map(|devices| (devices.all, devices.names.len()));
                    (granted.network_host, granted.security_insecure, devices)
                })
                .map_err(|failure| failure.message())
        };
        let refused = |name: &str| {
            Err(format!(
                "granting entitlement {name} is not allowed by build daemon configuration"
            ))
        };
        let all = &["network.host", "security.insecure", "device"][..];
        for (requested, allowed, want) in [
            ("network.host", all, Ok((true, false, None))),
            ("security.insecure", all, Ok((false, true, None))),
            ("device", all, Ok((false, false, Some((true, 0))))),
            ("device=", all, Ok((false, false, Some((true, 0))))),
            (
                "device=a.com/b=c",
                all,
                Ok((false, false, Some((false, 1)))),
            ),
            // A daemon that allows some devices accepts requests for any, and refuses the others when the step runs.
            (
                "device=x",
                &["device=a.com/b"][..],
                Ok((false, false, Some((false, 1)))),
            ),
            // The value is a line of CSV.
            (
                "device=\"a,b\",alias=c",
                all,
                Ok((false, false, Some((false, 1)))),
            ),
            (
                "device=a,alias",
                all,
                Err("invalid device config \"alias\"".to_owned()),
            ),
            ("network.host", &[][..], refused("network.host")),
            (
                "network.host",
                &["security.insecure"][..],
                refused("network.host"),
            ),
            ("device=a", &["network.host"][..], refused("device")),
            (
                "network.host=x",
                all,
                Err("unknown entitlement network.host=x".to_owned()),
            ),
            ("", all, Err("unknown entitlement ".to_owned())),
            (
                "network",
                all,
                Err("unknown entitlement network".to_owned()),
            ),
        ] {
            assert_eq!(grant(requested, allowed), want, "{requested} {allowed:?}");
        }
    }
}
