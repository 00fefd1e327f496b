//! Names nobody can guess.

use std::fs::File;
use std::io::{self, Read};

/// Returns 25 random letters and digits, as sessions and builds are named.
pub fn new_id() -> io::Result<String> {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let mut bytes = [0u8; 25];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes
        .iter()
        .filter_map(|b| LETTERS.get(usize::from(b & 31)))
        .map(|b| char::from(*b))
        .collect())
}
