//! The container of a real buildkitd is replaced by ours, on the same volume.

use std::path::Path;
use std::process::Command;

use super::{Docker, IMAGE, Trouble, ensure};
use crate::paths::Module;
use crate::process::{Error, need, output};

const BUILDER: &str = "rbuild-upgrade";
const CONTAINER: &str = "buildx_buildkit_rbuild-upgrade0";

/// Builds with buildkitd, replaces it, and builds again.
pub(super) fn run(docker: &Docker, project: &Path) -> Result<(), Trouble> {
    let tools = Module::find()?.tools().display().to_string();
    let volume = format!("{CONTAINER}_state");
    // buildx takes a container of this name for the builder's.
    let mut start = vec![
        "run".to_owned(),
        "--detach".to_owned(),
        "--privileged".to_owned(),
        "--network=host".to_owned(),
        format!("--name={CONTAINER}"),
        format!("--volume={volume}:/var/lib/buildkit"),
        format!("--volume={tools}:/real:ro"),
        "--entrypoint=/real/buildkitd".to_owned(),
    ];
    // The reference starts steps with runc, which our image does not have.
    for (file, target) in runc()? {
        start.push(format!("--volume={file}:{target}:ro"));
    }
    start.push(IMAGE.to_owned());
    start.push("--oci-worker-net=host".to_owned());
    docker.run(
        "docker",
        &start.iter().map(String::as_str).collect::<Vec<_>>(),
    )?;
    let options = format!("image={IMAGE},network=host");
    let create_builder = [
        "create",
        "--name",
        BUILDER,
        "--driver",
        "docker-container",
        "--driver-opt",
        &options,
        "--bootstrap",
    ];
    docker.run("buildx", &create_builder)?;
    docker.build(BUILDER, project, &["."])?;
    let log = docker.run("docker", &["exec", CONTAINER, "ls", "/var/lib/buildkit"])?;
    ensure(log.contains("runc-overlayfs"), || {
        format!("it was not buildkitd that built: {log}")
    })?;

    docker.run("buildx", &["rm", "--keep-state", BUILDER])?;
    docker.run("buildx", &create_builder)?;
    docker.build(BUILDER, project, &["."])?;
    let again = docker.build(BUILDER, project, &["."])?;
    ensure(again.contains("CACHED"), || again.clone())?;
    let files = docker.run("docker", &["exec", CONTAINER, "ls", "/var/lib/buildkit"])?;
    ensure(
        files.contains("format.json") && files.contains("runc-overlayfs"),
        || format!("beside what buildkitd left: {files}"),
    )?;
    docker.run("buildx", &["rm", BUILDER])?;
    Ok(())
}

/// runc and the libraries that the image lacks, with their places in the container.
fn runc() -> Result<Vec<(String, String)>, Error> {
    let runc = need("runc")?;
    let libraries = output(Command::new("ldd").arg(&runc))?;
    let mut files = vec![(
        runc.display().to_string(),
        "/usr/bin/buildkit-runc".to_owned(),
    )];
    for line in libraries.lines() {
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        if let Some(path) = path.filter(|path| path.contains("libseccomp")) {
            files.push((path.to_owned(), path.to_owned()));
        }
    }
    Ok(files)
}
