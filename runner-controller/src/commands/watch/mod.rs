//! `status --watch`: the status in a terminal, live.
//!
//! - `model`: the state, and the effect of keys
//! - `list`, `rows`, `detail`: the lists, their rows, and a runner's facts
//! - `screen`: draws a model
//! - `session`: takes and restores the terminal
//! - `log`: follows a runner's journal

mod detail;
mod list;
mod log;
mod model;
mod rows;
mod screen;
mod session;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::log::Log;
use self::model::{Model, Request};
use self::screen::Colours;
use self::session::Session;
use super::common::{api_socket, block_on};
use crate::clock::unix_ms;
use crate::http::client;
use crate::status::Status;
use crate::terminal;

/// Interval between questions to the daemon.
const INTERVAL: Duration = Duration::from_secs(1);

/// Exit status after a signal: 128 and its number, as a shell reports it.
const SIGNAL_BASE: u8 = 128;

/// Shows the status until an operator ends it. `pool` is the only pool that is shown at first.
pub fn watch(config: &Path, pool: Option<String>) -> anyhow::Result<ExitCode> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!(
            "--watch needs a terminal for its keys and its screen; without one, run `runner-status` again and again, \
             or read `runner-status --json`"
        );
    }
    if std::env::var("TERM").is_ok_and(|term| term == "dumb") {
        bail!(
            "--watch needs a terminal that can move its cursor, and TERM is dumb; run `runner-status`"
        );
    }
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    block_on(show(config.to_owned(), pool, Colours(!no_color)))?
}

async fn show(config: PathBuf, pool: Option<String>, colours: Colours) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let mut session = Session::open().context("cannot set up the terminal")?;
    let mut keys = EventStream::new();
    let (sender, mut answers) = mpsc::channel(1);
    tokio::spawn(ask(config, sender));
    let mut model = Model::new(pool);
    let mut log: Option<Log> = None;
    loop {
        let drawn = session
            .terminal
            .draw(|frame| screen::draw(frame, &model, unix_ms(), colours));
        if drawn.is_err() {
            // The terminal is gone, and with it every reader of a message.
            return Ok(ExitCode::from(stdio::READER_GONE));
        }
        tokio::select! {
            biased;
            number = signals.next() => return Ok(ExitCode::from(SIGNAL_BASE + number)),
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                    match model.press(key) {
                        Request::Show => {}
                        Request::Quit => return Ok(ExitCode::SUCCESS),
                        Request::ReadLog(subject) => match Log::open(&subject) {
                            Ok(opened) => log = Some(opened),
                            Err(error) => model.log_ended(format!("cannot run journalctl: {error}")),
                        },
                        Request::CloseLog => log = None,
                    }
                }
                // A new size of the terminal is drawn like everything else.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(ExitCode::from(stdio::READER_GONE)),
            },
            Some(answer) = answers.recv() => model.answered(answer),
            line = next_line(&mut log) => match line {
                Ok(line) => model.logged(&line),
                Err(reason) => {
                    log = None;
                    model.log_ended(reason);
                }
            },
        }
    }
}

/// Returns the next line of the log, if one is open.
async fn next_line(log: &mut Option<Log>) -> Result<String, String> {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}

/// Asks the daemon again and again, until the screen is closed.
async fn ask(config: PathBuf, answers: mpsc::Sender<Result<Status, String>>) {
    loop {
        // The configuration is read anew each time, because a deploy may change it meanwhile.
        let answer = match client::status(&api_socket(&config)).await {
            Ok(status) => terminal::plain_document(&status.at(unix_ms()))
                .map_err(|error| format!("cannot read the daemon's answer: {error}")),
            Err(error) => Err(format!("{:#}", anyhow::Error::new(error))),
        };
        if answers.send(answer).await.is_err() {
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Signals that end the program.
struct Signals([(u8, tokio::signal::unix::Signal); 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let one = |number, kind| Ok::<_, io::Error>((number, signal(kind)?));
        Ok(Self([
            one(1, SignalKind::hangup())?,
            one(2, SignalKind::interrupt())?,
            one(15, SignalKind::terminate())?,
        ]))
    }

    /// Waits for a signal and returns its number.
    async fn next(&mut self) -> u8 {
        let [hangup, interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = hangup.1.recv() => hangup.0,
            _ = interrupt.1.recv() => interrupt.0,
            _ = terminate.1.recv() => terminate.0,
        }
    }
}

#[cfg(test)]
mod tests;
