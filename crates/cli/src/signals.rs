//! Signals that were ignored when the program started.
// The standard library has no interface for signal handlers.
#![allow(unsafe_code)]

/// Calls `install`, which sets handlers for SIGINT, SIGTERM and SIGHUP, then restores those that
/// were ignored before. `nohup` ignores SIGHUP, and shells ignore SIGINT for background commands.
#[cfg(unix)]
pub fn keep_ignored<T>(install: impl FnOnce() -> T) -> T {
    let is_ignored = |signal: &libc::c_int| {
        // SAFETY: an all-zero `sigaction` is valid, and without a new action the call only writes
        // the current one.
        let action = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, std::ptr::null(), &mut action);
            action
        };
        action.sa_sigaction == libc::SIG_IGN
    };
    let ignored: Vec<_> = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP].into_iter().filter(is_ignored).collect();
    let installed = install();
    for signal in ignored {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    installed
}

/// Calls `install`. Only Unix has ignored signals.
#[cfg(not(unix))]
pub fn keep_ignored<T>(install: impl FnOnce() -> T) -> T {
    install()
}
