//! A small workspace on disk, made up by a test.

use std::fs;
use std::path::Path;
use std::process::Command;

pub(super) struct Workspace(tempfile::TempDir);

/// A table that allows `b` to use `a`.
pub(super) const TABLE: &str = "[layers]\na = []\nb = [\"a\"]\n\
    [tests]\noverall = 0.0\neach = 0.0\nwithout-floor = []\nnot-counted = []\n";

impl Workspace {
    /// Two members: `b` depends on `a` and uses it; the table allows that.
    pub(super) fn new() -> Self {
        let workspace = Self(tempfile::tempdir().unwrap());
        workspace.write(
            "Cargo.toml",
            "[workspace]\nresolver = \"3\"\nmembers = [\"crates/a\", \"crates/b\"]\n",
        );
        workspace.write("layers.toml", TABLE);
        workspace.member("a", "");
        workspace.write("crates/a/src/lib.rs", "pub fn f() {}\n");
        workspace.member(
            "b",
            "[dependencies]\na = { path = \"../a\", package = \"rbuild-a\" }\n",
        );
        workspace.write("crates/b/src/lib.rs", "pub fn g() {\n    a::f();\n}\n");
        workspace
    }

    pub(super) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let file = self.root().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root().join(name)).unwrap()
    }

    /// Writes the manifest of a member.
    pub(super) fn member(&self, name: &str, dependencies: &str) {
        let manifest = format!(
            "[package]\nname = \"rbuild-{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\nname = \"{name}\"\n{dependencies}"
        );
        self.write(&format!("crates/{name}/Cargo.toml"), &manifest);
    }

    /// Whether cargo takes it for a workspace: a case that is wrong otherwise says so.
    pub(super) fn is_sound(&self) -> bool {
        Command::new(option_env!("CARGO").unwrap_or("cargo"))
            .args(["metadata", "--format-version", "1", "--offline"])
            .current_dir(self.root())
            .output()
            .unwrap()
            .status
            .success()
    }
}
