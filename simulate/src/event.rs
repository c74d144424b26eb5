//! The events that the models exchange, and that the observer checks invariants from.

use std::fmt;
use std::sync::Arc;

use runner_controller::config::Config;
use runner_controller::controller::Command;
use runner_controller::pool::{Exit, Invocation, JobNote, KnownJob, PoolName, RunnerId, SlotId};
use runner_controller::world::Event;

use crate::api::{AnnouncedLimits, ApiAnswer, ApiRequest, Endpoint};
use crate::fault::{Fault, FaultKind};

/// A start of a slot's unit, and the container of that start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContainerId {
    /// The slot.
    pub(crate) slot: SlotId,
    /// systemd's id of the start.
    pub(crate) invocation: Invocation,
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.slot, short(&self.invocation))
    }
}

/// Returns the last digits of an invocation, the only ones that differ in a history.
#[must_use]
pub(crate) fn short(invocation: &Invocation) -> String {
    format!("#{}", invocation.as_str().trim_start_matches('0'))
}

/// GitHub's number of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobId(pub(crate) u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.0)
    }
}

/// End of a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobEnd {
    /// It ran to its end.
    Done,
    /// Its runner was told to stop.
    Cancelled,
    /// Its container died.
    Lost,
}

/// Call by which the daemon ends a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopKind {
    /// `StopUnit`: the runner gets SIGINT.
    Stop,
    /// `KillUnit` with SIGKILL.
    Kill,
}

/// Step of a job that a scale set is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum JobStep {
    /// It was assigned to the set.
    Assigned,
    /// A runner of the set has it.
    Started,
    /// It is over, or assigned anew.
    Completed,
}

impl JobStep {
    /// Returns the type of its items.
    #[must_use]
    pub(crate) fn message_type(self) -> &'static str {
        match self {
            Self::Assigned => "JobAssigned",
            Self::Started => "JobStarted",
            Self::Completed => "JobCompleted",
        }
    }
}

/// A step of one assignment, as a message tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ToldStep {
    /// Name of the job, which has its number and that of the assignment.
    pub(crate) name: String,
    /// The step.
    pub(crate) step: JobStep,
}

/// An event of the simulated world.
#[derive(Debug)]
pub(crate) enum SimEvent {
    /// Root wrote this configuration.
    Configured(Arc<Config>),
    /// A daemon started.
    DaemonStarted {
        /// Number of the daemon in its history.
        incarnation: u64,
        /// The configuration that it read.
        config: Arc<Config>,
    },
    /// The daemon ended.
    DaemonEnded {
        /// Number of the daemon in its history.
        incarnation: u64,
        /// The message of its panic, if it panicked.
        panic: Option<String>,
    },
    /// The operator gave a command.
    CommandGiven(Command),
    /// The daemon accepted a command.
    CommandAccepted(Command),
    /// The daemon is told an event.
    Told(Event),

    /// A fault starts.
    FaultStarted(Fault),
    /// A fault that lasted ends.
    FaultEnded(FaultKind),
    /// All faults end, and no jobs are pushed any more.
    Calm,
    /// The host lost power and boots again.
    HostRebooted,
    /// systemd lost the descriptors that it stored for the daemon.
    DescriptorsLost,

    /// A unit starts.
    UnitStarted(ContainerId),
    /// The daemon ends a unit whose container runs.
    UnitStopRequested {
        /// The container.
        container: ContainerId,
        /// The request.
        kind: StopKind,
    },
    /// systemd ends a unit because of `RuntimeMaxSec=`.
    UnitTimedOut(ContainerId),
    /// A unit ended, and root's clean-up with it.
    UnitEnded {
        /// Its container.
        container: ContainerId,
        /// Exit of the container.
        exit: Exit,
        /// True if root could write its record of the end.
        recorded: bool,
    },
    /// A container connected to its socket to ask for a config.
    ContainerAsked(ContainerId),
    /// The processes of a container are gone.
    ContainerGone {
        /// The container.
        container: ContainerId,
        /// Its registration.
        runner: Option<RunnerId>,
    },
    /// The job-started hook of a container wrote its line.
    JobReported {
        /// The container.
        container: ContainerId,
        /// The line.
        note: JobNote,
    },
    /// A listener connected to GitHub.
    ListenerConnected {
        /// Its registration.
        runner: RunnerId,
    },
    /// A listener took the job that it was offered.
    JobTaken {
        /// The job.
        job: JobId,
        /// The listener's registration.
        runner: RunnerId,
    },
    /// A running job ended.
    JobEnded {
        /// The job.
        job: JobId,
        /// Its end.
        end: JobEnd,
    },

