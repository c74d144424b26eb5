//! Why a client cannot be made.

use std::path::PathBuf;

/// A reason why GitHub cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// This host has no certificate authorities.
    #[error(
        "cannot load this host's certificate authorities; install ca-certificates or set SSL_CERT_FILE"
    )]
    Roots(#[source] std::io::Error),
    /// A configured file cannot be used.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// Contents of the file.
        what: String,
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A configured value does not fit into its header.
    #[error("cannot send the header {0}: its value has characters that no header may have")]
    Header(&'static str),
}
