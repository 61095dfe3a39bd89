//! Signals that the program was started to ignore.
// The standard library has no interface for signal handlers.
#![allow(unsafe_code)]

/// Calls `install`, which sets handlers for SIGINT, SIGTERM and SIGHUP, and then ignores those of
/// them again that were ignored before: `nohup` ignores SIGHUP, and a shell SIGINT for a command in
/// the background.
#[cfg(unix)]
pub fn keep_ignored<T>(install: impl FnOnce() -> T) -> T {
    let is_ignored = |signal: &libc::c_int| {
        // SAFETY: all bytes zero are a valid `sigaction`, and without a new action the call only
        // writes the current one.
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
        // SAFETY: to ignore a signal calls nothing.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    installed
}

/// Calls `install`: only Unix has signals that a program is started to ignore.
#[cfg(not(unix))]
pub fn keep_ignored<T>(install: impl FnOnce() -> T) -> T {
    install()
}
