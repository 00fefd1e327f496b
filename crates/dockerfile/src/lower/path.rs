//! Paths of images, by the rules of the operating system they are for.
//!
//! Windows' paths lose their drive, which must be `C:`, and their separators become slashes; images for anything else keep what
//! is written. Facts: BuildKit's `util/system/path.go`.

use std::borrow::Cow;

use gostd::path;
use gostd::strconv::quote;

/// Why a path is not valid in an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A drive alone, which means its current directory.
    #[error("No relative path specified in {}", quote(.0))]
    DriveAlone(String),
    /// `\\host\share`.
    #[error("UNC paths are not supported")]
    Unc,
    /// A drive that no image has.
    #[error("The specified path is not on the system drive (C:)")]
    OtherDrive,
}

/// How an image's operating system writes paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathRules {
    Posix,
    Windows,
}

impl PathRules {
    pub(crate) fn of(os: &str) -> Self {
        if os == "windows" {
            Self::Windows
        } else {
            Self::Posix
        }
    }

    /// The path with slashes between its parts.
    pub(crate) fn slashes(self, path: &str) -> Cow<'_, str> {
        match self {
            Self::Posix => Cow::Borrowed(path),
            Self::Windows => Cow::Owned(path.replace('\\', "/")),
        }
    }

    /// The path with the separators that the image's programs want.
    pub(crate) fn native(self, path: &str) -> String {
        match self {
            Self::Posix => path.to_owned(),
            Self::Windows => path.replace('/', "\\"),
        }
    }

    /// The path without its drive, cleaned; `keep_slash` keeps one at the end.
    pub(crate) fn without_drive(self, path: &str, keep_slash: bool) -> Result<String, PathError> {
        if self == Self::Posix {
            return Ok(path.to_owned());
        }
        let slashed = self.slashes(path);
        if slashed.len() == 2 && slashed.ends_with(':') {
            return Err(PathError::DriveAlone(path.to_owned()));
        }
        if slashed.starts_with("//") {
            return Err(PathError::Unc);
        }
        let rest = match slashed.split_once(':') {
            None => &*slashed,
            Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
            Some(_) => return Err(PathError::OtherDrive),
        };
        let mut clean = path::clean(rest);
        if keep_slash && rest.ends_with('/') && clean.len() > 1 {
            clean.push('/');
        }
        Ok(clean)
    }

    pub(crate) fn is_absolute(self, path: &str) -> bool {
        self.without_drive(path, false)
            .is_ok_and(|path| path::is_abs(&path))
    }

    /// An absolute path under `parent`; an absolute one stays as it was written but for its drive. `keep_slash` keeps `/` and
    /// `/.` at the end, which say that it is a directory.
    pub(crate) fn absolute(
        self,
        parent: &str,
        path: &str,
        keep_slash: bool,
    ) -> Result<String, PathError> {
        let mut dir =
            self.without_drive(if parent.is_empty() { "/" } else { parent }, keep_slash)?;
        if !path::is_abs(&dir) {
            dir = path::join(&["/", &dir]);
        }
        if path.is_empty() {
            return Ok(dir);
        }
        let mut out = self.without_drive(path, keep_slash)?;
        if !path::is_abs(&out) {
            out = path::join(&[&dir, &out]);
        }
        let written = self.slashes(path);
        if keep_slash && written.ends_with('/') && !out.ends_with('/') {
            out.push('/');
        } else if keep_slash && written.ends_with("/.") && !out.ends_with("/.") {
            out.push_str(if out == "/" { "." } else { "/." });
        }
        Ok(out)
    }

    /// Destination of a copy; an empty path and `.` are the image's working directory.
    pub(crate) fn destination(self, dir: &str, path: &str) -> Result<String, PathError> {
        let path = self.without_drive(path, true)?;
        match path.as_str() {
            "" | "." => self.absolute(dir, "./", true),
            path if path::is_abs(path) => self.absolute("/", path, true),
            path => self.absolute(dir, path, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_what_says_directory() {
        for (dir, dest, want) in [
            ("/", ".", "/"),
            ("/app", ".", "/app/"),
            ("/app", "", "/app/"),
            ("/app", "x/", "/app/x/"),
            ("/app", "x/.", "/app/x/."),
            ("/app", "/y//z/", "/y//z/"),
            ("/app", "/y/.", "/y/."),
            ("/app", "../z", "/z"),
            ("app", "z", "/app/z"),
        ] {
            let absolute = PathRules::Posix.destination(dir, dest);
            assert_eq!(absolute.as_deref(), Ok(want), "{dir} {dest}");
        }
        assert_eq!(
            PathRules::Posix.absolute("/", r"C:\a", false).as_deref(),
            Ok(r"/C:\a")
        );
    }

    #[test]
    fn windows_has_one_drive_and_two_separators() {
        let windows = PathRules::of("windows");
        for (dir, dest, want) in [
            ("/", r"C:\app\", "/app/"),
            ("/app", r"sub\x", "/app/sub/x"),
            ("/app", r"c:sub", "/app/sub"),
            (r"C:\app", ".", "/app/"),
            ("/app", r"\y\\z\", "/y/z/"),
            ("/app", r"..\z", "/z"),
            ("/app", r"C:\", "/"),
        ] {
            let absolute = windows.destination(dir, dest);
            assert_eq!(absolute.as_deref(), Ok(want), "{dir} {dest}");
        }
        for (path, error) in [
            ("C:", PathError::DriveAlone("C:".into())),
            (r"\\host\share", PathError::Unc),
            ("//host/share", PathError::Unc),
            (r"d:\x", PathError::OtherDrive),
        ] {
            assert_eq!(windows.absolute("/", path, false), Err(error), "{path}");
            assert!(!windows.is_absolute(path), "{path}");
        }
        assert!(windows.is_absolute(r"C:\x") && windows.is_absolute("/x"));
        assert!(!windows.is_absolute("c:x") && !windows.is_absolute(r"x\y"));
        assert_eq!(windows.native("/a/b"), r"\a\b");
    }
}
