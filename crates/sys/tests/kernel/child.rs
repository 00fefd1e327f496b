//! Scenes that need a process of one thread: this binary, executed again, plays them before its test harness starts threads.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use sys::process::{SingleThreaded, exit_now};

/// The variable that names the scene.
const SCENE: &str = "SYS_TEST_SCENE";

/// How a scene ends that this kernel is too old for.
const UNSUPPORTED: i32 = 77;

/// What a process of one thread does, by name.
pub(crate) type Scene = (&'static str, fn(&SingleThreaded));

sys::before_main!(play);

fn play() {
    let environment = std::fs::read("/proc/self/environ").unwrap_or_default();
    let begin = format!("{SCENE}=");
    let scene = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(begin.as_bytes()));
    let Some(name) = scene else { return };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let alone = SingleThreaded::claim().unwrap();
        let scenes = super::scenes();
        let (_, scene) = scenes
            .iter()
            .find(|(own, _)| OsStr::new(own) == OsStr::from_bytes(name))
            .unwrap();
        scene(&alone);
    }));
    exit_now(i32::from(ended.is_err()) * 101);
}

/// Ends the scene: this kernel is too old for it.
pub(crate) fn unsupported() -> ! {
    exit_now(UNSUPPORTED)
}

/// Plays a scene in a process of its own and fails with what that wrote if it failed.
pub(crate) fn in_child(name: &str) {
    let output = Command::new("/proc/self/exe")
        .env(SCENE, name)
        .output()
        .unwrap();
    if output.status.code() == Some(UNSUPPORTED) {
        testkit::skip::skip(&format!("this kernel is too old for: {name}"));
        return;
    }
    assert!(
        output.status.success(),
        "{name}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
