"""Fills the folder of a mirror with registries of npm and cargo and a repository of git, each with one package that says what it is."""
import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

folder, address = sys.argv[1:3]
here = "https://" + address


def archive(top, files):
    """A packed archive of `files` below the folder `top`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(top + "/" + name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def write(path, contents):
    path = os.path.join(folder, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(contents if isinstance(contents, bytes) else contents.encode())


# npm: a document for each package, and its archive.
package = {"name": "rbuild-probe", "version": "1.0.0", "main": "index.js"}
packed = archive("package", {"package.json": json.dumps(package), "index.js": "module.exports = 'PROBE OF NPM'\n"})
integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
dist = {"tarball": here + "/npm-archives/rbuild-probe-1.0.0.tgz", "integrity": integrity}
write("npm-archives/rbuild-probe-1.0.0.tgz", packed)
document = {"name": "rbuild-probe", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": dict(package, dist=dist)}}
write("npm/rbuild-probe", json.dumps(document))

# cargo: a sparse index, a line for each version, and its archive.
manifest = '[package]\nname = "rbuild-probe"\nversion = "1.0.0"\nedition = "2021"\n'
packed = archive("rbuild-probe-1.0.0", {"Cargo.toml": manifest, "src/lib.rs": "// PROBE OF CARGO\n"})
version = {"name": "rbuild-probe", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False}
version["cksum"] = hashlib.sha256(packed).hexdigest()
write("cargo/config.json", json.dumps({"dl": here + "/cargo-archives/{crate}-{version}.crate"}))
write("cargo/rb/ui/rbuild-probe", json.dumps(version) + "\n")
write("cargo-archives/rbuild-probe-1.0.0.crate", packed)

# git: what clients read of a repository as plain files.
work = os.path.join(folder, "git-work")
bare = os.path.join(folder, "git/probe.git")
write("git-work/probe", "PROBE OF GIT\n")
author = ["-c", "user.name=probe", "-c", "user.email=probe@example.com"]
for command in (
    ["git", "init", "-q", "-b", "main", work],
    ["git", "-C", work, "add", "probe"],
    ["git", "-C", work, *author, "commit", "-q", "-m", "probe"],
    ["git", "clone", "-q", "--bare", work, bare],
    ["git", "-C", bare, "update-server-info"],
):
    subprocess.run(command, check=True)
