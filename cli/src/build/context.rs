//! Where the context and the Dockerfile come from.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use client::{Attachables, Folder, Upload};
use tokio::io::AsyncReadExt;

use crate::failure::CliError;

/// Folders that are gone after the build.
pub(crate) type Folders = Vec<tempfile::TempDir>;

/// What the context adds to the request.
#[derive(Debug, Default)]
pub(crate) struct BuildContext {
    pub(crate) attrs: BTreeMap<String, String>,
    pub(crate) shared_key: String,
    pub(crate) temporary: Folders,
    /// What the user calls the Dockerfile; empty when it is not here.
    pub(crate) dockerfile: String,
}

/// Whether a context is fetched by the daemon.
pub(crate) fn is_remote(text: &str) -> bool {
    const PREFIXES: [&str; 6] = [
        "http://",
        "https://",
        "git://",
        "ssh://",
        "git@",
        "github.com/",
    ];
    PREFIXES.iter().any(|p| text.starts_with(p))
}

/// What tells a folder from every other one: its name, for people, and a digest of its path, of this machine and of the
/// folder's number on its device. Transfers with one identity start from what came before, and compare by metadata: of two
/// folders with one identity the files of one could pass for those of the other.
pub(crate) fn identity(folder: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;
    let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let number = std::fs::metadata(folder).map_or((0, 0), |m| (m.dev(), m.ino()));
    // One of a container's files may be its host's, so that both count.
    let machine = ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .map(|file| std::fs::read(file).unwrap_or_default());
    let [id, host] = &machine;
    let mut text = Vec::new();
    for part in [
        id.trim_ascii(),
        host.trim_ascii(),
        path.as_os_str().as_bytes(),
    ] {
        text.extend_from_slice(part);
        text.push(0);
    }
    text.extend_from_slice(&number.0.to_le_bytes());
    text.extend_from_slice(&number.1.to_le_bytes());
    let digest = oci::Digest::sha256(text);
    let short: String = digest.hex().chars().take(32).collect();
    format!("{}-{short}", name.unwrap_or_default())
}

/// Whether a folder lies in another one by its name, so that the other gives all of it away.
fn is_within(folder: &Path, other: &Path) -> bool {
    let absolute = |p: &Path| std::path::absolute(p).ok();
    let parent = std::path::Component::ParentDir;
    absolute(folder)
        .zip(absolute(other))
        .and_then(|(folder, other)| {
            let rest = folder.strip_prefix(other).ok()?;
            Some(rest.components().all(|c| c != parent))
        })
        .unwrap_or(false)
}

// As the reference tells archives from Dockerfiles on standard input.
fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [
        b"BZh",
        &[0x1f, 0x8b, 0x08],
        &[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
        &[0x28, 0xb5, 0x2f, 0xfd],
    ];
    MAGIC.iter().any(|m| head.starts_with(m)) || head.get(257..262) == Some(b"ustar")
}

fn folder() -> Result<tempfile::TempDir, CliError> {
    tempfile::tempdir().map_err(CliError::io("cannot make a temporary folder"))
}

fn usage(text: impl Into<String>) -> CliError {
    CliError::Usage(text.into())
}

/// Finds context and Dockerfile, and offers what is local.
pub(crate) async fn resolve(
    context: &str,
    file: Option<&str>,
    offer: &mut Attachables,
) -> Result<BuildContext, CliError> {
    let mut resolved = BuildContext::default();
    let mut piped: Option<Vec<u8>> = None;
    // Folder and name of the Dockerfile, when it is here.
    let mut dockerfile: Option<(PathBuf, String)> = None;
    let mut name = String::from("Dockerfile");
    if context == "-" {
        if file == Some("-") {
            return Err(usage(
                "invalid argument: can't use stdin for both build context and dockerfile",
            ));
        }
        let mut head = Vec::new();
        let mut stdin = tokio::io::stdin();
        (&mut stdin)
            .take(1024)
            .read_to_end(&mut head)
            .await
            .map_err(CliError::io("failed to read context from STDIN"))?;
        if is_archive(&head) {
            let id = client::new_id().map_err(CliError::io("no random bytes"))?;
            resolved
                .attrs
                .insert("context".into(), format!("http://buildkit-session/{id}"));
            let stream = AsyncReadExt::chain(io::Cursor::new(head), stdin);
            offer.uploads.insert(id, Upload(Box::new(stream)));
            if let Some(file) = file {
                name = file.to_owned();
            }
        } else {
            if file.is_some() {
                return Err(usage(
                    "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
                ));
            }
            stdin
                .read_to_end(&mut head)
                .await
                .map_err(CliError::io("failed to read Dockerfile from STDIN"))?;
            piped = Some(head);
            resolved.dockerfile = "stdin".into();
            let empty = folder()?;
            offer
                .folders
                .insert("context".into(), empty.path().to_owned().into());
            resolved.temporary.push(empty);
        }
    } else if Path::new(context).is_dir() {
        let path = PathBuf::from(context);
        resolved.shared_key = identity(&path);
        match file {
            Some("-") => piped = Some(stdin_dockerfile()?),
            Some(file) => dockerfile = Some(split(file)?),
            None => dockerfile = Some((path.clone(), name.clone())),
        }
        resolved.dockerfile = match file {
            Some("-") => "stdin".into(),
            Some(file) => file.into(),
            None => path.join("Dockerfile").display().to_string(),
        };
        offer.folders.insert("context".into(), path.into());
    } else if is_remote(context) {
        resolved.attrs.insert("context".into(), context.into());
        match file {
            Some("-") => piped = Some(stdin_dockerfile()?),
            Some(file) if Path::new(file).is_absolute() => {
                dockerfile = Some(split(file)?);
                resolved
                    .attrs
                    .insert("dockerfilekey".into(), "dockerfile".into());
            }
            Some(file) => name = file.to_owned(),
            None => {}
        }
    } else {
        return Err(usage(format!(
            "unable to prepare context: path {context:?} not found"
        )));
    }
    if let Some(text) = piped {
        let folder_of_text = folder()?;
        std::fs::write(folder_of_text.path().join("Dockerfile"), text)
            .map_err(CliError::io("cannot write the Dockerfile"))?;
        dockerfile = Some((folder_of_text.path().to_owned(), "Dockerfile".into()));
        resolved
            .attrs
            .insert("dockerfilekey".into(), "dockerfile".into());
        resolved.temporary.push(folder_of_text);
    }
    if let Some((folder, file)) = dockerfile {
        name = existing(&folder, file)?;
        let context = offer.folders.get("context").map(|f| f.path.clone());
        let is_piped = resolved.temporary.iter().any(|t| t.path() == folder);
        if context.as_ref() != Some(&folder) && !is_piped {
            // The daemon keeps the Dockerfile's folder under the same key.
            resolved.shared_key += &format!("+{}", identity(&folder));
        }
        let inside = is_piped || context.is_some_and(|context| is_within(&folder, &context));
        let special = name.contains(['*', '?', '[', '\\']);
        // A file that is named gives away nothing of its folder.
        let only = match inside || special {
            true => Vec::new(),
            false => vec![
                name.clone(),
                format!("{name}.dockerignore"),
                ".dockerignore".into(),
            ],
        };
        let folder = Folder { path: folder, only };
        offer.folders.insert("dockerfile".into(), folder);
    }
    resolved.attrs.insert("filename".into(), name);
    Ok(resolved)
}

