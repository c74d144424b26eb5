//! The sockets of one slot, and the task that owns them.
//!
//! A hostile container can only waste its own connections. Each refused connection costs it a pause, one
//! line is read per runner, and no connection is accepted while an event waits for the channel.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::error::HandshakeError;
use super::fdstore::FdStore;
use super::files;
use super::marker::{Answer, Exchange, Marker};
use super::note::{self, MAX_LINE};
use super::restore::{Restored, Stored};
use crate::pool::SlotId;
use crate::world::{Event, JitConfig, JobNote};

/// Pause after a refused connection, and after one that hung up.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause after a failed accept, for want of descriptors or memory.
const PAUSE_ON_ERROR: Duration = Duration::from_secs(1);
/// Timeout for sending a config. It has a few KiB and fits the socket's buffer, so only an overloaded
/// machine needs as long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval between two log lines about refused connections of one slot.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Command for the task.
#[derive(Debug)]
pub(super) enum SlotCommand {
    /// Prepares the slot for a new runner.
    Prepare(oneshot::Sender<Result<(), HandshakeError>>),
    /// Sends the config to the waiting runner.
    Answer(JitConfig, oneshot::Sender<Result<(), HandshakeError>>),
}

/// Sockets of one slot and the exchange with its runner, owned by the task.
pub(super) struct SlotSockets {
    id: SlotId,
    dir: PathBuf,
    /// Uid of the only accepted peer: root of the slot's container.
    root_uid: u32,
    listener: Option<UnixListener>,
    fifo: Option<pipe::Receiver>,
    waiting: Option<UnixStream>,
    exchange: Exchange,
    marker: Option<Marker>,
    /// Events that wait for room in the channel.
    outbox: VecDeque<Event>,
    pause_until: Instant,
    refusal_logged: Option<Instant>,
    store: FdStore,
}

impl SlotSockets {
    /// Returns the sockets of a slot with the descriptors that systemd stored. Without a marker the
    /// runner counts as answered, because a runner that may have its config must not get a second one.
    pub(super) fn new(
        id: SlotId,
        dir: PathBuf,
        root_uid: u32,
        restored: Restored,
        store: FdStore,
    ) -> io::Result<Self> {
        let (marker, exchange) = match restored.exchange {
            Some((marker, exchange)) => (Some(marker), exchange),
            None => (None, Exchange::UNKNOWN),
        };
        let fifo = match (&exchange.line, restored.fifo) {
            // Further lines are not read.
            (Some(_), _) => None,
            (None, Some(fd)) => Some(files::receiver(fd)?),
            (None, None) => {
                // No FIFO was stored, but a running job may still report its start.
                let found = files::open_fifo(&files::fifo(&dir)).ok();
                if let Some(fifo) = &found {
                    store.put(Stored::Fifo.name(&id), fifo);
                }
                found
            }
        };
        let mut slot = Self {
            listener: restored.listener.map(files::listener).transpose()?,
            fifo,
            waiting: None,
            outbox: VecDeque::new(),
            pause_until: Instant::now(),
            refusal_logged: None,
            id,
            dir,
            root_uid,
            exchange,
            marker,
            store,
        };
        if let Some(line) = &slot.exchange.line {
            let note = slot.read_note(line);
            slot.push_started(note);
        }
        match restored.waiting {
            Some(fd) if slot.exchange.answer == Answer::Due => {
                slot.waiting = Some(files::stream(fd)?);
                slot.outbox.push_back(Event::ConfigRequested {
                    slot: slot.id.clone(),
                });
            }
            // The last daemon ended while it answered this connection.
            Some(fd) => {
                drop(fd);
                slot.forget(&Stored::Waiting);
            }
            None if slot.exchange.answer == Answer::Due => {
                slot.outbox.push_back(Event::ConfigNotGiven {
                    slot: slot.id.clone(),
                });
            }
            None => {}
        }
        Ok(slot)
    }

    /// Sends waiting events at once, as far as the channel has room.
    pub(super) fn send_now(&mut self, events: &mpsc::Sender<Event>) {
        while let Some(event) = self.outbox.pop_front() {
            if let Err(TrySendError::Full(event)) = events.try_send(event) {
                self.outbox.push_front(event);
                return;
            }
        }
    }

