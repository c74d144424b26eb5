//! The listener from its credentials to its end: connect, wait for a job, run it, leave.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Instant,
};

use github_sim::wire::{BrokerMessage, JobCancellation, JobRequest};

use crate::{
    Environment,
    broker::{Broker, CallError},
    clocks::{CALL_PAUSE_S, Clocks, IDLE_PATIENCE, SESSION_PAUSE_S, SKIP_PAUSES_S},
    code, job,
    log::ListenerLog,
    root::{Configuration, Root},
};

const SESSION_TRIES: u32 = 8;
const ACQUIRE_TRIES: u32 = 5;

/// Values that do not change while the listener lives.
pub(crate) struct ListenerContext {
    pub(crate) root: Root,
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) clocks: Clocks,
    pub(crate) env: Environment,
    pub(crate) log: ListenerLog,
}

/// An event for a listener that waits.
pub(crate) enum ListenerEvent {
    /// SIGINT or SIGTERM.
    Signal(i32),
    /// A poll was answered.
    Polled(Result<Option<BrokerMessage>, CallError>),
}

/// A thread that polls once for each status that it is given.
pub(crate) struct Poller {
    status: Sender<&'static str>,
}

impl Poller {
    fn start(broker: Broker, events: Sender<ListenerEvent>) -> Self {
        let (status, statuses) = mpsc::channel();
        thread::spawn(move || {
            for status in statuses {
                let mut answer = broker.poll(status);
                // A new session takes the place of an invalid one at once. A running job goes on.
                if answer
                    .as_ref()
                    .is_err_and(|error| error.is("RunnerSessionInvalid"))
                {
                    answer = broker.reopen_session().map(|()| None);
                }
                if events.send(ListenerEvent::Polled(answer)).is_err() {
                    return;
                }
            }
        });
        Self { status }
    }

    /// Starts one more poll. The answer is an event.
    pub(crate) fn poll(&self, status: &'static str) {
        // The thread ends only with the program.
        let _ = self.status.send(status);
    }
}

/// Runs until the job is done, the registration is gone, or a signal comes. Returns the exit code.
pub(crate) fn run(
    listener: &ListenerContext,
    sender: Sender<ListenerEvent>,
    events: &Receiver<ListenerEvent>,
) -> u8 {
    let broker = Broker::new(&listener.configuration);
    if let Err(code) = connect(listener, &broker, events) {
        return code;
    }
    let code = serve(listener, &broker, sender, events);
    // The listener ends whether or not the server agrees.
    let _ = broker.close_session();
    code
}

fn connect(
    listener: &ListenerContext,
    broker: &Broker,
    events: &Receiver<ListenerEvent>,
) -> Result<(), u8> {
    let ListenerContext { log, clocks, .. } = listener;
    let mut conflicts = 0;
    let mut silent_since = None;
    loop {
        let error = match broker.open_session() {
            Ok(()) => {
                log.line("\n\u{221a} Connected to GitHub\n");
                log.line(&format!("Current runner version: '{}'", crate::VERSION));
                return Ok(());
            }
            Err(error) => error,
        };
        if error.is("RunnerNotFound") {
            return Err(no_longer_exists(listener));
        }
        if error.is("invalid_client") {
            return Err(registration_deleted(listener));
        }
        let mut pause = SESSION_PAUSE_S;
        match error.status() {
            Some(409) => {
                conflicts += 1;
                if conflicts == SESSION_TRIES {
                    log.error("A session for this runner already exists. Stop retry on SessionConflictException after retried for 240 seconds.");
                    return Err(code::SESSION_CONFLICT);
                }
                log.error("A session for this runner already exists.");
            }
            Some(401 | 403) => {
                log.error(&format!("Failed to create session. {error}"));
                return Err(code::TERMINATED);
            }
            // The listener tries again without a limit.
            Some(_) => connect_error(listener, &error),
            None => {
                connect_error(listener, &error);
                if has_lasted(listener, &mut silent_since) {
                    return Err(code::RETRYABLE);
                }
                pause = CALL_PAUSE_S;
            }
        }
        if let Ok(ListenerEvent::Signal(signal)) = events.recv_timeout(clocks.pause(pause)) {
            return Err(code::after(signal));
        }
    }
}

fn connect_error(listener: &ListenerContext, error: &CallError) {
    listener.log.error(&format!(
        "Runner connect error: {error}. Retrying until reconnected."
    ));
}

/// Tells whether an outage, which begins now if it had not, has lasted too long for an idle listener.
fn has_lasted(listener: &ListenerContext, since: &mut Option<Instant>) -> bool {
    let since = since.get_or_insert_with(Instant::now);
    since.elapsed() >= listener.clocks.scaled(IDLE_PATIENCE)
}

