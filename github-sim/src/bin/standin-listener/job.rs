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
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{
    broker::{CallError, RunService},
    code,
    listen::{ListenerContext, ListenerEvent, Poller, backoff, cancellation, scaled},
    worker::WorkerOrder,
};

const RENEW_EVERY: Duration = Duration::from_mins(1);
/// Time from the first missed renewal to the cancellation of the job.
const RENEW_PATIENCE: Duration = Duration::from_secs(40);
/// Interval between checks of the worker, if an event does not come first.
const CHECK_EVERY: Duration = Duration::from_millis(20);
/// Time that GitHub's listener gives its worker after a signal.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(30);
const REPORT_TRIES: u32 = 5;

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
    let mut running = match start_worker(listener, message, &log_file) {
        Ok(child) => RunningJob {
            listener,
            message,
            service: &service,
            poller,
            child,
            deadline: None,
            signal: None,
        },
        Err(error) => {
            listener
                .log
                .error(&format!("cannot start the worker: {error}"));
            let _ = report(listener, &service, JobResult::Failed);
            return code::RETRYABLE;
        }
    };
    let JobEnd::Over(mut result) = running.wait(events) else {
        running.kill(Signal::SIGKILL);
        return message
            .listener_faults
            .crash_with
            .unwrap_or(code::RETRYABLE);
    };
    // GitHub's listener reports a job that a signal ended as failed, never as cancelled.
    if running.signal.is_some() && result == JobResult::Canceled {
        result = JobResult::Failed;
    }
    // Processes that the job left running end with it.
    running.kill(Signal::SIGKILL);
    let _ = service.tell(&facts(&log_file));
    if !message.listener_faults.skip_complete
        && let Err(error) = report(listener, &service, result)
    {
        listener
            .log
            .error(&format!("cannot report the job's end: {error}"));
    }
    listener.log.event(&format!(
        "Job {name} completed with result: {}",
        result.log_word()
    ));
    std::thread::sleep(Duration::from_millis(message.listener_faults.linger_ms));
    listener.root.forget();
    let tells_result = listener
        .env
        .get("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED")
        .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
    match message.listener_faults.exit_with {
        Some(code) => code,
        None if let Some(signal) = running.signal => code::after(signal),
        None if tells_result => result.exit_code(),
        None => code::SUCCESS,
    }
}

/// A job whose worker has started.
struct RunningJob<'a> {
    listener: &'a ListenerContext,
    message: &'a JobMessage,
    service: &'a RunService,
    poller: &'a Poller,
    child: Child,
    /// Time at which a cancelled worker is killed.
    deadline: Option<Instant>,
    /// The first signal.
    signal: Option<i32>,
}

/// Outcome of a renewal of the job's lock.
enum Renewal {
    Good,
    /// The server does not know the job any more.
    Refused,
    Missed,
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
        let (every, patience) = (
            scaled(self.listener, RENEW_EVERY),
            scaled(self.listener, RENEW_PATIENCE),
        );
        loop {
            if faults.crash_with.is_some() && started.elapsed() >= crash_after {
                return JobEnd::Crashed;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let told = status.code().and_then(JobResult::from_exit_code);
                return JobEnd::Over(match (told, self.deadline) {
                    // The signal may reach a step before it reaches the worker, and a worker that
                    // it ended reports nothing.
                    (Some(JobResult::Failed) | None, Some(_)) => JobResult::Canceled,
                    (None, None) => JobResult::Failed,
                    (Some(result), _) => result,
                });
            }
            if self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
            {
                self.kill(Signal::SIGKILL);
            }
            let due = if missed.is_some() { every / 10 } else { every };
            if renewed.elapsed() >= due && !faults.skip_renew {
                renewed = Instant::now();
                match self.renew() {
                    Renewal::Good => missed = None,
                    Renewal::Refused => self.kill(Signal::SIGKILL),
                    Renewal::Missed => {
                        let since = *missed.get_or_insert(renewed);
                        if since.elapsed() >= patience && self.deadline.is_none() {
                            self.cancel(SIGNAL_PATIENCE);
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
        let timeout = scaled(self.listener, RENEW_PATIENCE);
        match self.service.renew(timeout) {
            Ok(()) => Renewal::Good,
            Err(error) => {
                self.listener
                    .log
                    .error(&format!("cannot renew the job's lock: {error}"));
                if error.status() == Some(404) {
                    Renewal::Refused
                } else {
                    Renewal::Missed
                }
            }
        }
    }

    fn hear(&mut self, event: ListenerEvent) {
        match event {
            ListenerEvent::Signal(signal) => {
                self.signal.get_or_insert(signal);
                self.listener.log.line("Exiting...");
                self.cancel(SIGNAL_PATIENCE);
            }
            ListenerEvent::Polled(Ok(message)) => {
                let order = message.as_ref().and_then(cancellation);
                if let Some((job, seconds)) = order
                    && job == self.message.job_id
                {
                    self.cancel(Duration::from_secs(seconds.min(CANCEL_TIMEOUT_S)));
                }
                self.poller.poll("Busy");
            }
            // The job goes on whatever the broker answers. Without a pause this would be a busy loop.
            ListenerEvent::Polled(Err(_)) => {
                std::thread::sleep(backoff(self.listener, 1).min(Duration::from_secs(1)));
                self.poller.poll("Busy");
            }
        }
    }

    fn cancel(&mut self, patience: Duration) {
        if self.message.listener_faults.ignore_cancel {
            return;
        }
        let deadline = Instant::now() + patience;
        self.deadline = Some(
            self.deadline
                .map_or(deadline, |earlier| earlier.min(deadline)),
        );
        self.kill(Signal::SIGINT);
    }

    /// Signals the worker and the processes of its group.
    fn kill(&self, signal: Signal) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(id), signal);
        }
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

fn report(
    listener: &ListenerContext,
    service: &RunService,
    result: JobResult,
) -> Result<(), CallError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match service.complete(result) {
            Ok(()) => return Ok(()),
            // The server has taken the job back, or never gave it.
            Err(error) if matches!(error.status(), Some(400..=499)) => return Err(error),
            Err(error) if tries == REPORT_TRIES => return Err(error),
            Err(_) => std::thread::sleep(backoff(listener, 1)),
        }
    }
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
