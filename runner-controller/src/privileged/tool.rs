//! Tools of the host that root's programs run.

use std::process::{Command, Stdio};

use super::error::{OrRefuse, Refusal, RootError};

/// Runs a tool to its end; its own words go into the error.
pub(crate) fn run(refusal: Refusal, command: &mut Command) -> Result<(), RootError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .or_refuse(refusal, || format!("run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(RootError::plain(
        refusal,
        format!("{name} ended with {}: {}", output.status, said.trim()),
    ))
}