    /// Serves the slot until the sender of commands is gone.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<SlotCommand>,
        events: mpsc::Sender<Event>,
    ) {
        loop {
            tokio::select! {
                // In this order: commands, events and hang-ups come before new lines and connections.
                biased;
                command = commands.recv() => match command {
                    None => return,
                    Some(SlotCommand::Prepare(done)) => {
                        let _ = done.send(self.prepare());
                    }
                    Some(SlotCommand::Answer(config, done)) => {
                        let _ = done.send(self.answer(&config).await);
                    }
                },
                permit = events.reserve(), if !self.outbox.is_empty() => match permit {
                    Err(_) => return,
                    Ok(permit) => {
                        if let Some(event) = self.outbox.pop_front() {
                            permit.send(event);
                        }
                    }
                },
                () = hung_up(self.waiting.as_ref()) => self.hang_up(),
                line = read_line(self.fifo.as_ref()) => self.job_started(line),
                peer = accept(self.listener.as_ref(), self.pause_until), if self.outbox.is_empty() => {
                    self.connected(peer);
                }
            }
        }
    }

    fn prepare(&mut self) -> Result<(), HandshakeError> {
        // Events and connections of the last runner are not of the next one.
        self.outbox.clear();
        if self.waiting.take().is_some() {
            self.forget(&Stored::Waiting);
        }
        self.pause_until = Instant::now();
        self.refusal_logged = None;
        self.prepare_files().map_err(|source| {
            // A slot with half of its files answers no runner.
            self.exchange = Exchange::UNKNOWN;
            HandshakeError::Prepare {
                slot: self.id.clone(),
                dir: self.dir.clone(),
                source,
            }
        })
    }

    fn prepare_files(&mut self) -> io::Result<()> {
        let path = files::socket(&self.dir);
        let bound = match (&self.listener, self.exchange.listener) {
            (Some(listener), Some(bound)) if files::socket_inode(&path) == Some(bound) => {
                // Only dead processes of the last runner can be in the queue.
                files::drop_queued(listener)?;
                bound
            }
            _ => {
                self.forget(&Stored::Listener);
                let (listener, bound) = files::bind(&path)?;
                self.store.put(self.name(&Stored::Listener), &listener);
                self.listener = Some(listener);
                bound
            }
        };

        let path = files::fifo(&self.dir);
        let is_usable = match &self.fifo {
            Some(fifo) => files::is_at(fifo, &path) && files::drain(fifo),
            None => false,
        };
        if !is_usable {
            self.forget(&Stored::Fifo);
            let fifo = files::make_fifo(&path)?;
            self.store.put(self.name(&Stored::Fifo), &fifo);
            self.fifo = Some(fifo);
        }

        let exchange = Exchange::new(bound);
        if let Some(marker) = &self.marker {
            marker.write(&exchange)?;
        } else {
            let marker = Marker::create()?;
            marker.write(&exchange)?;
            self.store.put(self.name(&Stored::Marker), &marker);
            self.marker = Some(marker);
        }
        self.exchange = exchange;
        Ok(())
    }

    async fn answer(&mut self, config: &JitConfig) -> Result<(), HandshakeError> {
        let slot = || self.id.clone();
        match self.exchange.answer {
            Answer::Due => {}
            Answer::Given => return Err(HandshakeError::AlreadyAnswered { slot: slot() }),
        }
        let Some(waiting) = self.waiting.take() else {
            return Err(HandshakeError::NotWaiting { slot: slot() });
        };
        self.exchange.answer = Answer::Given;
        if let Some(marker) = &self.marker
            && let Err(source) = marker.write(&self.exchange)
        {
            // A config must not be sent unless the marker says so. This runner gets none.
            self.forget(&Stored::Waiting);
            return Err(HandshakeError::Send {
                slot: slot(),
                source,
            });
        }
        let sent = timeout(ANSWER_TIMEOUT, send(waiting, config.expose().as_bytes())).await;
        self.forget(&Stored::Waiting);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(HandshakeError::Send {
                slot: slot(),
                source,
            }),
            Err(_) => Err(HandshakeError::Send {
                slot: slot(),
                source: io::Error::new(ErrorKind::TimedOut, "the container does not read it"),
            }),
        }
    }

    fn connected(&mut self, peer: io::Result<UnixStream>) {
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => {
                self.pause_until = Instant::now() + PAUSE_ON_ERROR;
                self.log_refusal(&error.to_string());
                return;
            }
        };
        let uid = match peer.peer_cred() {
            Ok(cred) => cred.uid(),
            Err(error) => return self.refuse(&error.to_string()),
        };
        if uid != self.root_uid {
            return self.refuse(&format!("uid {uid} is not root of this container"));
        }
        match self.exchange.answer {
            Answer::Due if self.waiting.is_none() => {
                self.store.put(self.name(&Stored::Waiting), &peer);
                self.waiting = Some(peer);
                self.outbox.push_back(Event::ConfigRequested {
                    slot: self.id.clone(),
                });
            }
            Answer::Due => self.refuse("another connection is waiting"),
            Answer::Given => self.refuse("the runner has its config"),
        }
    }

    fn hang_up(&mut self) {
        self.waiting = None;
        self.forget(&Stored::Waiting);
        self.pause_until = Instant::now() + PAUSE;
        self.outbox.push_back(Event::RequestDropped {
            slot: self.id.clone(),
        });
    }

    fn job_started(&mut self, line: io::Result<Vec<u8>>) {
        // The FIFO is closed until the next runner, so further lines do not wake the task.
        self.fifo = None;
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                let slot = &self.id;
                tracing::error!(%slot, %error, "{slot}: cannot read the job-started line: {error}");
                return;
            }
        };
        let note = self.read_note(&line);
        self.exchange.line = Some(line);
        if let Some(marker) = &self.marker
            && let Err(error) = marker.write(&self.exchange)
        {
            let slot = &self.id;
            tracing::warn!(%slot, %error, "{slot}: cannot record that the job has started: {error}; a restart would forget it");
        }
        self.push_started(note);
    }

    fn read_note(&self, line: &[u8]) -> JobNote {
        note::parse(line).unwrap_or_else(|error| {
            let slot = &self.id;
            tracing::warn!(%slot, %error, "{slot}: cannot parse the job-started line: {error}");
            JobNote::default()
        })
    }

    fn push_started(&mut self, note: JobNote) {
        self.outbox.push_back(Event::JobStarted {
            slot: self.id.clone(),
            note,
        });
    }

    /// Pauses after a connection that the caller drops, and so closes.
    fn refuse(&mut self, reason: &str) {
        self.pause_until = Instant::now() + PAUSE;
        self.log_refusal(reason);
    }

    fn log_refusal(&mut self, reason: &str) {
        let now = Instant::now();
        let is_due = self
            .refusal_logged
            .is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
        if is_due {
            self.refusal_logged = Some(now);
            let slot = &self.id;
            tracing::warn!(%slot, reason, "{slot}: refused a connection: {reason}");
        }
    }

    fn name(&self, stored: &Stored) -> String {
        stored.name(&self.id)
    }

    fn forget(&self, stored: &Stored) {
        self.store.remove(self.name(stored));
    }
}

