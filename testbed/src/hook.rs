//! A hook at the stand-in GitHub, and the host's listener for its deliveries.

use anyhow::Result;
use github_sim::{HookSpec, HookTarget};

use crate::lab::Lab;
use crate::net::UPLINK;

/// Secret of the hook.
pub const SECRET: &str = "webhook_testbed_8f0d3c6b5a9e4172";
/// Port of the host's listener.
pub const PORT: u16 = 9818;

const SECRET_FILE: &str = "/etc/runner-controller/webhook-secret";

/// Gives a repository or an organisation a hook. Returns the lines of the configuration that let the host take
/// its deliveries.
pub fn add(lab: &Lab, scope: &str) -> Result<String> {
    let lines = listen(lab)?;
    let target = HookTarget::Scope(scope.parse()?);
    let url = format!("http://{UPLINK}:{PORT}/webhook");
    lab.sim().add_hook(&HookSpec::new(target, &url, SECRET))?;
    Ok(lines)
}

/// Writes the secret of deliveries. Returns the lines of the configuration that let the host take them.
pub fn listen(lab: &Lab) -> Result<String> {
    lab.host().write(SECRET_FILE, SECRET.as_bytes(), 0o600)?;
    Ok(format!(
        "[webhook]\nlisten = \"{UPLINK}:{PORT}\"\nsecret_file = \"{SECRET_FILE}\"\n"
    ))
}
