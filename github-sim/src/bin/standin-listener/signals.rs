//! SIGINT and SIGTERM as events.

use std::io;

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Calls `act` with every SIGINT and SIGTERM from now on, on a new thread.
///
/// This uses handlers. A blocked signal would stay blocked in every step of the job, because
/// `std::process::Command` keeps the mask; `exec` resets handlers.
pub(crate) fn forward(mut act: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for signal in &mut signals {
            act(signal);
        }
    });
    Ok(())
}
