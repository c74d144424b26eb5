//! One slot's sockets, and the task that owns them.
//!
//! A hostile container can do nothing here but waste its own connections: a connection that is not
//! wanted is closed and costs a pause, one line is read per life, and while a sight waits to be
//! delivered nothing more is accepted.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::fdstore::Keeper;
use super::files;
use super::marker::{Answer, Marker, Runner};
use super::note::{self, MAX_LINE};
use super::{Counts, HandshakeError};
use crate::pool::SlotId;
use crate::world::{Event, JitConfig, JobNote};

/// The pause after a connection that is not wanted, and after one that hung up.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause after the kernel refused to accept, for want of descriptors or memory.
const PAUSE_ON_ERROR: Duration = Duration::from_secs(1);
/// A config is a few KiB and fits the socket's buffer; only a machine in trouble needs longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two log lines about unwanted connections of one slot.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// What the task is asked to do.
pub(super) enum Command {
    Prepare(oneshot::Sender<Result<(), HandshakeError>>),
    Answer(JitConfig, oneshot::Sender<Result<(), HandshakeError>>),
}

/// What systemd kept for a slot, checked.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) listener: Option<OwnedFd>,
    pub(super) fifo: Option<OwnedFd>,
    pub(super) waiting: Option<OwnedFd>,
    pub(super) runner: Option<(Marker, Runner)>,
}

/// The names that a slot's descriptors have in systemd's store.
pub(super) enum Stored {
    Listener,
    Fifo,
    Waiting,
    Runner,
}

impl Stored {
    pub(super) const ALL: [Self; 4] = [Self::Listener, Self::Fifo, Self::Waiting, Self::Runner];

    pub(super) fn prefix(&self) -> &'static str {
        match self {
            Self::Listener => "jit",
            Self::Fifo => "started",
            Self::Waiting => "ask",
            Self::Runner => "life",
        }
    }

    pub(super) fn name(&self, slot: &SlotId) -> String {
        format!("{}.{slot}", self.prefix())
    }
}

/// The state of one slot; owned by its task.
pub(super) struct Slot {
    id: SlotId,
    dir: PathBuf,
    /// The only peer that is answered: root of this slot's container.
    root_uid: u32,
    listener: Option<UnixListener>,
    fifo: Option<pipe::Receiver>,
    waiting: Option<UnixStream>,
    runner: Runner,
    marker: Option<Marker>,
    outbox: VecDeque<Event>,
    pause_until: Instant,
    unwanted_logged: Option<Instant>,
    keeper: Keeper,
    counts: Arc<Counts>,
}

impl Slot {
    /// A slot with what systemd kept for it. Without a marker, "answered" is believed: a life that
    /// may have its config gets no second one.
    pub(super) fn new(
        id: SlotId,
        dir: PathBuf,
        root_uid: u32,
        kept: Kept,
        keeper: Keeper,
        counts: Arc<Counts>,
    ) -> io::Result<Self> {
        let (marker, runner) = match kept.runner {
            Some((marker, runner)) => (Some(marker), runner),
            None => (None, Runner::UNKNOWN),
        };
        let fifo = match (&runner.line, kept.fifo) {
            // What comes after the first line is not read.
            (Some(_), _) => None,
            (None, Some(fd)) => Some(files::receiver(fd)?),
            (None, None) => {
                // Nothing was kept, but a job that runs now may still want to say so.
                let found = files::open_fifo(&files::fifo(&dir)).ok();
                if let Some(fifo) = &found {
                    keeper.put(Stored::Fifo.name(&id), fifo);
                }
                found
            }
        };
        let mut slot = Self {
            listener: kept.listener.map(files::listener).transpose()?,
            fifo,
            waiting: None,
            outbox: VecDeque::new(),
            pause_until: Instant::now(),
            unwanted_logged: None,
            id,
            dir,
            root_uid,
            runner,
            marker,
            keeper,
            counts,
        };
        if let Some(line) = &slot.runner.line {
            let note = slot.read_note(line);
            slot.tell_started(note);
        }
        match kept.waiting {
            Some(fd) if slot.runner.answer == Answer::Due => {
                slot.waiting = Some(files::stream(fd)?);
                slot.outbox.push_back(Event::ConfigRequested {
                    slot: slot.id.clone(),
                });
            }
            // The last daemon died while it answered this one.
            Some(fd) => {
                drop(fd);
                slot.forget(&Stored::Waiting);
            }
            None => {}
        }
        Ok(slot)
    }

