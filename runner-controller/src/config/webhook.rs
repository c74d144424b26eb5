//! The `[webhook]` table.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Listener for GitHub's deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Address of the listener. It has no TLS; a proxy in front of it does.
    pub listen: SocketAddr,
    /// File with the secret of the hook.
    pub secret_file: PathBuf,
    /// File with a further secret, during a rotation.
    pub next_secret_file: Option<PathBuf>,
}

impl WebhookConfig {
    /// Name of the systemd credential that holds the secret.
    pub const CREDENTIAL: &'static str = "webhook-secret";
    /// Name of the systemd credential that holds the further secret.
    pub const NEXT_CREDENTIAL: &'static str = "webhook-next-secret";

    /// Returns the files with secrets.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let next = self.next_secret_file.as_deref();
        std::iter::once(self.secret_file.as_path()).chain(next)
    }
}
