//! The contexts and Dockerfiles of the rows: the same bytes on every machine, made once.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::process::{Error, at};

/// Part of the folder's name, so that a change here makes everything anew.
const EDITION: &str = "1";

const FILES: usize = 10_000;
const FILE_BYTES: usize = 6_000;
const BIG_FILE_BYTES: usize = 300_000_000;

/// Returns the folder of a context.
pub(super) fn context(root: &Path, name: &str) -> PathBuf {
    root.join(EDITION).join(name).join("context")
}

/// Returns the folder of the Dockerfile; it is not in the context, so that it counts as no file of it.
pub(super) fn dockerfile(root: &Path, name: &str) -> PathBuf {
    root.join(EDITION).join(name).join("dockerfile")
}

/// Makes what is not there.
pub(super) fn make(root: &Path) -> Result<(), Error> {
    let complete = root.join(EDITION).join("complete");
    if complete.is_file() {
        return Ok(());
    }
    if root.exists() {
        fs::remove_dir_all(root).map_err(at("emptying", root))?;
    }
    eprintln!("making the contexts in {}", root.display());
    for (name, text) in [
        ("run", echoes()),
        ("files", "FROM scratch\nCOPY . /src/\n".to_owned()),
        ("big", "FROM scratch\nCOPY big.bin /\n".to_owned()),
        (
            "debian",
            "FROM debian:bookworm-slim\nRUN cp -a /usr /usr2\n".to_owned(),
        ),
        ("parallel", stages()),
        ("base", "FROM busybox:latest\nRUN true\n".to_owned()),
    ] {
        let (context, dir) = (context(root, name), dockerfile(root, name));
        fs::create_dir_all(&context).map_err(at("making", &context))?;
        fs::create_dir_all(&dir).map_err(at("making", &dir))?;
        let file = dir.join("Dockerfile");
        fs::write(&file, text).map_err(at("writing", &file))?;
    }
    many(&context(root, "files"))?;
    let big = context(root, "big").join("big.bin");
    random(&big).map_err(at("writing", &big))?;
    fs::write(&complete, "").map_err(at("writing", &complete))
}

fn echoes() -> String {
    let mut text = "FROM busybox:latest\n".to_owned();
    for n in 1..=50 {
        let _never = writeln!(text, "RUN echo step {n}");
    }
    text
}

fn stages() -> String {
    let mut text = String::new();
    for n in 1..=8 {
        let _never = writeln!(
            text,
            "FROM busybox:latest AS stage{n}\nRUN sleep 1 && echo {n} > /out{n}"
        );
    }
    text.push_str("FROM scratch\n");
    for n in 1..=8 {
        let _never = writeln!(text, "COPY --from=stage{n} /out{n} /");
    }
    text
}

/// 100 folders of 100 files of words, which compress about as source code does.
fn many(dir: &Path) -> Result<(), Error> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for number in 0..FILES {
        let folder = dir.join(format!("d{:02}", number / 100));
        if number.is_multiple_of(100) {
            fs::create_dir_all(&folder).map_err(at("making", &folder))?;
        }
        let mut text = String::with_capacity(FILE_BYTES + 16);
        while text.len() < FILE_BYTES {
            let n = numbers.next();
            // Common words and rare ones.
            let word = if n.is_multiple_of(3) {
                n >> 40
            } else {
                n >> 56
            };
            let _never = write!(text, "{word:x}");
            text.push(if n.is_multiple_of(7) { '\n' } else { ' ' });
        }
        text.truncate(FILE_BYTES);
        let file = folder.join(format!("f{number:05}.txt"));
        fs::write(&file, text).map_err(at("writing", &file))?;
    }
    Ok(())
}

/// A file that does not compress.
fn random(file: &Path) -> std::io::Result<()> {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    for _ in 0..BIG_FILE_BYTES / 8 {
        out.write_all(&numbers.next().to_le_bytes())?;
    }
    out.flush()
}

/// splitmix64: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
