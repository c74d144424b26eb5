//! SIGINT and SIGTERM as something to wait for, without a handler.

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::SignalFd,
};

/// Blocks both signals in this thread (and those it starts) and returns where they arrive.
///
/// Programs started by `std::process::Command` get an empty mask again.
pub(crate) fn watch() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()?;
    SignalFd::new(&set)
}

/// Calls `act` for every signal, on a thread of its own.
pub(crate) fn forward(signals: SignalFd, mut act: impl FnMut() + Send + 'static) {
    std::thread::spawn(move || {
        while let Ok(Some(_)) = signals.read_signal() {
            act();
        }
    });
}
