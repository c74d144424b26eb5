//! Notifications: events that an operator chose, each as a JSON document on the standard input of a command.
//!
//! The daemon runs no command. It writes each document to a socket of systemd, which starts the command in a further
//! unit, without privileges.
//!
//! - `changes`: the events that follow from the status
//! - `run`: writes their documents to the socket

mod changes;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock;
use crate::config::NotifyConfig;
use crate::status::Status;

use changes::{Changes, Notification};

/// Interval between two looks at the status.
const INTERVAL: Duration = Duration::from_secs(5);
/// Timeout for writing one document.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of documents that wait for the socket. The oldest is dropped for a new one.
const MAX_WAITING: usize = 20;

/// Writes a document for each event until the daemon ends. A socket that fails is tried again, and delays nothing else.
pub(crate) async fn run(config: NotifyConfig, socket: PathBuf, status: watch::Receiver<Status>) {
    let mut changes = Changes::new(config.events);
    let mut waiting: VecDeque<Notification> = VecDeque::new();
    let mut failed = false;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if status.has_changed().is_err() {
            return;
        }
        let new = {
            let status = status.borrow();
            changes.observe(&status, clock::now())
        };
        for notification in new {
            if waiting.len() == MAX_WAITING {
                waiting.pop_front();
                warn!("dropping a notification: {MAX_WAITING} newer ones wait for their command");
            }
            waiting.push_back(notification);
        }
        while let Some(next) = waiting.front() {
            let event = next.event;
            match write(&socket, next).await {
                Ok(()) => {
                    info!(%event, "told the command of [notify] of {event}: {}", next.text);
                    waiting.pop_front();
                    failed = false;
                }
                Err(error) => {
                    if !failed {
                        warn!(
                            %event, %error,
                            "cannot tell the command of [notify] of {event}: {error}; it is tried again; \
                             see `systemctl status runner-controller-notify.socket`"
                        );
                    }
                    failed = true;
                    break;
                }
            }
        }
    }
}

/// Writes one document and closes the connection, so that the command reads it to its end.
async fn write(socket: &Path, notification: &Notification) -> std::io::Result<()> {
    let document = serde_json::to_string(notification)?;
    let written = tokio::time::timeout(TIMEOUT, async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(document.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        stream.shutdown().await
    });
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    written.await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;
    use crate::config::NotifyEvent;
    use crate::status::DaemonState;

    #[tokio::test]
    async fn a_drain_is_one_document_that_ends_with_its_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let config = NotifyConfig {
            command: vec!["/bin/true".into()],
            events: [NotifyEvent::Drained].into(),
            timeout: Duration::from_secs(1),
        };
        let drained = Status {
            host: "box".into(),
            state: DaemonState::Drained,
            ..Status::default()
        };
        let (show, status) = watch::channel(drained);
        let telling = tokio::spawn(run(config, path, status));
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["event"], "drained");
        assert_eq!(document["host"], "box");
        assert!(text.ends_with("}\n"));
        // It ends with the daemon.
        drop(show);
        telling.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_is_not_there_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify.sock");
        let config = NotifyConfig {
            command: vec!["/bin/true".into()],
            events: [NotifyEvent::Drained].into(),
            timeout: Duration::from_secs(1),
        };
        let drained = Status {
            state: DaemonState::Drained,
            ..Status::default()
        };
        let (_show, status) = watch::channel(drained);
        tokio::spawn(run(config, path.clone(), status));
        tokio::time::sleep(INTERVAL * 3).await;
        let listener = UnixListener::bind(&path).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("drained"));
    }
}
