//! A small authority for tests, made with openssl.

use std::path::Path;
use std::process::Command;

use crate::process::{Error, need, output};

/// Makes `ca.pem` and, for `server` (localhost and 127.0.0.1) and `client`, `NAME.pem` with `NAME-key.pem` in a folder.
pub(super) fn make(dir: &Path) -> Result<(), Error> {
    need("openssl")?;
    let script = "set -e\n\
        key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\n\
        openssl req -x509 $key -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem\n\
        for name in server client; do\n\
          openssl req $key -subj /CN=$name -keyout $name-key.pem -out $name.csr\n\
          printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nextendedKeyUsage=%sAuth\\n' $name >ext\n\
          openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile ext -out $name.pem\n\
        done\n";
    output(Command::new("bash").current_dir(dir).args(["-c", script]))?;
    Ok(())
}
