//! One job at the listener: the worker's start, the lock, cancellation, and reports.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use github_sim::{
    job_message::JobMessage,
    wire::{CANCEL_TIMEOUT_S, Facts, JobResult, LOG_TAIL_BYTES},
};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::{
    broker::RunService,
    clocks::{
        CALL_PAUSE_S, CANCEL_MARGIN_S, FIRST_RENEWAL_PATIENCE, LISTENER_REPORTS, RENEW_EVERY,
        RENEW_PATIENCE, SIGNAL_PATIENCE, UNAVAILABLE_PATIENCE, WORKER_REPORTS,
    },
    code,
    listen::{ListenerContext, ListenerEvent, PollRefusals, Poller, cancellation},
    worker::WorkerOrder,
};

/// Interval between checks of the worker, if an event does not come first.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// Runs the job and returns the listener's exit code.
pub(crate) fn run(
    listener: &ListenerContext,
    message: &JobMessage,
    poller: &Poller,
    events: &Receiver<ListenerEvent>,
) -> u8 {
    let name = &message.job_display_name;
    let service = RunService::of(message);
    listener.log.event(&format!("Running job: {name}"));
    let log_file = listener
        .root
        .path()
        .join("_diag")
        .join(format!("Worker_{}.log", message.job_id));
    let _ = service.tell(&facts(&log_file));
    poller.poll("Busy");
    if !message.listener_faults.skip_renew && !renew_first(listener, &service) {
        listener.root.forget();
        return code_of(listener, code::ABANDONED);
    }
    let mut running = match start_worker(listener, message, &log_file) {
        Ok(child) => RunningJob {
            listener,
            message,
            service: &service,
            poller,
            refusals: PollRefusals::default(),
            child,
            deadline: None,
            killed: false,
            stop: None,
        },
        Err(error) => {
            listener
                .log
                .error(&format!("cannot start the worker: {error}"));
            report(listener, &service, JobResult::Failed);
            return code::RETRYABLE;
        }
    };
    let JobEnd::Over(mut result) = running.wait(events) else {
        running.kill_group();
        return message
            .listener_faults
            .crash_with
            .unwrap_or(code::RETRYABLE);
    };
    // GitHub's listener reports a job that ends with the listener as failed, never as cancelled.
    if matches!(
        running.stop,
        Some(StopCause::Signal(_) | StopCause::Refused(_))
    ) && result == JobResult::Canceled
    {
        result = JobResult::Failed;
    }
    let _ = service.tell(&facts(&log_file));
    // The end of a job whose worker had to be killed after its cancellation is never told.
    if !message.listener_faults.skip_complete && !running.killed {
        result = report(listener, &service, result);
    }
    listener.log.event(&format!(
        "Job {name} completed with result: {}",
        result.log_word()
    ));
    std::thread::sleep(Duration::from_millis(message.listener_faults.linger_ms));
    listener.root.forget();
    match (message.listener_faults.exit_with, running.stop) {
        (Some(code), _) | (None, Some(StopCause::Refused(code))) => code,
        (None, Some(StopCause::Signal(signal))) => code::after(signal),
        (None, _) if running.killed => code::SUCCESS,
        (None, Some(StopCause::LockLost)) => code_of(listener, JobResult::Succeeded.exit_code()),
        (None, Some(StopCause::LockRefused)) => code_of(listener, code::ABANDONED),
        (None, Some(StopCause::Cancelled) | None) => code_of(listener, result.exit_code()),
    }
}

/// Returns the exit code for a job's result, which the listener tells only on request.
fn code_of(listener: &ListenerContext, result: u8) -> u8 {
    let told = listener
        .env
        .get("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED")
        .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
    if told { result } else { code::SUCCESS }
}

