//! SIGINT and SIGTERM as something to wait for.

use std::io;

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Calls `act` for every SIGINT and SIGTERM from now on, on a thread of its own.
///
/// By handlers and not by blocking: `exec` resets handlers, but a blocked signal would stay
/// blocked in every step of the job (`std::process::Command` passes the mask on).
pub(crate) fn forward(mut act: impl FnMut() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for _ in &mut signals {
            act();
        }
    });
    Ok(())
}
