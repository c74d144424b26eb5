//! Subscribed connections to systemd, one after the other.

use std::time::Duration;

use tokio::sync::watch;
use zbus::{Connection, MessageStream};

use super::bus::{self, ManagerProxy};

/// Pause before the first retry; each further one is twice as long.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Longest pause before a retry.
pub(super) const LAST_RETRY: Duration = Duration::from_secs(5);

/// A connection that is subscribed to systemd's signals.
pub(super) struct Session {
    pub(super) manager: ManagerProxy<'static>,
    pub(super) stream: MessageStream,
}

impl Session {
    /// Connects and subscribes. Signals are queued from now on.
    pub(super) async fn open() -> zbus::Result<Self> {
        let connection = bus::connect().await?;
        let stream = MessageStream::from(&connection);
        bus::add_matches(&connection).await?;
        let manager = bus::manager(&connection).await?;
        // systemd sends no signals without a subscriber.
        manager.subscribe().await?;
        Ok(Self { manager, stream })
    }

    fn connection(&self) -> Connection {
        self.manager.inner().connection().clone()
    }
}

/// The current connection, or the reason why there is none.
type State = Result<Connection, String>;

/// The task's end: announces connections.
pub(super) struct Publisher(watch::Sender<State>);

/// The callers' end: returns the current connection.
#[derive(Debug)]
pub(super) struct Connections(watch::Receiver<State>);

/// Returns both ends, with the connection of the first session.
pub(super) fn publish(session: &Session) -> (Publisher, Connections) {
    let (sender, receiver) = watch::channel(Ok(session.connection()));
    (Publisher(sender), Connections(receiver))
}

impl Connections {
    pub(super) fn current(&self) -> State {
        self.0.borrow().clone()
    }
}

impl Publisher {
    fn set(&self, state: State) {
        drop(self.0.send_replace(state));
    }

    /// Opens a new session after one was lost, however long it takes.
    pub(super) async fn reopen(&self, reason: String) -> Session {
        self.set(Err(reason));
        let mut pause = FIRST_RETRY;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_RETRY);
            match Session::open().await {
                Ok(session) => {
                    self.set(Ok(session.connection()));
                    return session;
                }
                Err(error) => {
                    let reason = error.to_string();
                    tracing::debug!(
                        error = reason,
                        retry_ms = pause.as_millis(),
                        "cannot reconnect to systemd: {reason}"
                    );
                    self.set(Err(reason));
                }
            }
        }
    }
}