    /// A container's connection was closed without a config.
    ConnectionClosed(ContainerId),
    /// A config was written to a container.
    ConfigDelivered {
        /// The container.
        container: ContainerId,
        /// The config.
        config: String,
    },

    /// GitHub got a request for a new registration.
    MintReceived {
        /// The name in it.
        name: String,
    },
    /// GitHub made a registration.
    Registered {
        /// Its id.
        runner: RunnerId,
        /// Its name.
        name: String,
        /// Its config; `None` if a fault planted the registration.
        config: Option<String>,
    },
    /// A runner of another host with this host's name connected.
    StrangerConnected {
        /// Its registration.
        runner: RunnerId,
    },
    /// GitHub got a request to delete an existing registration.
    DeleteReceived {
        /// The registration.
        runner: RunnerId,
        /// The registration's name.
        name: String,
    },
    /// A registration is gone.
    Deregistered {
        /// Its id.
        runner: RunnerId,
        /// Its listener hears of it.
        heard: bool,
    },
    /// GitHub accepted a listener.
    ListenerAccepted {
        /// Its registration.
        runner: RunnerId,
    },
    /// GitHub turned a listener away.
    ListenerRefused {
        /// Its registration.
        runner: RunnerId,
        /// The status with which the runner exits.
        status: i32,
    },
    /// A workflow asks for a job.
    JobPushed {
        /// The label that it needs.
        pool: String,
    },
    /// GitHub queued a job.
    JobQueued {
        /// The job.
        job: JobId,
        /// The label that it needs.
        pool: String,
    },
    /// GitHub assigned a job to a runner.
    JobSent {
        /// The job.
        job: JobId,
        /// The runner.
        runner: RunnerId,
    },
    /// The message with the job reaches the runner.
    JobOffered {
        /// The job.
        job: JobId,
        /// The runner.
        runner: RunnerId,
    },
    /// GitHub confirmed that the runner has the job.
    JobRunning {
        /// The job.
        job: JobId,
        /// The runner.
        runner: RunnerId,
    },
    /// The runner did not take the job in time, and GitHub queued it again.
    JobReturned {
        /// The job.
        job: JobId,
        /// The runner.
        runner: RunnerId,
    },
    /// GitHub ended a job that no runner had taken.
    JobWithdrawn {
        /// The job.
        job: JobId,
    },
    /// The connection of a poll that GitHub holds is gone.
    PollDropped {
        /// Number of the call.
        call: u64,
    },
    /// A message of a scale set was deleted, and is not told again.
    MessageDeleted {
        /// Its content, as far as it could be read.
        told: Vec<ToldStep>,
    },
    /// A scale set was deleted.
    SetDeleted {
        /// Its name.
        name: String,
    },
    /// GitHub answered a call.
    Answered {
        /// Number of the call.
        call: u64,
        /// The call.
        endpoint: Endpoint,
        /// The answer.
        answer: ApiAnswer,
    },

    /// The daemon sent a call.
    CallSent {
        /// The endpoint.
        endpoint: Endpoint,
        /// The scope in its path.
        scope: String,
    },
    /// The daemon waits for a message of a scale set.
    PollSent {
        /// Number of the call.
        call: u64,
        /// The pool.
        pool: PoolName,
        /// Number of jobs that the pool can have, as the daemon announces.
        capacity: u32,
    },
    /// The daemon does not wait for a message any more.
    PollEnded {
        /// Number of the call.
        call: u64,
    },
    /// A call reached GitHub.
    CallArrived {
        /// Number of the call.
        call: u64,
        /// The call.
        request: ApiRequest,
    },
    /// An answer that announces limits reached the daemon.
    LimitsTold(AnnouncedLimits),

