//! What counts and what does not: keys and signatures of gpg, ssh-keygen and git (`data/README.md`), and such as no honest tool makes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "suite/data.rs"]
mod data;
#[path = "suite/forged.rs"]
mod forged;
#[path = "suite/git.rs"]
mod git;
#[path = "suite/openpgp.rs"]
mod openpgp;
#[path = "suite/packets.rs"]
mod packets;
#[path = "suite/ssh.rs"]
mod ssh;
#[path = "suite/verdicts.rs"]
mod verdicts;
