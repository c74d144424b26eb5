//! Errors of calls to systemd.

use zbus::fdo;

use super::bus::CALL_TIMEOUT;
use crate::world::Failure;

/// Path of the polkit rule that `runner-controller units` prints.
const POLKIT_RULE: &str = "/etc/polkit-1/rules.d/50-runner-controller.rules";

/// Failure of a call to systemd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    /// The system bus is not connected at the moment.
    #[error("cannot {verb} {unit}: not connected to systemd: {reason}")]
    Disconnected {
        /// Verb of the call.
        verb: &'static str,
        /// Unit of the call.
        unit: String,
        /// Reason for the lost connection.
        reason: String,
    },
    /// polkit refused the call.
    #[error(
        "cannot {verb} {unit}: polkit refused it; if `systemctl status polkit` shows that polkit cannot start a process, free tasks or memory of the host; otherwise install {POLKIT_RULE} as `runner-controller units` prints it"
    )]
    Denied {
        /// Verb of the call.
        verb: &'static str,
        /// Unit of the call.
        unit: String,
        /// Answer of the bus.
        #[source]
        source: zbus::Error,
    },
    /// systemd does not have the unit, or cannot use it.
    #[error(
        "cannot {verb} {unit}: systemd does not have a usable unit of this name; install what `runner-controller units` prints and run `systemctl daemon-reload`"
    )]
    NoUnit {
        /// Verb of the call.
        verb: &'static str,
        /// Unit of the call.
        unit: String,
        /// Answer of systemd.
        #[source]
        source: zbus::Error,
    },
    /// systemd did not answer in time. It may have carried out the call.
    #[error("cannot {verb} {unit}: systemd did not answer within {} s", CALL_TIMEOUT.as_secs())]
    TimedOut {
        /// Verb of the call.
        verb: &'static str,
        /// Unit of the call.
        unit: String,
    },
    /// Another failure of a call.
    #[error("cannot {verb} {unit}")]
    Call {
        /// Verb of the call.
        verb: &'static str,
        /// Unit of the call.
        unit: String,
        /// Answer of the bus.
        #[source]
        source: zbus::Error,
    },
    /// The first connection failed.
    #[error("cannot connect to systemd over the system bus")]
    Connect(#[source] zbus::Error),
}

impl Failure for MachineError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::Call { .. }
            | Self::Connect(_) => true,
            // An operator has to install the rule or the unit.
            Self::Denied { .. } | Self::NoUnit { .. } => false,
        }
    }
}

impl MachineError {
    /// Returns the error of a call that failed with `source`.
    pub(super) fn of(verb: &'static str, unit: &str, source: zbus::Error) -> Self {
        let unit = unit.to_owned();
        match error_name(&source).as_str() {
            "org.freedesktop.DBus.Error.AccessDenied"
            | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
                Self::Denied { verb, unit, source }
            }
            "org.freedesktop.systemd1.NoSuchUnit"
            | "org.freedesktop.systemd1.LoadFailed"
            | "org.freedesktop.systemd1.BadUnitSetting"
            | "org.freedesktop.systemd1.UnitMasked" => Self::NoUnit { verb, unit, source },
            _ if is_timeout(&source) => Self::TimedOut { verb, unit },
            _ => Self::Call { verb, unit, source },
        }
    }
}

/// Returns the D-Bus name of an error. It is empty if the error is not an answer.
pub(super) fn error_name(error: &zbus::Error) -> String {
    if let zbus::Error::MethodError(name, _, _) = error {
        name.to_string()
    } else if let zbus::Error::FDO(error) = error {
        zbus::DBusError::name(error.as_ref()).to_string()
    } else {
        String::new()
    }
}

/// Returns true if the unit or its process does not exist.
pub(super) fn is_gone(error: &zbus::Error) -> bool {
    matches!(
        error_name(error).as_str(),
        "org.freedesktop.systemd1.NoSuchUnit" | "org.freedesktop.systemd1.NoSuchProcess"
    )
}

fn is_timeout(error: &zbus::Error) -> bool {
    if let zbus::Error::FDO(error) = error {
        return matches!(
            **error,
            fdo::Error::NoReply(_) | fdo::Error::Timeout(_) | fdo::Error::TimedOut(_)
        );
    }
    matches!(error, zbus::Error::InputOutput(error) if error.kind() == std::io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_polkit_names_the_rule_to_install_and_the_state_to_check() {
        let source = zbus::Error::FDO(Box::new(fdo::Error::InteractiveAuthorizationRequired(
            "Interactive authentication required.".into(),
        )));
        let error = MachineError::of("start", "runner-ci@3.service", source);
        assert!(matches!(error, MachineError::Denied { .. }), "{error:?}");
        for part in [POLKIT_RULE, "systemctl status polkit", "tasks"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(!error.is_transient());
    }

    #[test]
    fn a_call_without_an_answer_is_worth_a_retry() {
        let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "timed out");
        let error = MachineError::of("stop", "runner-ci@3.service", late.into());
        assert!(matches!(error, MachineError::TimedOut { .. }), "{error:?}");
        assert!(error.is_transient());
    }
}
