//! The environment of a process.

/// Where programs are looked for when no PATH is set.
const UNIX_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const WINDOWS_PATH: &str =
    "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0";

/// Variables of a process as `NAME=value`, in the order in which they were set. A name that is set twice is there twice, as with
/// the reference: programs find the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(Vec<String>);

impl Environment {
    /// Begins with these variables.
    #[must_use]
    pub fn new(variables: Vec<String>) -> Self {
        Self(variables)
    }

    /// Whether a variable is set, be it to nothing.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let mut names = self.0.iter().filter_map(|entry| entry.split_once('='));
        names.any(|(key, _)| key == name)
    }

    /// Sets a variable, behind all others.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.push(format!("{name}={value}"));
    }

    /// Sets a variable that is not set.
    pub fn set_default(&mut self, name: &str, value: &str) {
        if !self.has(name) {
            self.set(name, value);
        }
    }

    /// Sets `PATH`, if it is not set, to what the operating system has by itself.
    pub fn set_default_path(&mut self, os: &str) {
        let path = if os == "windows" {
            WINDOWS_PATH
        } else {
            UNIX_PATH
        };
        self.set_default("PATH", path);
    }

    /// Returns the variables.
    #[must_use]
    pub fn into_variables(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[&str]) -> Environment {
        Environment::new(variables.iter().map(|v| (*v).to_owned()).collect())
    }

    #[test]
    fn a_variable_is_set_by_default_only_if_it_is_not_there() {
        for (variables, is_there) in [
            (&["HOME=/root"][..], true),
            (&["HOME="], true),
            (&["A=1", "HOME=/x=y"], true),
            (&["HOMEPAGE=/x"], false),
            (&["home=/x"], false),
            (&["HOME"], false),
            (&[""], false),
            (&[], false),
        ] {
            let mut environment = of(variables);
            environment.set_default("HOME", "/h");
            let mut expected = of(variables);
            if !is_there {
                expected.set("HOME", "/h");
            }
            assert_eq!(environment, expected, "{variables:?}");
        }
    }

    #[test]
    fn each_operating_system_has_its_own_path() {
        for (os, start) in [
            ("linux", "PATH=/usr/local/sbin:"),
            ("", "PATH=/usr/local/"),
            ("windows", "PATH=c:\\Windows\\"),
        ] {
            let mut environment = Environment::default();
            environment.set_default_path(os);
            let variables = environment.into_variables();
            assert!(variables[0].starts_with(start), "{variables:?}");
        }
        let mut environment = of(&["PATH=/own"]);
        environment.set_default_path("linux");
        assert_eq!(environment.into_variables(), ["PATH=/own"]);
    }
}