    /// A record was written.
    RecordWritten {
        /// Its slot.
        slot: SlotId,
        /// The start that it names.
        invocation: Option<Invocation>,
    },
    /// A record was removed.
    RecordRemoved {
        /// Its slot.
        slot: SlotId,
    },
    /// A job was put on record, or a power cut brought an earlier record back.
    JobRecorded {
        /// The job as it is on record; `None` if it is not.
        job: Option<Box<KnownJob>>,
        /// Its name.
        name: String,
    },
    /// A verdict was written.
    VerdictWritten {
        /// Its slot.
        slot: SlotId,
        /// The start that it names.
        invocation: Option<Invocation>,
    },
    /// A power cut undid the writing of a verdict.
    VerdictLost {
        /// Its slot.
        slot: SlotId,
        /// The start that it named.
        invocation: Option<Invocation>,
        /// The record that was removed with the verdict is back.
        record_restored: bool,
    },
    /// A power cut undid a change of a record.
    RecordReverted {
        /// Its slot.
        slot: SlotId,
        /// The start that the record named before.
        lost: Option<Invocation>,
        /// The start that the record names now.
        kept: Option<Invocation>,
    },
    /// The daemon ended while it wrote a verdict.
    VerdictInterrupted {
        /// Its slot.
        slot: SlotId,
        /// The start that it names.
        invocation: Option<Invocation>,
    },
    /// The daemon could not read its records when it started.
    RecordsUnreadable,
    /// Records can be written from now on, or not.
    RecordsWritable(bool),
}

impl fmt::Display for SimEvent {
    #[expect(clippy::too_many_lines, reason = "a table with an arm for each event")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |invocation: &Option<Invocation>| invocation.as_ref().map(short);
        match self {
            Self::Configured(config) => {
                f.write_str("configured")?;
                for pool in &config.pools {
                    let (idle, spare) = (pool.min_idle, pool.min_spare);
                    write!(f, ", {} {idle}+{spare} of {}", pool.name, pool.max_runners)?;
                }
                Ok(())
            }
            Self::DaemonStarted { incarnation, .. } => write!(f, "daemon {incarnation} starts"),
            Self::DaemonEnded { incarnation, panic } => match panic {
                Some(message) => write!(f, "daemon {incarnation} panicked: {message}"),
                None => write!(f, "daemon {incarnation} ended"),
            },
            Self::CommandGiven(command) => write!(f, "operator: {command:?}"),
            Self::CommandAccepted(command) => write!(f, "  accepted: {command:?}"),
            Self::Told(event) => write!(f, "  told: {}", Words(event)),
            Self::FaultStarted(fault) => write!(f, "FAULT: {fault:?}"),
            Self::FaultEnded(kind) => write!(f, "fault ended: {kind:?}"),
            Self::Calm => f.write_str("CALM"),
            Self::HostRebooted => f.write_str("the host boots"),
            Self::DescriptorsLost => f.write_str("stored descriptors are lost"),
            Self::UnitStarted(container) => write!(f, "{container} starts"),
            Self::UnitStopRequested { container, kind } => write!(f, "{container}: {kind:?}"),
            Self::UnitTimedOut(container) => write!(f, "{container}: RuntimeMaxSec="),
            Self::UnitEnded {
                container, exit, ..
            } => write!(f, "{container} ended: {exit:?}"),
            Self::ContainerAsked(container) => write!(f, "{container} asks"),
            Self::ContainerGone { container, .. } => write!(f, "{container} is gone"),
            Self::JobReported { container, .. } => write!(f, "{container} reports its job"),
            Self::ListenerConnected { runner } => write!(f, "listener {runner} connects"),
            Self::JobTaken { job, runner } => write!(f, "listener {runner} takes {job}"),
            Self::JobEnded { job, end } => write!(f, "{job} ended: {end:?}"),
            Self::ConnectionClosed(container) => write!(f, "{container}: connection closed"),
            Self::ConfigDelivered { container, .. } => write!(f, "{container} gets its config"),
            Self::MintReceived { name } => write!(f, "GitHub: mint {name}"),
            Self::Registered { runner, name, .. } => write!(f, "GitHub: {name} is {runner}"),
            Self::StrangerConnected { runner } => {
                write!(f, "GitHub: {runner} listens on another host")
            }
            Self::DeleteReceived { name, .. } => write!(f, "GitHub: delete {name}"),
            Self::Deregistered { runner, heard } => {
                write!(f, "GitHub: {runner} is gone, heard: {heard}")
            }
            Self::ListenerAccepted { runner } => write!(f, "GitHub: {runner} listens"),
            Self::ListenerRefused { runner, status } => {
                write!(f, "GitHub: {runner} is refused, exit status {status}")
            }
            Self::JobPushed { pool } => write!(f, "a job for {pool} is pushed"),
            Self::JobQueued { job, pool } => write!(f, "GitHub: {job} for {pool} waits"),
            Self::JobSent { job, runner } => write!(f, "GitHub: {job} is sent to {runner}"),
            Self::JobOffered { job, runner } => write!(f, "{runner} is offered {job}"),
            Self::JobRunning { job, runner } => write!(f, "GitHub: {job} runs on {runner}"),
            Self::JobReturned { job, runner } => write!(f, "GitHub: {runner} did not take {job}"),
            Self::JobWithdrawn { job } => write!(f, "GitHub: {job} is cancelled"),
            Self::PollDropped { call } => {
                write!(f, "GitHub: the connection of call {call} is gone")
            }
            Self::MessageDeleted { told } => {
                f.write_str("GitHub: a message is deleted:")?;
                for ToldStep { name, step } in told {
                    write!(f, " {name} {step:?}")?;
                }
                Ok(())
            }
            Self::SetDeleted { name } => write!(f, "GitHub: scale set {name} is deleted"),
            Self::PollSent {
                call,
                pool,
                capacity,
                ..
            } => write!(
                f,
                "daemon: call {call} polls for {pool}, capacity {capacity}"
            ),
            Self::PollEnded { call } => write!(f, "daemon: call {call} is over"),
            Self::JobRecorded { job, name } => match job {
                Some(job) => write!(f, "job {name} is on record as {}", job.stage()),
                None => write!(f, "job {name} is not on record any more"),
            },
            Self::Answered {
                call,
                endpoint,
                answer,
            } => write!(f, "GitHub: call {call}, {endpoint:?}: {}", answer.status),
            Self::CallSent { endpoint, scope } => write!(f, "daemon: {endpoint:?} in {scope}"),
            Self::CallArrived { call, request } => {
                write!(
                    f,
                    "GitHub: call {call}, {:?} {}",
                    request.endpoint, request.path
                )
            }
            Self::LimitsTold(limits) => write!(f, "  limits: {limits:?}"),
            Self::RecordWritten { slot, invocation } => {
                write!(f, "record of {slot}: {:?}", named(invocation))
            }
            Self::RecordRemoved { slot } => write!(f, "record of {slot} is removed"),
            Self::VerdictWritten { slot, invocation } => {
                write!(f, "verdict on {slot} {:?}", named(invocation))
            }
            Self::VerdictLost { slot, .. } => write!(f, "verdict on {slot} is lost"),
            Self::RecordReverted { slot, lost, kept } => {
                let (lost, kept) = (named(lost), named(kept));
                write!(f, "record of {slot} is {kept:?} again, was {lost:?}")
            }
            Self::VerdictInterrupted { slot, .. } => {
                write!(f, "the daemon ended while it wrote a verdict on {slot}")
            }
            Self::RecordsUnreadable => f.write_str("the daemon starts without its records"),
            Self::RecordsWritable(true) => f.write_str("records can be written"),
            Self::RecordsWritable(false) => f.write_str("records cannot be written"),
        }
    }
}

