//! A failure of a root program: a message for the journal and an exit status for the daemon.

use std::error::Error;

/// Reason why a slot was not started. Its code is the unit's exit status (`ExecMainStatus`).
///
/// A container's exit status arrives in the same property and can be any number. Therefore the daemon
/// reads a refusal only from a runner that never became active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 80: the configuration is missing or wrong, or root is not its only writer.
    Config,
    /// 81: the image is missing, has no systemd, or is behind a symlink.
    Image,
    /// 82: our nftables table is missing, or a rule differs from the configuration.
    Firewall,
    /// 83: the slot's socket directory is missing, or the daemon does not own it.
    Sockets,
    /// 84: a record cannot be written.
    Records,
    /// 85: the writable layer cannot be created.
    Layer,
    /// 86: the root filesystem cannot be mounted.
    Mounts,
    /// 87: `systemd-nspawn` cannot be run.
    Nspawn,
    /// 88: leftovers of an earlier runner cannot be removed.
    Leftovers,
    /// 89: systemd did not start the program as the slot's unit, or not as root.
    Caller,
    /// 90: the container's link cannot be addressed.
    Network,
    /// 91: the program cannot give up the privileges that it does not need.
    Sandbox,
    /// 92: a directory of the host that the pool's `binds` name cannot be bound.
    Binds,
    /// 93: a device that the pool opens to its jobs is missing on this host.
    Devices,
}

impl Refusal {
    /// All refusals, in the order of their codes.
    pub const ALL: [Self; 14] = [
        Self::Config,
        Self::Image,
        Self::Firewall,
        Self::Sockets,
        Self::Records,
        Self::Layer,
        Self::Mounts,
        Self::Nspawn,
        Self::Leftovers,
        Self::Caller,
        Self::Network,
        Self::Sandbox,
        Self::Binds,
        Self::Devices,
    ];

    /// Returns the exit status.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Config => 80,
            Self::Image => 81,
            Self::Firewall => 82,
            Self::Sockets => 83,
            Self::Records => 84,
            Self::Layer => 85,
            Self::Mounts => 86,
            Self::Nspawn => 87,
            Self::Leftovers => 88,
            Self::Caller => 89,
            Self::Network => 90,
            Self::Sandbox => 91,
            Self::Binds => 92,
            Self::Devices => 93,
        }
    }

    /// Returns the refusal with this exit status.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|refusal| i32::from(refusal.code()) == code)
    }

    /// Returns a short description for the status and the journal.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Config => "the launcher refuses the configuration",
            Self::Image => "the image cannot be used",
            Self::Firewall => {
                "the firewall table is missing or differs; reload runner-controller-firewall.service"
            }
            Self::Sockets => {
                "the slot's socket directory is missing or does not belong to the daemon"
            }
            Self::Records => "the records of the slot cannot be written",
            Self::Layer => "the writable layer cannot be created",
            Self::Mounts => "the root filesystem cannot be mounted",
            Self::Nspawn => "systemd-nspawn cannot be run",
            Self::Leftovers => "leftovers of an earlier runner cannot be removed",
            Self::Caller => "systemd did not start the launcher as the slot's unit",
            Self::Network => "the container's network link cannot be addressed",
            Self::Sandbox => "unneeded privileges cannot be given up",
            Self::Binds => "a directory of the pool's binds cannot be used",
            Self::Devices => "a device that the pool opens to its jobs is missing",
        }
    }
}

/// A failure of a root program.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RootError {
    /// Consequence for the slot.
    pub refusal: Refusal,
    /// The failed operation, with the facts that a reader of the journal needs.
    pub message: String,
    /// Its cause.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl RootError {
    /// Returns a failure without a cause below it.
    pub(crate) fn plain(refusal: Refusal, message: String) -> Self {
        Self {
            refusal,
            message,
            source: None,
        }
    }

    /// Returns the failure of an operation: a verb and its object, to be read after "cannot".
    pub(crate) fn caused(
        refusal: Refusal,
        operation: &str,
        cause: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            refusal,
            message: format!("cannot {operation}"),
            source: Some(Box::new(cause)),
        }
    }
}

/// Conversion of a cause into a [`RootError`].
pub(crate) trait OrRefuse<T> {
    /// Names the operation that failed: a verb and its object, to be read after "cannot".
    fn or_refuse(
        self,
        refusal: Refusal,
        operation: impl FnOnce() -> String,
    ) -> Result<T, RootError>;
}

impl<T, E: Error + Send + Sync + 'static> OrRefuse<T> for Result<T, E> {
    fn or_refuse(
        self,
        refusal: Refusal,
        operation: impl FnOnce() -> String,
    ) -> Result<T, RootError> {
        self.map_err(|cause| RootError::caused(refusal, &operation(), cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_distinct_exit_status() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(refusal.code()), 80 + index);
            assert_eq!(Refusal::from_code(i32::from(refusal.code())), Some(refusal));
        }
        assert_eq!(Refusal::from_code(0), None);
    }
}
