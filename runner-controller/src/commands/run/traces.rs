//! Traces of runners, if the program was built to send them.

use std::sync::Arc;

#[cfg(feature = "traces")]
pub(super) use with::{Sender, start};
#[cfg(not(feature = "traces"))]
pub(super) use without::{Sender, start};

/// Sends what waits, within a bounded time.
pub(super) async fn close(sender: Option<Arc<Sender>>) {
    if let Some(sender) = sender {
        sender.close().await;
    }
}

#[cfg(feature = "traces")]
mod with {
    use std::path::Path;
    use std::time::Duration;

    use traces::{EndedRunner, Exporter, Headers, Settings, Timing};

    use crate::config::{Config, TracesConfig};
    use crate::status::TracesStatus;
    use crate::world::{Traces, VerdictRecord};

    /// Maximum time for the last traces of a daemon that stops. The next daemon starts after it.
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

    /// The task that sends traces.
    pub(crate) struct Sender(Exporter);

    /// Starts the task, if the configuration names a collector.
    pub(crate) fn start(config: &Config) -> anyhow::Result<Option<Sender>> {
        let Some(traces) = &config.traces else {
            return Ok(None);
        };
        let exporter = Exporter::start(Settings {
            endpoint: traces.endpoint.clone(),
            headers: headers(traces)?,
            authorities: Vec::new(),
            host: config.host.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            timing: Timing::default(),
        })?;
        Ok(Some(Sender(exporter)))
    }

    /// Reads the headers from the credential `traces-headers` if systemd passed one, otherwise from the
    /// configured file.
    fn headers(traces: &TracesConfig) -> Result<Headers, traces::HeadersError> {
        let Some(file) = &traces.headers_file else {
            return Ok(Headers::default());
        };
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
            .map(|dir| Path::new(&dir).join(TracesConfig::CREDENTIAL))
            .filter(|path| path.exists());
        Headers::read(&credential.unwrap_or_else(|| file.clone()))
    }

    impl Sender {
        /// Sends what waits, within a bounded time.
        pub(crate) async fn close(&self) {
            self.0.close(CLOSE_TIMEOUT).await;
        }
    }

    impl Traces for Sender {
        fn add(&self, ended: &VerdictRecord, job_url: Option<&str>) {
            self.0.add(EndedRunner {
                record: ended.clone(),
                job_url: job_url.map(str::to_owned),
            });
        }

        fn status(&self) -> TracesStatus {
            let counts = self.0.counts();
            TracesStatus {
                sent: counts.sent,
                dropped: counts.dropped,
                waiting: counts.waiting,
                error: counts.error,
            }
        }
    }
}

/// Compiled in each build, so that the lints of one build see both.
#[cfg_attr(
    feature = "traces",
    expect(dead_code, reason = "the other module is used")
)]
mod without {
    use crate::config::Config;
    use crate::status::TracesStatus;
    use crate::world::{Traces, VerdictRecord};

    /// No task: the configuration of such a program names no collector.
    pub(crate) enum Sender {}

    /// Returns none.
    #[expect(clippy::unnecessary_wraps, reason = "with the feature it may fail")]
    pub(crate) fn start(_config: &Config) -> anyhow::Result<Option<Sender>> {
        Ok(None)
    }

    impl Sender {
        #[expect(clippy::unused_async, reason = "with the feature it waits")]
        pub(crate) async fn close(&self) {
            match *self {}
        }
    }

    impl Traces for Sender {
        fn add(&self, _ended: &VerdictRecord, _job_url: Option<&str>) {
            match *self {}
        }

        fn status(&self) -> TracesStatus {
            match *self {}
        }
    }
}
