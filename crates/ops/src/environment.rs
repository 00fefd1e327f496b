//! Variables that the daemon adds to a process: proxies and secrets.

use executor::Environment;
use llb::pb;
use solver::OpCtx;

use crate::callers::{secret, secret_text};
use crate::{BuildDomain, OpFailure, Parts};

/// Sets the proxy variables in upper and lower case, because programs differ in which ones they read.
pub fn set_proxies(environment: &mut Environment, proxy: &pb::ProxyEnv) {
    for (names, value) in [
        (["HTTP_PROXY", "http_proxy"], &proxy.http_proxy),
        (["HTTPS_PROXY", "https_proxy"], &proxy.https_proxy),
        (["FTP_PROXY", "ftp_proxy"], &proxy.ftp_proxy),
        (["NO_PROXY", "no_proxy"], &proxy.no_proxy),
        (["ALL_PROXY", "all_proxy"], &proxy.all_proxy),
    ] {
        if !value.is_empty() {
            for name in names {
                environment.set(name, value);
            }
        }
    }
}

/// Sets variables to secrets of the clients. An optional secret that no client has gives an empty value.
pub async fn set_secrets(
    environment: &mut Environment,
    secrets: &[pb::SecretEnv],
    parts: &Parts,
    ctx: &OpCtx<BuildDomain>,
) -> Result<(), OpFailure> {
    for variable in secrets {
        let pb::SecretEnv { id, name, optional } = variable;
        if id.is_empty() {
            return Err(OpFailure::SecretIdMissing { name: name.clone() });
        }
        let bytes = match secret(parts, ctx, id).await? {
            Some(bytes) => bytes,
            None if *optional => Vec::new(),
            None => return Err(OpFailure::SecretNotFound { id: id.clone() }),
        };
        environment.set(name, &secret_text(id, bytes)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_set_in_upper_and_lower_case_in_a_fixed_order() {
        let proxy = pb::ProxyEnv {
            http_proxy: "http://p:1".into(),
            no_proxy: "localhost".into(),
            ..pb::ProxyEnv::default()
        };
        let mut environment = Environment::new(vec!["A=1".into()]);
        set_proxies(&mut environment, &proxy);
        assert_eq!(
            environment.into_variables(),
            [
                "A=1",
                "HTTP_PROXY=http://p:1",
                "http_proxy=http://p:1",
                "NO_PROXY=localhost",
                "no_proxy=localhost"
            ]
        );
    }
}
