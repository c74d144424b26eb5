//! Execution of the host's tools.

use std::process::{Command, Stdio};

use super::error::{OrRefuse, Refusal, RootError};

/// Runs a tool to its end. An error contains the tool's message.
pub(crate) fn run(refusal: Refusal, command: &mut Command) -> Result<(), RootError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .or_refuse(refusal, || format!("run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(RootError::plain(
        refusal,
        format!("{name} failed with {}: {}", output.status, message.trim()),
    ))
}
