//! Every syscall and every unsafe, behind owned descriptors.
//!
//! A function here is one kernel call, named after it. Policy (what to mount where, which paths to trust) is the caller's.

#![expect(unsafe_code, reason = "this crate is where raw system calls live")]

pub mod bpf;
pub mod caps;
pub mod file;
pub mod landlock;
pub mod machine;
pub mod memory;
pub mod mount;
pub mod netns;
pub mod notify;
pub mod path;
pub mod process;
pub mod pty;
pub mod reflink;
pub mod seccomp;
pub mod socket;
pub mod userns;
pub mod xattr;

mod nested;
mod raw;