/// Renews the lock for the first time. Without that, no worker starts, and the job stays as it is at GitHub.
fn renew_first(listener: &ListenerContext, service: &RunService) -> bool {
    let since = Instant::now();
    loop {
        let Err(error) = service.renew(listener.clocks.scaled(RENEW_PATIENCE)) else {
            return true;
        };
        listener
            .log
            .error(&format!("cannot renew the job's lock: {error}"));
        let patience = listener.clocks.scaled(FIRST_RENEWAL_PATIENCE);
        if error.status() == Some(404) || since.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(listener.clocks.pause(CALL_PAUSE_S));
    }
}

/// Reason why a job has to end before its last step.
#[derive(Clone, Copy)]
enum StopCause {
    /// Cancelled at GitHub.
    Cancelled,
    /// The listener got a signal.
    Signal(i32),
    /// A poll was refused, which ends the listener with this code.
    Refused(u8),
    /// The lock could not be renewed in time.
    LockLost,
    /// The server does not know the job any more.
    LockRefused,
}

/// A job whose worker has started.
struct RunningJob<'a> {
    listener: &'a ListenerContext,
    message: &'a JobMessage,
    service: &'a RunService,
    poller: &'a Poller,
    refusals: PollRefusals,
    child: Child,
    /// Time at which a cancelled worker is killed.
    deadline: Option<Instant>,
    /// True once the worker was killed.
    killed: bool,
    /// The first reason why the job has to end.
    stop: Option<StopCause>,
}

/// Outcome of a renewal of the job's lock.
enum Renewal {
    Good,
    /// The server does not know the job any more.
    Refused,
    /// Not renewed. The job is cancelled if this lasts for the given time.
    Missed(Duration),
}

enum JobEnd {
    /// The worker ended, or the server took the job back.
    Over(JobResult),
    /// The listener's fault is to crash.
    Crashed,
}

