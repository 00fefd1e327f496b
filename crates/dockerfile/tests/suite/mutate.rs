//! Hostile Dockerfiles, made of honest ones: a mutating fuzzer that needs no instrumentation.
//!
//! The same seed gives the same inputs. Parser, shell words, ignore patterns and lowering get each; none may panic, none
//! may take long.

use std::time::{Duration, Instant};

use dockerfile::shell::{EnvList, Lexer};
use dockerfile::{ignore, syntax};

use crate::host::{Host, lowered};

/// How long one input may take; a slow machine under load included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How many changes find most of what breaks.
pub(crate) const MANY: usize = 8;

/// Inputs do not grow beyond this.
const MOST: usize = 16 << 10;

/// What a mutation puts in.
const WORDS: &[&str] = &[
    "\\\n",
    "`\n",
    "\r\n",
    "\n",
    " ",
    "\t",
    "#",
    "# escape=`\n",
    "# syntax=x\n",
    "# check=skip=all;error=true\n",
    "FROM ",
    "FROM scratch AS a\n",
    "FROM a\n",
    "--platform=$BUILDPLATFORM ",
    "--platform=windows/amd64 ",
    "C:\\",
    "d:",
    "--from=a ",
    "--from=0 ",
    "AS ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "LABEL ",
    "EXPOSE ",
    "WORKDIR ",
    "USER ",
    "VOLUME ",
    "CMD ",
    "ENTRYPOINT ",
    "HEALTHCHECK --interval=1s CMD ",
    "SHELL ",
    "ONBUILD ",
    "STOPSIGNAL ",
    "MAINTAINER ",
    "<<EOF",
    "<<-'EOF'",
    "<<\"E F\"",
    "EOF\n",
    "${",
    "}",
    "$",
    "${a:-",
    "${a:+",
    "${a:?",
    "${a#",
    "${a%%",
    "${a/b/",
    "${a//",
    "\"",
    "'",
    "\\",
    "`",
    "[",
    "]",
    "[\"a\", \"b\"]",
    ",",
    "=",
    ":",
    "/",
    "..",
    "/./",
    "*",
    "**",
    "?",
    "!",
    "[a-",
    "^",
    "--mount=type=bind,",
    "--mount=type=cache,target=",
    "--mount=type=secret,id=",
    "--mount=type=ssh",
    "--mount=from=a,target=/x",
    "--chown=1:1",
    "--chmod=u+x",
    "--chmod=7777",
    "--link",
    "--parents",
    "--exclude=*",
    "--checksum=sha256:",
    "--keep-git-dir",
    "--network=none",
    "--security=insecure",
    "--device=a=b",
    "https://a/b.git#c:d",
    "git@a:b",
    "http://a/",
    "80/tcp",
    "1-2",
    "65536",
    "99999999999999999999",
    "-1",
    "\u{feff}",
    "\u{0}",
    "é",
    "\u{10ffff}",
    "SOURCE_DATE_EPOCH=",
    "TARGETPLATFORM",
];

/// Numbers that only look random.
#[derive(Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap_or(0) % limit.max(1)
    }
}

/// One honest input, changed in `most` places at most.
pub(crate) fn mutated(seeds: &[Vec<u8>], numbers: &mut Numbers, most: usize) -> Vec<u8> {
    let mut text = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(most) {
        let at = numbers.below(text.len() + 1);
        let end = (at + numbers.below(40)).min(text.len());
        match numbers.below(7) {
            0 | 1 => {
                let word = WORDS[numbers.below(WORDS.len())];
                text.splice(at..at, word.bytes());
            }
            2 => {
                text.drain(at..end);
            }
            3 => {
                let part = text[at..end].to_vec();
                for _ in 0..numbers.below(20) {
                    text.splice(at..at, part.iter().copied());
                }
            }
            4 => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len() + 1);
                let to = (from + numbers.below(200)).min(other.len());
                text.splice(at..end, other[from..to].iter().copied());
            }
            5 if at < text.len() => text[at] ^= 1 << numbers.below(8),
            _ => text.truncate(at.max(16)),
        }
    }
    text.truncate(MOST);
    text
}

/// Gives `text` to everything that reads what a stranger wrote; returns how long that took.
pub(crate) fn feed(text: &[u8]) -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "measures how long an input takes"
    )]
    let begun = Instant::now();
    let _refused = syntax::parse(text);
    let patterns = ignore::patterns(text);
    if let Ok(matcher) = pattern::PatternMatcher::new(&patterns) {
        for path in ["a", "a/b/c.log", "dir/../x", "é/[", ""] {
            matcher.matches_or_parent_matches(path);
        }
    }
    let env = EnvList::from_strings(["a=one two", "b=", "PATH=/bin:/usr/bin"]);
    let shown = String::from_utf8_lossy(text);
    for escape in ['\\', '`'] {
        for line in shown.lines().take(200) {
            let _refused = Lexer::new(escape).process(line, &env);
            let _refused = Lexer::new(escape).process_words(line, &env);
        }
    }
    if let Ok(lowered) = lowered(&Host::default(), text, "") {
        let _refused = lowered.definition();
    }
    begun.elapsed()
}
