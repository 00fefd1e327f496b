//! Where things are by default: for the machine's root, and for a user.

use std::path::{Path, PathBuf};

use super::Defaults;

/// What the environment says of a user's places.
#[derive(Debug, Clone, Default)]
struct UserPlaces {
    /// `XDG_RUNTIME_DIR`.
    runtime: Option<String>,
    /// `XDG_DATA_HOME`.
    data: Option<String>,
    /// `XDG_CONFIG_HOME`.
    config: Option<String>,
    /// `HOME`.
    home: Option<String>,
}

impl UserPlaces {
    /// Reads the environment.
    fn of_environment() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the environment is read where the process begins"
        )]
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            runtime: variable("XDG_RUNTIME_DIR"),
            data: variable("XDG_DATA_HOME"),
            config: variable("XDG_CONFIG_HOME"),
            home: variable("HOME"),
        }
    }

    /// The first folder of a variable that may list several, or a folder below home.
    fn folder(&self, listed: Option<&String>, below_home: &str) -> Option<PathBuf> {
        let first = listed.and_then(|list| list.split(':').next());
        let below = || Some(Path::new(self.home.as_ref()?).join(below_home));
        first
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
            .or_else(below)
    }
}

impl Defaults {
    /// Returns the defaults of the name that the program was started under, for whoever this process belongs to: a user, also one who is
    /// root of a user namespace, has places of their own.
    pub fn here(program: &str) -> Self {
        if crate::rootless::has_users_places() {
            Self::of_user(program, &UserPlaces::of_environment())
        } else {
            Self::of(program)
        }
    }

    /// Returns a user's. What the environment does not say stays the machine's, as with BuildKit.
    fn of_user(program: &str, places: &UserPlaces) -> Self {
        let machine = Self::of(program);
        let (folder, name) = if program.ends_with("buildkitd") {
            ("buildkit", "buildkitd")
        } else {
            ("rbuild", "rbuildd")
        };
        let data = places.folder(places.data.as_ref(), ".local/share");
        let config = places.folder(places.config.as_ref(), ".config");
        let config = config.map(|dir| dir.join(folder));
        let runtime = places
            .runtime
            .as_ref()
            .and_then(|list| list.split(':').next());
        let mut cdi = machine.cdi;
        if let Some(own) = config.as_ref().map(|dir| dir.join("cdi")) {
            cdi.pop();
            cdi.push(own);
        }
        Self {
            root: data.map_or(machine.root, |dir| dir.join(folder)),
            address: runtime.map_or(machine.address, |dir| {
                let socket = Path::new(dir).join(folder).join(format!("{name}.sock"));
                format!("unix://{}", socket.display())
            }),
            config: config.map_or(machine.config, |dir| dir.join(format!("{name}.toml"))),
            cdi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: [&str; 4]) -> UserPlaces {
        let [runtime, data, config, home] =
            all.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
        UserPlaces {
            runtime,
            data,
            config,
            home,
        }
    }

    #[test]
    fn a_user_has_places_of_their_own_and_buildkits_under_its_name() {
        for (program, environment, [root, address, config, cdi]) in [
            (
                "rbuildd",
                ["/run/user/1", "", "", "/home/eve"],
                [
                    "/home/eve/.local/share/rbuild",
                    "unix:///run/user/1/rbuild/rbuildd.sock",
                    "/home/eve/.config/rbuild/rbuildd.toml",
                    "/home/eve/.config/rbuild/cdi",
                ],
            ),
            (
                "/usr/bin/buildkitd",
                ["/run/user/1:/other", "/data:/more", "/conf", "/home/eve"],
                [
                    "/data/buildkit",
                    "unix:///run/user/1/buildkit/buildkitd.sock",
                    "/conf/buildkit/buildkitd.toml",
                    "/conf/buildkit/cdi",
                ],
            ),
            (
                "rbuildd",
                ["", "", "", ""],
                [
                    "/var/lib/rbuild",
                    "unix:///run/rbuild/rbuildd.sock",
                    "/etc/rbuild/rbuildd.toml",
                    "/etc/rbuild/cdi",
                ],
            ),
        ] {
            let defaults = Defaults::of_user(program, &places(environment));
            assert_eq!(defaults.root, PathBuf::from(root));
            assert_eq!(defaults.address, address);
            assert_eq!(defaults.config, PathBuf::from(config));
            assert_eq!(defaults.cdi.last(), Some(&PathBuf::from(cdi)));
            assert_eq!(defaults.cdi.len(), 3);
        }
    }
}
