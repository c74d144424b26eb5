//! The faults that a history can have.

use runner_controller::pool::Exit;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The daemon is killed, at any of its awaits.
    DaemonKilled,
    /// The daemon is restarted with SIGTERM.
    DaemonRestarted,
    /// A container dies.
    ContainerDies,
    /// GitHub or the network fails calls for a while.
    CallsFail,
    /// GitHub limits the daemon's calls.
    CallsLimited,
    /// GitHub drops an idle registration. Its listener hears of it or does not.
    RegistrationLapses,
    /// GitHub refuses this version of the runner.
    VersionRefused,
    /// The system bus is down.
    BusDown,
    /// Some of systemd's signals get lost.
    SignalsLost,
    /// The daemon's records cannot be written, or not even read.
    DiskFull,
    /// The host loses power.
    PowerCut,
    /// An operator drains or clears the host, and undoes it later.
    OperatorCommand,
    /// The configuration changes.
    ConfigChanged,
    /// The wall clock jumps.
    WallClockJumps,
    /// systemd loses the stored file descriptors.
    DescriptorsLost,
    /// Containers fail to boot, or hang.
    BootsFail,
    /// Listeners do not reach GitHub.
    ListenersOffline,
    /// `/run` is full.
    RunFull,
    /// A registration appears that the daemon did not make: under this host's name, or under a similar one.
    StrayRegistration,
    /// The firewall differs from the configured rules.
    FirewallWrong,
    /// The host runs short of memory.
    MemoryShort,
    /// GitHub answers every deletion by 500.
    DeletesFail,
    /// A proxy on the way to GitHub refuses connections.
    ProxyRefuses,
    /// GitHub forgets the session of a scale set.
    SessionEvicted,
    /// GitHub loses a scale set.
    ScaleSetLost,
    /// GitHub counts the messages of a scale set from the beginning.
    MessageIdsRestarted,
    /// A message of a scale set cannot be read.
    MessageUnreadable,
    /// GitHub refuses all tokens of the scale-set service.
    ServiceTokensEnd,
    /// GitHub tells the end of jobs of scale sets while they run, and cancels jobs.
    JobsEndOddly,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 29] = [
        Self::DaemonKilled,
        Self::DaemonRestarted,
        Self::ContainerDies,
        Self::CallsFail,
        Self::CallsLimited,
        Self::RegistrationLapses,
        Self::VersionRefused,
        Self::BusDown,
        Self::SignalsLost,
        Self::DiskFull,
        Self::PowerCut,
        Self::OperatorCommand,
        Self::ConfigChanged,
        Self::WallClockJumps,
        Self::DescriptorsLost,
        Self::BootsFail,
        Self::ListenersOffline,
        Self::RunFull,
        Self::StrayRegistration,
        Self::FirewallWrong,
        Self::MemoryShort,
        Self::DeletesFail,
        Self::ProxyRefuses,
        Self::SessionEvicted,
        Self::ScaleSetLost,
        Self::MessageIdsRestarted,
        Self::MessageUnreadable,
        Self::ServiceTokensEnd,
        Self::JobsEndOddly,
    ];
}