/// An event for the daemon, in words.
struct Words<'a>(&'a Event);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Event::Unit(unit) => {
                write!(f, "{} is {:?}", unit.slot, unit.state)?;
                if let Some(invocation) = &unit.invocation {
                    write!(f, " {}", short(invocation))?;
                }
                if let Some(end) = &unit.end {
                    write!(f, " {:?}", end.exit)?;
                }
                Ok(())
            }
            Event::ConfigRequested { slot } => write!(f, "{slot} asks"),
            Event::ConfigNotGiven { slot } => write!(f, "{slot} has no config"),
            Event::RequestDropped { slot } => write!(f, "{slot} hung up"),
            Event::LinksWithoutAddress(slots) => write!(f, "links without address: {slots:?}"),
            Event::Shortages(short) => write!(f, "short of {short:?}"),
            Event::Firewall { problem } => write!(f, "firewall: {problem:?}"),
            Event::JobStarted { slot, .. } => write!(f, "{slot} reports its job"),
            Event::Job(job) => write!(f, "job {} is {}", job.key.id, job.stage()),
            Event::Deliveries(_) => write!(f, "deliveries"),
            Event::Queue(_) => write!(f, "a reading of the queue"),
            Event::Redelivery(_) => write!(f, "deliveries that were asked for again"),
            Event::ScaleSet(set) => write!(f, "scale set of {} is {}", set.pool, set.state),
        }
    }
}
