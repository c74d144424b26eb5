//! The stream that keeps the page live.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::document::{content, summary, title};
use crate::clock::unix_ms;
use crate::status::Status;
use crate::terminal;
use crate::view::health;

/// Maximum number of streams at once, over all listeners. A listener has more connections than that, so browsers
/// keep no scraper out.
const MAX_STREAMS: usize = 12;
/// Minimum time between two events. A burst of jobs changes the status many times a second.
const MIN_GAP: Duration = Duration::from_secs(1);
/// Maximum time between two events, so that ages stay true and a browser knows that the daemon lives.
const MAX_GAP: Duration = Duration::from_secs(5);
/// Length of a stream. The browser opens the next one. It is less than a listener's bound on a connection, which
/// would cut the stream in the middle.
const LENGTH: Duration = Duration::from_secs(25);

/// Permits for streams.
#[derive(Debug, Clone)]
pub(crate) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

/// State of one stream.
struct Stream {
    status: watch::Receiver<Status>,
    /// Time of the last event.
    last: Option<Instant>,
    end: Instant,
    _permit: OwnedSemaphorePermit,
}

/// Data of an event.
#[derive(Serialize)]
struct Data {
    title: String,
    summary: String,
    healthy: bool,
    main: String,
}

/// Returns a stream of events, or an error if there are too many streams.
pub(crate) fn events(streams: Streams, status: watch::Receiver<Status>) -> Response {
    let Ok(permit) = streams.0.try_acquire_owned() else {
        let reason = "too many pages are open; the page tries again by itself";
        let retry = [(header::RETRY_AFTER, "10")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, reason).into_response();
    };
    let first = Stream {
        status,
        last: None,
        end: Instant::now() + LENGTH,
        _permit: permit,
    };
    Sse::new(unfold(first, next)).into_response()
}

/// Waits for the next event of a stream. Returns `None` at its end.
async fn next(mut stream: Stream) -> Option<(Result<Event, Infallible>, Stream)> {
    if let Some(last) = stream.last {
        if last + MAX_GAP > stream.end {
            return None;
        }
        sleep_until(last + MIN_GAP).await;
        // Without a publisher, the daemon is stopping.
        if let Ok(Err(_)) = timeout_at(last + MAX_GAP, stream.status.changed()).await {
            return None;
        }
    }
    let event = event(&stream.status.borrow_and_update());
    stream.last = Some(Instant::now());
    Some((Ok(event), stream))
}

/// Returns an event with a status.
fn event(status: &Status) -> Event {
    let status = status.at(unix_ms());
    let Ok(status) = terminal::plain_document(&status) else {
        return Event::default().comment("no status");
    };
    let data = Data {
        title: title(&status),
        summary: summary(&status),
        healthy: health(&status).healthy,
        main: content(&status).into_string(),
    };
    Event::default()
        .event("status")
        .retry(MIN_GAP)
        .json_data(data)
        .unwrap_or_else(|_| Event::default().comment("no status"))
}