    /// Tells at once what there is to tell, as far as there is room for it.
    pub(super) fn tell(&mut self, events: &mpsc::Sender<Event>) {
        while let Some(event) = self.outbox.pop_front() {
            if let Err(TrySendError::Full(event)) = events.try_send(event) {
                self.outbox.push_front(event);
                return;
            }
        }
    }

    /// Serves the slot until its commands end.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) {
        loop {
            tokio::select! {
                // In this order: what we are told, what ended, and only then what is new.
                biased;
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Prepare(done)) => {
                        let _ = done.send(self.prepare());
                    }
                    Some(Command::Answer(config, done)) => {
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
                line = read_line(self.fifo.as_ref()) => self.started(line),
                peer = accept(self.listener.as_ref(), self.pause_until), if self.outbox.is_empty() => {
                    self.accepted(peer);
                }
            }
        }
    }

    fn prepare(&mut self) -> Result<(), HandshakeError> {
        // Nothing of the last life is told any more, and nobody of it may be waiting.
        self.outbox.clear();
        if self.waiting.take().is_some() {
            self.forget(&Stored::Waiting);
        }
        self.pause_until = Instant::now();
        self.unwanted_logged = None;
        self.prepare_files().map_err(|source| {
            // Half-made is not ready: without its files the slot answers nobody.
            self.runner = Runner::UNKNOWN;
            HandshakeError::Prepare {
                slot: self.id.clone(),
                dir: self.dir.clone(),
                source,
            }
        })
    }

    fn prepare_files(&mut self) -> io::Result<()> {
        let path = files::socket(&self.dir);
        let bound = match (&self.listener, self.runner.listener) {
            (Some(listener), Some(bound)) if files::socket_inode(&path) == Some(bound) => {
                // Only dead processes of the last life can be queued here.
                files::drop_queued(listener)?;
                bound
            }
            _ => {
                self.forget(&Stored::Listener);
                let (listener, bound) = files::bind(&path)?;
                self.keeper.put(self.name(&Stored::Listener), &listener);
                self.listener = Some(listener);
                bound
            }
        };

        let path = files::fifo(&self.dir);
        let kept = match &self.fifo {
            Some(fifo) => files::is_at(fifo, &path) && files::drain(fifo),
            None => false,
        };
        if !kept {
            self.forget(&Stored::Fifo);
            let fifo = files::make_fifo(&path)?;
            self.keeper.put(self.name(&Stored::Fifo), &fifo);
            self.fifo = Some(fifo);
        }

        let runner = Runner::new(bound);
        if let Some(marker) = &self.marker {
            marker.write(&runner)?;
        } else {
            let marker = Marker::create()?;
            marker.write(&runner)?;
            self.keeper.put(self.name(&Stored::Runner), &marker);
            self.marker = Some(marker);
        }
        self.runner = runner;
        Ok(())
    }

    async fn answer(&mut self, config: &JitConfig) -> Result<(), HandshakeError> {
        let slot = || self.id.clone();
        match self.runner.answer {
            Answer::Due => {}
            Answer::Given => return Err(HandshakeError::AlreadyAnswered { slot: slot() }),
        }
        let Some(waiting) = self.waiting.take() else {
            return Err(HandshakeError::NobodyWaits { slot: slot() });
        };
        self.runner.answer = Answer::Given;
        if let Some(marker) = &self.marker
            && let Err(source) = marker.write(&self.runner)
        {
            // Not remembered is not given: nothing was sent, and the next life starts afresh.
            self.forget(&Stored::Waiting);
            return Err(HandshakeError::Send {
                slot: slot(),
                source,
            });
        }
        let sent = timeout(ANSWER_TIMEOUT, send(waiting, config.expose().as_bytes())).await;
        self.forget(&Stored::Waiting);
        match sent {
            Ok(Ok(())) => {
                Counts::add(&self.counts.answered);
                Ok(())
            }
            Ok(Err(source)) => Err(HandshakeError::Send {
                slot: slot(),
                source,
            }),
            Err(_) => Err(HandshakeError::Send {
                slot: slot(),
                source: io::Error::new(ErrorKind::TimedOut, "the container does not read"),
            }),
        }
    }

    fn accepted(&mut self, peer: io::Result<UnixStream>) {
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => {
                self.pause_until = Instant::now() + PAUSE_ON_ERROR;
                self.log_unwanted(&error.to_string());
                return;
            }
        };
        let uid = match peer.peer_cred() {
            Ok(cred) => cred.uid(),
            Err(error) => return self.refuse(&error.to_string()),
        };
        if uid != self.root_uid {
            Counts::add(&self.counts.foreign);
            return self.refuse(&format!("uid {uid} is not root of this container"));
        }
        match self.runner.answer {
            Answer::Due if self.waiting.is_none() => {
                self.keeper.put(self.name(&Stored::Waiting), &peer);
                self.waiting = Some(peer);
                self.outbox.push_back(Event::ConfigRequested {
                    slot: self.id.clone(),
                });
            }
            Answer::Due => {
                Counts::add(&self.counts.surplus);
                self.refuse("another connection is waiting");
            }
            Answer::Given => {
                Counts::add(&self.counts.surplus);
                self.refuse("this life has its config");
            }
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

    fn started(&mut self, line: io::Result<Vec<u8>>) {
        // Closed until the next life: a container that goes on writing wakes nobody.
        self.fifo = None;
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                tracing::error!(slot = %self.id, %error, "cannot read job-started lines");
                return;
            }
        };
        let note = self.read_note(&line);
        self.runner.line = Some(line);
        if let Some(marker) = &self.marker
            && let Err(error) = marker.write(&self.runner)
        {
            tracing::warn!(slot = %self.id, %error, "a restart would forget that this job started");
        }
        Counts::add(&self.counts.job_lines);
        self.tell_started(note);
    }

    fn read_note(&self, line: &[u8]) -> JobNote {
        note::parse(line).unwrap_or_else(|error| {
            Counts::add(&self.counts.garbled);
            tracing::warn!(slot = %self.id, %error, "a job-started line is not understood");
            JobNote::default()
        })
    }

    fn tell_started(&mut self, note: JobNote) {
        self.outbox.push_back(Event::JobStarted {
            slot: self.id.clone(),
            note,
        });
    }

    /// Closes the connection that was just accepted, by letting it go, and waits a little.
    fn refuse(&mut self, why: &str) {
        self.pause_until = Instant::now() + PAUSE;
        self.log_unwanted(why);
    }

    fn log_unwanted(&mut self, why: &str) {
        let now = Instant::now();
        let due = self
            .unwanted_logged
            .is_none_or(|last| now.duration_since(last) >= LOG_EVERY);
        if due {
            self.unwanted_logged = Some(now);
            tracing::warn!(slot = %self.id, why, "refused a connection that asks for a config");
        }
    }

    fn name(&self, stored: &Stored) -> String {
        stored.name(&self.id)
    }

    fn forget(&self, stored: &Stored) {
        self.keeper.remove(self.name(stored));
    }
}

