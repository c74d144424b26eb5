//! The listener from its credentials to its end: connect, wait for a job, run it, leave.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use github_sim::wire::{BrokerMessage, JobCancellation, JobRequest};

use crate::{
    Environment,
    broker::{Broker, CallError},
    code, job,
    log::ListenerLog,
    root::{Configuration, Root},
};

const POLL_TRIES: u32 = 10;
const SESSION_TRIES: u32 = 8;

/// Values that do not change while the listener lives.
pub(crate) struct ListenerContext {
    pub(crate) root: Root,
    pub(crate) configuration: Configuration,
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
    fn start(broker: Broker, session: String, events: Sender<ListenerEvent>) -> Self {
        let (status, statuses) = mpsc::channel();
        thread::spawn(move || {
            for status in statuses {
                if events
                    .send(ListenerEvent::Polled(broker.poll(&session, status)))
                    .is_err()
                {
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
    let (broker, session) = match connect(listener, events) {
        Ok(connected) => connected,
        Err(code) => return code,
    };
    let code = serve(listener, &broker, &session, sender, events);
    // The listener ends whether or not the server agrees.
    let _ = broker.close_session();
    code
}

fn connect(
    listener: &ListenerContext,
    events: &Receiver<ListenerEvent>,
) -> Result<(Broker, String), u8> {
    let ListenerContext {
        configuration, log, ..
    } = listener;
    let mut tries = 0;
    loop {
        tries += 1;
        let connected = Broker::connect(configuration).and_then(|broker| {
            broker
                .open_session(configuration)
                .map(|session| (broker, session))
        });
        let error = match connected {
            Ok(connected) => {
                log.line("\n\u{221a} Connected to GitHub\n");
                log.line(&format!("Current runner version: '{}'", crate::VERSION));
                return Ok(connected);
            }
            Err(error) => error,
        };
        if error.is("invalid_client") {
            log.error("The runner registration has been deleted from the server, please re-configure. Runner registrations are automatically deleted for runners that have not connected to the service recently.");
            return Err(code::TERMINATED);
        }
        if error.is("RunnerNotFound") {
            return Err(no_longer_exists(listener));
        }
        match error.status() {
            Some(409) if tries < SESSION_TRIES => {
                log.error("A session for this runner already exists.");
            }
            Some(409) => {
                log.error("A session for this runner already exists. Stop retry on SessionConflictException after retried for 240 seconds.");
                return Err(code::SESSION_CONFLICT);
            }
            Some(401 | 403) => {
                log.error(&format!("Failed to create session. {error}"));
                return Err(code::TERMINATED);
            }
            _ if tries < POLL_TRIES => log.error(&format!(
                "Runner connect error: {error}. Retrying until reconnected."
            )),
            _ => return Err(code::RETRYABLE),
        }
        if let Ok(ListenerEvent::Signal(signal)) = events.recv_timeout(backoff(listener, 30)) {
            return Err(code::after(signal));
        }
    }
}

fn serve(
    listener: &ListenerContext,
    broker: &Broker,
    session: &str,
    sender: Sender<ListenerEvent>,
    events: &Receiver<ListenerEvent>,
) -> u8 {
    let log = &listener.log;
    let poller = Poller::start(broker.clone(), session.into(), sender);
    log.event("Listening for Jobs");
    let mut failures = 0;
    let mut refusals = 0;
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
        match answer {
            Ok(message) => {
                refusals = 0;
                if failures > 0 {
                    log.event("Runner reconnected.");
                    failures = 0;
                }
                let Some(message) = message else { continue };
                if let Some(code) = take(listener, broker, session, &poller, events, &message) {
                    return code;
                }
            }
            Err(error) => {
                if let Some(code) = final_code(listener, &error) {
                    return code;
                }
                // The first 401 drops the token, and the second ends the listener.
                if error.status() == Some(401) {
                    refusals += 1;
                    if refusals == 2 {
                        log.error(&format!("An error occurred: {error}"));
                        return code::TERMINATED;
                    }
                    continue;
                }
                refusals = 0;
                failures += 1;
                if failures >= POLL_TRIES {
                    return code::RETRYABLE;
                }
                log.error(&format!(
                    "Runner connect error: {error}. Retrying until reconnected."
                ));
                let pause = backoff(listener, if failures <= 5 { 15 } else { 30 });
                if let Ok(ListenerEvent::Signal(signal)) = events.recv_timeout(pause) {
                    return code::after(signal);
                }
            }
        }
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
    if error.is("RunnerSessionInvalid") {
        // GitHub's listener opens a new session, which is refused for a used one-time config.
        log.error("The session is no longer valid.");
        return Some(code::RETRYABLE);
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

/// Handles a message. Returns the exit code if the listener has run its one job.
fn take(
    listener: &ListenerContext,
    broker: &Broker,
    session: &str,
    poller: &Poller,
    events: &Receiver<ListenerEvent>,
    message: &BrokerMessage,
) -> Option<u8> {
    if message.message_type != "RunnerJobRequest" {
        return None;
    }
    let log = &listener.log;
    let Ok(offer) = serde_json::from_str::<JobRequest>(&message.body) else {
        log.error("cannot read a job request");
        return None;
    };
    if offer.should_acknowledge
        && let Err(error) = broker.acknowledge(session, &offer)
        && error.is("AcknowledgeJobNotFound")
    {
        log.event("Skipping message Job. Job was not found.");
        return Some(code::SUCCESS);
    }
    match broker.acquire(&offer) {
        Ok(message) => Some(job::run(listener, &message, poller, events)),
        Err(error) if matches!(error.status(), Some(404 | 409 | 422)) => {
            log.event(&format!("Skipping message Job. {error}"));
            log.event("Listening for Jobs");
            None
        }
        Err(error) => {
            log.error(&format!("cannot acquire the job: {error}"));
            None
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

/// Returns a time of GitHub's listener, divided by `STANDIN_SPEED` if a test sets it.
pub(crate) fn scaled(listener: &ListenerContext, time: Duration) -> Duration {
    let speed = listener.env.get("STANDIN_SPEED");
    let speed = speed.and_then(|text| text.parse().ok()).unwrap_or(1);
    time / u32::max(speed, 1)
}

/// Returns a pause of GitHub's listener, from `least_s` to twice that. Tests shorten it.
pub(crate) fn backoff(listener: &ListenerContext, least_s: u64) -> Duration {
    let told = listener
        .env
        .get("STANDIN_BACKOFF_MS")
        .and_then(|text| text.parse().ok());
    told.map_or_else(
        || Duration::from_millis(rand::random_range(least_s * 1000..=least_s * 2000)),
        Duration::from_millis,
    )
}
