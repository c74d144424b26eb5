//! The traces of runners, for an OpenTelemetry collector.
//!
//! A runner is one trace, which is made at its end from its record. So no span is ever open, and a restart of
//! the daemon splits no trace. The trace id is systemd's id of the start of the runner's unit.
//!
//! - `spans` makes the spans of a runner.
//! - `queue` holds the runners whose spans are not sent yet. It is bounded.
//! - `exporter` is the task that sends them, and `collector` its calls (OTLP over HTTP).
//! - `headers` reads the headers with which a collector knows its senders.

mod collector;
mod exporter;
mod headers;
mod queue;
mod spans;

pub use collector::CollectorError;
pub use exporter::{Exporter, Settings, Timing};
pub use headers::{Headers, HeadersError};
pub use queue::{Counts, MAX_WAITING};
pub use spans::EndedRunner;
