//! For tests: networks that are nobody's, so that nothing of this machine is touched.

use std::os::fd::OwnedFd;

use crate::link::LOOPBACK;
use crate::socket::Socket;

/// Runs `test` on a thread in a new network namespace whose loopback interface is up.
pub(crate) fn alone<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let name = std::thread::current().name().map(str::to_owned);
    let thread = std::thread::Builder::new().name(name.unwrap_or_default());
    let running = thread.spawn(|| {
        sys::netns::unshare().unwrap();
        Socket::route().unwrap().up(LOOPBACK).unwrap();
        test()
    });
    match running.unwrap().join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs `work` on a thread in a namespace.
pub(crate) fn within<T: Send + 'static>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let namespace = namespace.try_clone().unwrap();
    let running = std::thread::spawn(move || {
        sys::netns::enter(&namespace).unwrap();
        work()
    });
    match running.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