impl RunningJob<'_> {
    fn wait(&mut self, events: &Receiver<ListenerEvent>) -> JobEnd {
        let faults = &self.message.listener_faults;
        let crash_after = Duration::from_millis(faults.crash_after_ms);
        let started = Instant::now();
        let mut renewed = started;
        let mut missed: Option<Instant> = None;
        let every = self.listener.clocks.scaled(RENEW_EVERY);
        loop {
            if faults.crash_with.is_some() && started.elapsed() >= crash_after {
                return JobEnd::Crashed;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let told = status.code().and_then(JobResult::from_exit_code);
                // A worker that a signal ended reports nothing.
                let unknown = if self.deadline.is_some() {
                    JobResult::Canceled
                } else {
                    JobResult::Failed
                };
                return JobEnd::Over(told.unwrap_or(unknown));
            }
            if !self.killed
                && self
                    .deadline
                    .is_some_and(|deadline| Instant::now() >= deadline)
            {
                self.killed = true;
                self.kill_group();
            }
            let due = if missed.is_some() { every / 10 } else { every };
            if renewed.elapsed() >= due && !faults.skip_renew {
                renewed = Instant::now();
                match self.renew() {
                    Renewal::Good => missed = None,
                    Renewal::Refused => self.cancel(StopCause::LockRefused, SIGNAL_PATIENCE),
                    Renewal::Missed(patience) => {
                        let since = *missed.get_or_insert(renewed);
                        if since.elapsed() >= patience {
                            self.cancel(StopCause::LockLost, SIGNAL_PATIENCE);
                        }
                    }
                }
            }
            match events.recv_timeout(CHECK_EVERY) {
                Ok(event) => self.hear(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn renew(&self) -> Renewal {
        let ListenerContext { log, clocks, .. } = self.listener;
        match self.service.renew(clocks.scaled(RENEW_PATIENCE)) {
            Ok(()) => Renewal::Good,
            Err(error) => {
                log.error(&format!("cannot renew the job's lock: {error}"));
                match error.status() {
                    Some(404) => Renewal::Refused,
                    Some(503) => Renewal::Missed(clocks.scaled(UNAVAILABLE_PATIENCE)),
                    _ => Renewal::Missed(clocks.scaled(RENEW_PATIENCE)),
                }
            }
        }
    }

    fn hear(&mut self, event: ListenerEvent) {
        let answer = match event {
            ListenerEvent::Signal(signal) => {
                self.listener.log.line("Exiting...");
                self.cancel(StopCause::Signal(signal), SIGNAL_PATIENCE);
                return;
            }
            ListenerEvent::Polled(answer) => answer,
        };
        if let Some(code) = self.refusals.count(self.listener, &answer) {
            self.cancel(StopCause::Refused(code), SIGNAL_PATIENCE);
            return;
        }
        if let Ok(message) = answer {
            let order = message.as_ref().and_then(cancellation);
            if let Some((job, seconds)) = order
                && job == self.message.job_id
            {
                let seconds = seconds
                    .min(CANCEL_TIMEOUT_S)
                    .saturating_sub(CANCEL_MARGIN_S);
                self.cancel(StopCause::Cancelled, Duration::from_secs(seconds));
            }
        } else {
            // The job goes on whatever the broker answers. Without a pause this would be a busy loop.
            let pause = self.listener.clocks.pause(CALL_PAUSE_S);
            std::thread::sleep(pause.min(Duration::from_secs(1)));
        }
        self.poller.poll("Busy");
    }

    /// Makes the worker end the job. A second reason changes nothing.
    fn cancel(&mut self, cause: StopCause, patience: Duration) {
        if self.stop.is_some() {
            return;
        }
        self.stop = Some(cause);
        if self.message.listener_faults.ignore_cancel {
            return;
        }
        self.deadline = Some(Instant::now() + self.listener.clocks.scaled(patience));
        let _ = kill(self.worker(), Signal::SIGINT);
    }

    fn worker(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Kills the worker and the processes of its group.
    fn kill_group(&self) {
        let _ = killpg(self.worker(), Signal::SIGKILL);
    }
}

fn start_worker(
    listener: &ListenerContext,
    message: &JobMessage,
    log: &Path,
) -> std::io::Result<Child> {
    let order = WorkerOrder {
        job: message.clone(),
        root: listener.root.path().into(),
        work_folder: listener
            .root
            .path()
            .join(&listener.configuration.runner.work_folder),
        runner_name: listener.configuration.runner.agent_name.clone(),
        log: PathBuf::from(log),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg("worker")
        .env_clear()
        .envs(&listener.env)
        .process_group(0)
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(serde_json::to_string(&order)?.as_bytes())?;
    }
    Ok(child)
}

/// Reports the job's end as GitHub's worker does, then as its listener does. Returns the result that the
/// listener knows: a job whose end cannot be reported has failed.
fn report(listener: &ListenerContext, service: &RunService, result: JobResult) -> JobResult {
    for (tries, result, pause) in [
        (WORKER_REPORTS.0, result, WORKER_REPORTS.1),
        (LISTENER_REPORTS.0, JobResult::Failed, LISTENER_REPORTS.1),
    ] {
        for _ in 0..tries {
            let Err(error) = service.complete(result) else {
                return result;
            };
            listener
                .log
                .error(&format!("cannot report the job's end: {error}"));
            // The server has taken the job back, or never gave it.
            if matches!(error.status(), Some(400..=499)) {
                return JobResult::Failed;
            }
            std::thread::sleep(listener.clocks.scaled(pause));
        }
    }
    JobResult::Failed
}

fn facts(log: &Path) -> Facts {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Facts {
        hostname: nix::unistd::gethostname()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        boot_id: boot_id.trim().into(),
        uid: nix::unistd::geteuid().as_raw(),
        log_tail: tail(log).unwrap_or_default(),
    }
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let kept = u64::try_from(LOG_TAIL_BYTES).unwrap_or(0);
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(kept)))?;
    let mut bytes = vec![];
    file.take(kept).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