fn stdin_dockerfile() -> Result<Vec<u8>, CliError> {
    let mut text = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut text)
        .map_err(CliError::io("failed to read Dockerfile from STDIN"))?;
    Ok(text)
}

fn split(file: &str) -> Result<(PathBuf, String), CliError> {
    let path = Path::new(file);
    let name = path
        .file_name()
        .ok_or_else(|| usage(format!("{file:?} is no file")))?;
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    Ok((folder.to_owned(), name.to_string_lossy().into_owned()))
}

// `dockerfile` will do for `Dockerfile`; a file that is not there is told before anything is sent.
fn existing(folder: &Path, name: String) -> Result<String, CliError> {
    if folder.join(&name).exists() {
        return Ok(name);
    }
    let lower = name.to_lowercase();
    if lower != name && folder.join(&lower).exists() {
        return Ok(lower);
    }
    Err(usage(format!(
        "failed to read dockerfile: open {}: no such file or directory",
        folder.join(&name).display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn folders_that_look_alike_have_identities_of_their_own() -> TestResult {
        let dir = tempfile::tempdir()?;
        let folder = |place: &str| -> Result<PathBuf, Box<dyn std::error::Error>> {
            let folder = dir.path().join(place).join("app");
            std::fs::create_dir_all(&folder)?;
            Ok(folder)
        };
        let (one, two) = (folder("one")?, folder("two")?);
        assert_eq!(identity(&one), identity(&one.join(".")));
        assert_ne!(identity(&one), identity(&two));
        assert!(identity(&one).starts_with("app-"));
        // Another folder in the place of the first.
        let before = identity(&one);
        std::fs::rename(&one, dir.path().join("old"))?;
        std::fs::create_dir(&one)?;
        assert_ne!(identity(&one), before);
        Ok(())
    }

    #[tokio::test]
    async fn a_dockerfile_elsewhere_gives_away_nothing_but_itself() -> TestResult {
        let dir = tempfile::tempdir()?;
        let (home, context) = (dir.path().join("home"), dir.path().join("context"));
        std::fs::create_dir_all(context.join("docker"))?;
        std::fs::create_dir(&home)?;
        for file in [
            home.join("app.Dockerfile"),
            context.join("Dockerfile"),
            context.join("docker/D"),
        ] {
            std::fs::write(file, "FROM scratch")?;
        }
        let (home, here) = (home.display().to_string(), context.display().to_string());
        let files = [
            "app.Dockerfile",
            "app.Dockerfile.dockerignore",
            ".dockerignore",
        ];
        let mut keys = Vec::new();
        for (file, only) in [
            (None, &[][..]),
            (Some(format!("{here}/docker/D")), &[]),
            (Some(format!("{home}/app.Dockerfile")), &files),
            (Some(format!("{here}/../home/app.Dockerfile")), &files),
        ] {
            let mut offer = Attachables::default();
            let context = resolve(&here, file.as_deref(), &mut offer).await?;
            let folder = offer.folders.get("dockerfile").ok_or("no folder")?;
            assert_eq!(folder.only, only, "{file:?}");
            keys.push(context.shared_key);
        }
        keys.sort();
        keys.dedup();
        assert_eq!(
            keys.len(),
            4,
            "each folder of a Dockerfile is kept by itself: {keys:?}"
        );
        Ok(())
    }
}