/// Waits for a connection, not before `pause_until`. Never, without a listener.
async fn accept(listener: Option<&UnixListener>, pause_until: Instant) -> io::Result<UnixStream> {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    sleep_until(pause_until).await;
    listener.accept().await.map(|(stream, _)| stream)
}

/// Waits until the peer is gone altogether. Never, without a connection.
///
/// systemd closes its sending half as soon as it has connected, so reading "end of file" says
/// nothing; a peer that is gone shows as our *writing* half closed.
async fn hung_up(waiting: Option<&UnixStream>) {
    let Some(stream) = waiting else {
        return std::future::pending().await;
    };
    loop {
        match stream.ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => {
                // Writable all the time: says so once, and then the next change.
                let _ = stream.try_io(Interest::WRITABLE, || {
                    Err::<(), _>(ErrorKind::WouldBlock.into())
                });
            }
            _ => return,
        }
    }
}

/// Waits for the first bytes of a life, at most one line's worth. Never, without a FIFO.
///
/// The hook writes its line with one `write`, and so many bytes arrive whole (`PIPE_BUF`).
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
    // Watching for the hang-up has used up the readiness to write, and the kernel tells it only
    // once per registration.
    let mut stream = UnixStream::from_std(waiting.into_std()?)?;
    stream.write_all(config).await?;
    stream.shutdown().await
}
