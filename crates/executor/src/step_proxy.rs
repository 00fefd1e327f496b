//! What a step of the proxy network brings, and how its programs find the proxy and trust it.

use std::sync::Arc;

use proxy::{ADDRESS, Capture, PORT, RequestPolicy, java, trust};

use crate::mount::{Mount, MountSource};

/// What a step of the proxy network brings.
#[derive(Debug, Clone)]
pub struct StepProxy {
    /// The policies that decide on its requests, in order.
    pub policies: Vec<Arc<dyn RequestPolicy>>,
    /// The record of its requests.
    pub capture: Arc<Capture>,
    /// The certificates that its programs are to trust, the proxy's among them.
    pub bundle: Vec<u8>,
}

/// Variables that name the proxy, in the order in which BuildKit sets them.
const PROXY_VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
];
/// Variables that name the hosts which are reached without the proxy.
const DIRECT_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];
const DIRECT: &str = "127.0.0.1,localhost,::1";

fn name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// Sets variables behind all others, in the place of those with their names.
fn replace(env: &mut Vec<String>, entries: Vec<String>) {
    env.retain(|variable| !entries.iter().any(|entry| name(entry) == name(variable)));
    env.extend(entries);
}

/// Sets variables that are not set.
fn set_defaults(env: &mut Vec<String>, entries: Vec<String>) {
    for entry in entries {
        if !env.iter().any(|variable| name(variable) == name(&entry)) {
            env.push(entry);
        }
    }
}

fn proxy_variables() -> Vec<String> {
    let proxy = PROXY_VARIABLES.map(|name| format!("{name}=http://{ADDRESS}:{PORT}"));
    let direct = DIRECT_VARIABLES.map(|name| format!("{name}={DIRECT}"));
    proxy.into_iter().chain(direct).collect()
}

/// Variables of single programs, of which a build may have its own.
fn program_variables() -> Vec<String> {
    let bundle = trust::BUNDLE_VARIABLES.map(|name| format!("{name}={}", trust::MOUNTED_BUNDLE));
    let apt = format!("{}={}", trust::APT_VARIABLE, trust::MOUNTED_APT_CONFIG);
    let java = format!("{}={}", trust::JAVA_VARIABLE, trust::java_options());
    let node = format!("{}=1", trust::NODE_PROXY_VARIABLE);
    bundle.into_iter().chain([apt, java, node]).collect()
}

/// Gives a further process of a container the proxy of the first, as BuildKit does. What it trusts is its own, if it says that. One
/// without an environment has that of the first anyway.
pub(crate) fn inherit(env: &mut Vec<String>, first: &[String]) {
    if env.is_empty() {
        return;
    }
    let variables_of = |names: &[&str]| -> Vec<String> {
        let is_named = |entry: &&String| names.contains(&name(entry));
        first.iter().filter(is_named).cloned().collect()
    };
    replace(env, variables_of(&PROXY_VARIABLES));
    replace(env, variables_of(&DIRECT_VARIABLES));
    set_defaults(env, variables_of(&trust::BUNDLE_VARIABLES));
    set_defaults(
        env,
        variables_of(&[
            trust::APT_VARIABLE,
            trust::JAVA_VARIABLE,
            trust::NODE_PROXY_VARIABLE,
        ]),
    );
}

impl StepProxy {
    /// Has the first process of a container, with this environment, find the proxy and trust it by these mounts.
    pub(crate) fn announce(self, env: &mut Vec<String>, mounts: &mut Vec<Mount>) {
        replace(env, proxy_variables());
        set_defaults(env, program_variables());
        let apt = trust::apt_config().into_bytes();
        let java = java::key_store(&self.bundle);
        for (dest, contents) in [
            (trust::MOUNTED_BUNDLE, self.bundle),
            (trust::MOUNTED_JAVA_STORE, java),
            (trust::MOUNTED_APT_CONFIG, apt),
        ] {
            mounts.push(Mount {
                dest: dest.to_owned(),
                source: MountSource::File {
                    contents,
                    mode: 0o444,
                    uid: 0,
                    gid: 0,
                },
                selector: String::new(),
                readonly: true,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn the_proxy_replaces_what_the_build_sets_and_trust_does_not() {
        let mut environment = env(&["PATH=/bin", "http_proxy=http://own", "PIP_CERT=/own", "X"]);
        replace(&mut environment, proxy_variables());
        set_defaults(&mut environment, program_variables());
        let proxy = "http://10.89.0.1:3128";
        let bundle = trust::MOUNTED_BUNDLE;
        assert_eq!(
            environment,
            [
                "PATH=/bin".to_owned(),
                "PIP_CERT=/own".into(),
                "X".into(),
                format!("HTTP_PROXY={proxy}"),
                format!("HTTPS_PROXY={proxy}"),
                format!("ALL_PROXY={proxy}"),
                format!("http_proxy={proxy}"),
                format!("https_proxy={proxy}"),
                format!("all_proxy={proxy}"),
                "NO_PROXY=127.0.0.1,localhost,::1".into(),
                "no_proxy=127.0.0.1,localhost,::1".into(),
                format!("SSL_CERT_FILE={bundle}"),
                format!("REQUESTS_CA_BUNDLE={bundle}"),
                format!("NODE_EXTRA_CA_CERTS={bundle}"),
                format!("CURL_CA_BUNDLE={bundle}"),
                format!("GIT_SSL_CAINFO={bundle}"),
                format!("CARGO_HTTP_CAINFO={bundle}"),
                format!("APT_CONFIG={}", trust::MOUNTED_APT_CONFIG),
                "JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/dev/buildkit-proxy-ca.jks -Djavax.net.ssl.trustStoreType=JKS \
                 -Dhttp.proxyHost=10.89.0.1 -Dhttp.proxyPort=3128 -Dhttps.proxyHost=10.89.0.1 -Dhttps.proxyPort=3128"
                    .into(),
                "NODE_USE_ENV_PROXY=1".into(),
            ]
        );
    }

    #[test]
    fn a_further_process_has_the_proxy_of_the_first_and_nothing_else_of_it() {
        let mut first = env(&["INIT_ONLY=1", "ALL_PROXY=http://first"]);
        replace(&mut first, proxy_variables());
        set_defaults(&mut first, program_variables());
        let mut environment = env(&["CHILD=1", "ALL_PROXY=http://child", "SSL_CERT_FILE=/own"]);
        inherit(&mut environment, &first);
        assert!(
            environment.contains(&"CHILD=1".to_owned())
                && environment.contains(&"SSL_CERT_FILE=/own".to_owned())
        );
        assert!(environment.contains(&"ALL_PROXY=http://10.89.0.1:3128".to_owned()));
        assert!(
            !environment
                .iter()
                .any(|entry| entry.ends_with("child") || entry.starts_with("INIT"))
        );
        assert!(
            environment
                .iter()
                .any(|entry| entry.starts_with("PIP_CERT="))
        );
    }
}
