//! Why root refused, as a sentence for the journal and a number for the daemon.

use std::error::Error;

/// Why a slot was not started. Its number is the unit's exit status (`ExecMainStatus`).
///
/// A container's own exit status arrives in the same place and may be any number, so the daemon
/// reads a refusal only from a life that never became active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 80: the configuration is missing, wrong or not root's alone.
    Config,
    /// 81: the image is missing, is no systemd userland, or is reached through a symlink.
    Image,
    /// 82: our nftables table is missing, or is not in every rule this configuration's.
    Firewall,
    /// 83: the slot's socket directory is missing or not the daemon's.
    Sockets,
    /// 84: the life records cannot be written.
    Records,
    /// 85: the writable layer cannot be made.
    Layer,
    /// 86: the root filesystem cannot be put together.
    Mounts,
    /// 87: `systemd-nspawn` cannot be run.
    Nspawn,
    /// 88: something an earlier life left behind cannot be removed.
    Leftovers,
    /// 89: not started by systemd as the slot's unit, or not as root.
    Caller,
    /// 90: the container's network cannot be addressed (`ExecStartPost=`).
    Network,
    /// 91: the privileges it does not need cannot be given up.
    Cage,
}

impl Refusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
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
        Self::Cage,
    ];

    /// The exit status.
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
            Self::Cage => 91,
        }
    }

    /// The refusal with this exit status.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|refusal| i32::from(refusal.code()) == code)
    }

    /// What is wrong and where to look, in a few words.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Config => "the launcher refuses the configuration",
            Self::Image => "the image cannot be used",
            Self::Firewall => {
                "the firewall table is missing or differs; reload runner-controller-firewall.service"
            }
            Self::Sockets => "the slot's socket directory is missing or not the daemon's",
            Self::Records => "the life records cannot be written",
            Self::Layer => "the writable layer cannot be made",
            Self::Mounts => "the root filesystem cannot be mounted",
            Self::Nspawn => "systemd-nspawn cannot be run",
            Self::Leftovers => "an earlier life's leftovers cannot be removed",
            Self::Caller => "the launcher was not started as the slot's unit",
            Self::Network => "the container's network cannot be addressed",
            Self::Cage => "privileges that are not needed cannot be given up",
        }
    }
}

/// One thing root could not do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RootError {
    /// What it means for the slot.
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
    fn every_refusal_has_its_own_number() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(refusal.code()), 80 + index);
            assert_eq!(Refusal::from_code(i32::from(refusal.code())), Some(refusal));
        }
        assert_eq!(Refusal::from_code(0), None);
    }
}