fn serve(
    listener: &ListenerContext,
    broker: &Broker,
    sender: Sender<ListenerEvent>,
    events: &Receiver<ListenerEvent>,
) -> u8 {
    let ListenerContext { log, clocks, .. } = listener;
    let poller = Poller::start(broker.clone(), sender);
    log.event("Listening for Jobs");
    let mut failing_since = None;
    let mut refusals = PollRefusals::default();
    let mut skipped = 0;
    loop {
        poller.poll("Online");
        let answer = match events.recv() {
            Ok(ListenerEvent::Signal(signal)) => {
                log.line("Exiting...");
                return code::after(signal);
            }
            Err(_) => return code::SUCCESS,
            Ok(ListenerEvent::Polled(answer)) => answer,
        };
        if let Some(code) = refusals.count(listener, &answer) {
            return code;
        }
        let pause = match answer {
            Ok(message) => {
                if failing_since.take().is_some() {
                    log.event("Runner reconnected.");
                }
                let Some(message) = message else { continue };
                match take(listener, broker, &poller, events, &message) {
                    Taken::Ended(code) => return code,
                    Taken::Nothing => continue,
                    Taken::Skipped => {
                        let seconds = SKIP_PAUSES_S[skipped.min(SKIP_PAUSES_S.len() - 1)];
                        skipped += 1;
                        clocks.pause(seconds..=seconds)
                    }
                }
            }
            Err(error) if error.status() == Some(401) => continue,
            Err(error) => {
                if has_lasted(listener, &mut failing_since) {
                    return code::RETRYABLE;
                }
                connect_error(listener, &error);
                clocks.pause(CALL_PAUSE_S)
            }
        };
        if let Ok(ListenerEvent::Signal(signal)) = events.recv_timeout(pause) {
            return code::after(signal);
        }
    }
}

/// Number of polls in a row that were answered with 401.
#[derive(Default)]
pub(crate) struct PollRefusals(u32);

impl PollRefusals {
    /// Counts the answer to a poll. Returns the exit code if it ends the listener: the first 401 drops the
    /// token, and the second ends the listener.
    pub(crate) fn count(
        &mut self,
        listener: &ListenerContext,
        answer: &Result<Option<BrokerMessage>, CallError>,
    ) -> Option<u8> {
        let Err(error) = answer else {
            self.0 = 0;
            return None;
        };
        if let Some(code) = final_code(listener, error) {
            return Some(code);
        }
        self.0 = if error.status() == Some(401) {
            self.0 + 1
        } else {
            0
        };
        (self.0 == 2).then(|| {
            listener.log.error(&format!("An error occurred: {error}"));
            code::TERMINATED
        })
    }
}

/// Returns the exit code for an error that ends the listener.
fn final_code(listener: &ListenerContext, error: &CallError) -> Option<u8> {
    let log = &listener.log;
    if error.is("RunnerNotFound") {
        return Some(no_longer_exists(listener));
    }
    if error.is("HostedRunnerDeprovisioned") {
        return Some(code::SUCCESS);
    }
    if error.is("RunnerVersionTooOld") {
        log.error(&format!(
            "An error occurred: Runner version v{} is deprecated and cannot receive messages.",
            crate::VERSION
        ));
        let told = listener
            .env
            .get("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE");
        return Some(if told.is_some_and(|value| value == "1") {
            code::VERSION_DEPRECATED
        } else {
            code::TERMINATED
        });
    }
    if error.is("invalid_client") {
        return Some(registration_deleted(listener));
    }
    None
}

fn no_longer_exists(listener: &ListenerContext) -> u8 {
    listener
        .log
        .error("The runner no longer exists on the server. Please reconfigure the runner.");
    listener.root.forget();
    code::SUCCESS
}

fn registration_deleted(listener: &ListenerContext) -> u8 {
    listener.log.error("The runner registration has been deleted from the server, please re-configure. Runner registrations are automatically deleted for runners that have not connected to the service recently.");
    code::TERMINATED
}

/// Outcome of a message.
enum Taken {
    /// The message offers no job.
    Nothing,
    /// The job could not be acquired.
    Skipped,
    /// The listener ends with this code.
    Ended(u8),
}

/// Handles a message, and runs the job that it offers.
fn take(
    listener: &ListenerContext,
    broker: &Broker,
    poller: &Poller,
    events: &Receiver<ListenerEvent>,
    message: &BrokerMessage,
) -> Taken {
    if message.message_type != "RunnerJobRequest" {
        return Taken::Nothing;
    }
    let log = &listener.log;
    let Ok(offer) = serde_json::from_str::<JobRequest>(&message.body) else {
        log.error("cannot read a job request");
        return Taken::Nothing;
    };
    if offer.should_acknowledge
        && let Err(error) = broker.acknowledge(&offer)
        && error.is("AcknowledgeJobNotFound")
    {
        log.event("Skipping message Job. Job was not found.");
        listener.root.forget();
        return Taken::Ended(code::SUCCESS);
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match broker.acquire(&offer) {
            Ok(message) => return Taken::Ended(job::run(listener, &message, poller, events)),
            Err(error) => error,
        };
        if matches!(error.status(), Some(404 | 409 | 422)) || tries == ACQUIRE_TRIES {
            log.event(&format!("Skipping message Job. {error}"));
            log.event("Listening for Jobs");
            return Taken::Skipped;
        }
        let pause = listener.clocks.pause(CALL_PAUSE_S);
        if let Ok(ListenerEvent::Signal(signal)) = events.recv_timeout(pause) {
            return Taken::Ended(code::after(signal));
        }
    }
}

/// Returns the job that a message cancels, and the seconds that the job has to end.
pub(crate) fn cancellation(message: &BrokerMessage) -> Option<(String, u64)> {
    if message.message_type != "JobCancellation" {
        return None;
    }
    let body: JobCancellation = serde_json::from_str(&message.body).ok()?;
    let seconds = body.timeout.split(':').try_fold(0, |sum, part| {
        part.parse::<u64>().ok().map(|number| sum * 60 + number)
    })?;
    Some((body.job_id, seconds))
}