/// Waits for a connection, not before `pause_until`. Never returns without a listener.
async fn accept(listener: Option<&UnixListener>, pause_until: Instant) -> io::Result<UnixStream> {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    sleep_until(pause_until).await;
    listener.accept().await.map(|(stream, _)| stream)
}

/// Waits until the peer has closed its connection. Never returns without a connection.
///
/// systemd closes its sending half as soon as it has connected, so an end of file means nothing. A peer
/// that is gone shows as our *writing* half closed.
async fn hung_up(waiting: Option<&UnixStream>) {
    let Some(stream) = waiting else {
        return std::future::pending().await;
    };
    loop {
        match stream.ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => {
                // The stream is always writable. Clearing that waits for the next change.
                let _ = stream.try_io(Interest::WRITABLE, || {
                    Err::<(), _>(ErrorKind::WouldBlock.into())
                });
            }
            _ => return,
        }
    }
}

/// Waits for the first bytes in the FIFO, at most as long as a line. Never returns without a FIFO.
///
/// The hook writes its line with one `write`, and so few bytes arrive whole (`PIPE_BUF`).
async fn read_line(fifo: Option<&pipe::Receiver>) -> io::Result<Vec<u8>> {
    let Some(fifo) = fifo else {
        return std::future::pending().await;
    };
    loop {
        fifo.readable().await?;
        let mut line = vec![0; MAX_LINE];
        match fifo.try_read(&mut line) {
            Ok(length) => {
                line.truncate(length);
                return Ok(line);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn send(waiting: UnixStream, config: &[u8]) -> io::Result<()> {
    // The wait for a hang-up has cleared the readiness to write, which the kernel reports once per
    // registration.
    let mut stream = UnixStream::from_std(waiting.into_std()?)?;
    stream.write_all(config).await?;
    stream.shutdown().await
}