/// A fault with its details.
#[derive(Debug)]
pub enum Fault {
    /// The daemon is killed after so many more steps.
    DaemonKilled {
        /// Steps of the schedule.
        after_steps: u64,
    },
    /// The daemon gets SIGTERM and is started again.
    DaemonRestarted,
    /// The daemon is killed, and systemd loses the descriptors that it stored.
    DescriptorsLost,
    /// The host loses power and boots again.
    PowerCut,
    /// A running container dies.
    ContainerDies {
        /// Selects the container.
        draw: u64,
        /// Its exit.
        exit: Exit,
    },
    /// Calls fail for a while.
    CallsFail {
        /// The failure.
        failure: CallFailure,
        /// Affected calls in a thousand.
        rate: u64,
        /// Additional milliseconds that a message usually takes.
        slow_ms: u64,
    },
    /// GitHub limits calls until a moment of the history.
    CallsLimited {
        /// Its end, in milliseconds of the history.
        until: u64,
        /// The form in which GitHub announces it.
        notice: LimitNotice,
    },
    /// GitHub drops an idle registration.
    RegistrationLapses {
        /// Selects the registration.
        draw: u64,
        /// The listener hears of it.
        heard: bool,
    },
    /// GitHub refuses listeners of this version.
    VersionRefused,
    /// The system bus does not answer and delivers no signals.
    BusDown,
    /// Some of systemd's signals get lost.
    SignalsLost,
    /// The disk of the daemon's records is full.
    DiskFull {
        /// Records cannot be read either.
        unreadable: bool,
    },
    /// An operator gave a command, and undoes it later.
    OperatorCommand,
    /// Root wrote another configuration, and the daemon is restarted.
    ConfigChanged,
    /// The wall clock jumps.
    WallClockJumps {
        /// Its error after the jump.
        error_ms: i64,
    },
    /// Containers do not finish their boot.
    BootsFail {
        /// They hang instead of ending.
        hang: bool,
    },
    /// Listeners do not reach GitHub.
    ListenersOffline,
    /// `/run` is full, so that end records and sockets cannot be made.
    RunFull,
    /// A registration appears that the daemon did not make. No listener of this host ever uses it.
    StrayRegistration {
        /// Its name.
        name: String,
        /// Another host uses it.
        online: bool,
    },
    /// The firewall differs from the configured rules.
    FirewallWrong,
    /// The host runs short of memory.
    MemoryShort,
    /// GitHub answers every deletion by 500.
    DeletesFail,
    /// A proxy on the way to GitHub refuses connections.
    ProxyRefuses {
        /// Its answer to `CONNECT`, such as 407.
        status: u16,
        /// Refused connections in a thousand.
        rate: u64,
    },
    /// GitHub forgets the session of a scale set.
    SessionEvicted {
        /// Selects the set.
        draw: u64,
    },
    /// GitHub loses a scale set, with its queue.
    ScaleSetLost {
        /// Selects the set.
        draw: u64,
    },
    /// GitHub counts the messages of a scale set from the beginning.
    MessageIdsRestarted {
        /// Selects the set.
        draw: u64,
    },
    /// The next message of a scale set cannot be read.
    MessageUnreadable {
        /// Number of deliveries in which it cannot be read.
        deliveries: u64,
    },
    /// GitHub refuses all tokens of the scale-set service.
    ServiceTokensEnd,
    /// GitHub tells the end of jobs of scale sets while they run, and cancels jobs.
    JobsEndOddly,
}

/// A failure of calls to GitHub, by the place where it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFailure {
    /// GitHub answers with a failure.
    Answer(AnswerFailure),
    /// The network fails.
    Transport(TransportFailure),
}

impl CallFailure {
    /// All failures.
    pub const ALL: [Self; 14] = [
        Self::Answer(AnswerFailure::NotDone),
        Self::Answer(AnswerFailure::DoneAndFailed),
        Self::Answer(AnswerFailure::Unauthorized),
        Self::Answer(AnswerFailure::Forbidden),
        Self::Answer(AnswerFailure::NotFound),
        Self::Answer(AnswerFailure::NameTaken),
        Self::Answer(AnswerFailure::WrongTypes),
        Self::Answer(AnswerFailure::RowSkipped),
        Self::Transport(TransportFailure::RequestLost),
        Self::Transport(TransportFailure::AnswerLost),
        Self::Transport(TransportFailure::ConnectionReset),
        Self::Transport(TransportFailure::Truncated),
        Self::Transport(TransportFailure::ProxyRefuses),
        Self::Transport(TransportFailure::TunnelCut),
    ];
}

/// A failure that GitHub answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFailure {
    /// 502; the request was not carried out.
    NotDone,
    /// 502; the request was carried out.
    DoneAndFailed,
    /// 401.
    Unauthorized,
    /// 403 for a missing permission.
    Forbidden,
    /// 404 for everything.
    NotFound,
    /// 409, although the name is new.
    NameTaken,
    /// The request was carried out, and the answer has other types than documented.
    WrongTypes,
    /// The list lacks a row, as if its pages were made while another row went away.
    RowSkipped,
}

impl AnswerFailure {
    /// All failures.
    pub const ALL: [Self; 8] = [
        Self::NotDone,
        Self::DoneAndFailed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::NameTaken,
        Self::WrongTypes,
        Self::RowSkipped,
    ];
}

/// A failure of the network between the daemon and GitHub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportFailure {
    /// The request does not arrive, and the daemon waits.
    RequestLost,
    /// The request is carried out, and the daemon waits.
    AnswerLost,
    /// The connection breaks before the request arrives.
    ConnectionReset,
    /// The request is carried out, and a program on the way shortens the answer.
    Truncated,
    /// A proxy refuses the connection.
    ProxyRefuses,
    /// The request is carried out, and a proxy drops the connection in the middle of the answer.
    TunnelCut,
}

impl TransportFailure {
    /// All failures.
    pub const ALL: [Self; 6] = [
        Self::RequestLost,
        Self::AnswerLost,
        Self::ConnectionReset,
        Self::Truncated,
        Self::ProxyRefuses,
        Self::TunnelCut,
    ];
}

/// The form in which GitHub announces a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitNotice {
    /// `retry-after`.
    RetryAfter,
    /// A secondary limit without a time.
    NoTime,
    /// `x-ratelimit-remaining: 0` and a reset.
    Primary,
}

impl LimitNotice {
    /// All forms.
    pub const ALL: [Self; 3] = [Self::RetryAfter, Self::NoTime, Self::Primary];
}
