//! Mode of the daemon, as an operator sets it.

use strum::{Display, EnumString};

use super::plan::Admission;

/// Mode of the daemon. It outlives the daemon and ends with the boot.
#[derive(Display, EnumString)]
#[strum(serialize_all = "snake_case")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Runners start and register.
    #[default]
    Running,
    /// No runner starts, and those without a job end.
    Draining,
    /// All runners end, jobs included.
    Clearing,
    /// All runners end, jobs included, and the command that requested it then lets the pools refill.
    ClearingToRefill,
}

impl Mode {
    /// Returns the admission. `is_blocked` tells that the host is not fit for new runners.
    #[must_use]
    pub fn admission(self, is_blocked: bool) -> Admission {
        match self {
            Self::Draining => Admission::Draining,
            Self::Clearing | Self::ClearingToRefill => Admission::Clearing,
            Self::Running if is_blocked => Admission::Closed,
            Self::Running => Admission::Open,
        }
    }

    /// Returns the setting that the records keep of it. A running daemon needs none.
    #[must_use]
    pub fn to_setting(self, boot_id: &str) -> Option<String> {
        match self {
            Self::Running => None,
            Self::Draining | Self::Clearing | Self::ClearingToRefill => {
                Some(format!("{boot_id} {self}"))
            }
        }
    }

    /// Parses a setting of [`Mode::to_setting`]; `None` if its mode is not known.
    ///
    /// A mode of another boot does not count: a drain prepares what an operator is about to do, and a
    /// reboot was that.
    #[must_use]
    pub fn from_setting(setting: Option<&str>, boot_id: &str) -> Option<Self> {
        match setting.and_then(|text| text.split_once(' ')) {
            Some((boot, mode)) if boot == boot_id => mode.parse().ok(),
            Some(_) | None => Some(Self::Running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_outlives_the_daemon_and_not_the_boot() {
        for mode in [
            Mode::Running,
            Mode::Draining,
            Mode::Clearing,
            Mode::ClearingToRefill,
        ] {
            let setting = mode.to_setting("b1");
            assert_eq!(Mode::from_setting(setting.as_deref(), "b1"), Some(mode));
            assert_eq!(
                Mode::from_setting(setting.as_deref(), "b2"),
                Some(Mode::Running)
            );
        }
        assert_eq!(
            Mode::from_setting(Some("b1 draining"), "b1"),
            Some(Mode::Draining)
        );
        assert_eq!(Mode::from_setting(Some("b1 paused"), "b1"), None);
        assert_eq!(Mode::from_setting(Some(""), "b1"), Some(Mode::Running));
    }
}
