//! Where the context and the Dockerfile come from.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use client::{Attachables, Upload};
use tokio::io::AsyncReadExt;

use crate::failure::CliError;

/// Folders that are gone after the build.
pub(crate) type Folders = Vec<tempfile::TempDir>;

/// What the context adds to the request.
#[derive(Debug, Default)]
pub(crate) struct Context {
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

/// What a folder is called, however it was named. Transfers of folders with one name start from what came before.
pub(crate) fn base_name(folder: &Path) -> String {
    std::path::absolute(folder)
        .ok()
        .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_default()
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
) -> Result<Context, CliError> {
    let mut found = Context::default();
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
            found
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
            found.dockerfile = "stdin".into();
            let empty = folder()?;
            offer
                .folders
                .insert("context".into(), empty.path().to_owned());
            found.temporary.push(empty);
        }
    } else if Path::new(context).is_dir() {
        let path = PathBuf::from(context);
        found.shared_key = base_name(&path);
        match file {
            Some("-") => piped = Some(stdin_dockerfile()?),
            Some(file) => dockerfile = Some(split(file)?),
            None => dockerfile = Some((path.clone(), name.clone())),
        }
        found.dockerfile = match file {
            Some("-") => "stdin".into(),
            Some(file) => file.into(),
            None => path.join("Dockerfile").display().to_string(),
        };
        offer.folders.insert("context".into(), path);
    } else if is_remote(context) {
        found.attrs.insert("context".into(), context.into());
        match file {
            Some("-") => piped = Some(stdin_dockerfile()?),
            Some(file) if Path::new(file).is_absolute() => {
                dockerfile = Some(split(file)?);
                found
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
        let made = folder()?;
        std::fs::write(made.path().join("Dockerfile"), text)
            .map_err(CliError::io("cannot write the Dockerfile"))?;
        dockerfile = Some((made.path().to_owned(), "Dockerfile".into()));
        found
            .attrs
            .insert("dockerfilekey".into(), "dockerfile".into());
        found.temporary.push(made);
    }
    if let Some((folder, file)) = dockerfile {
        name = existing(&folder, file)?;
        offer.folders.insert("dockerfile".into(), folder);
    }
    found.attrs.insert("filename".into(), name);
    Ok(found)
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
