//! The sender of webhook deliveries.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    state::Hub,
    time::unix_ms,
    webhooks::{Attempt, Outgoing},
};

/// Maximum size of an answer that is kept, in bytes.
const ANSWER_BYTES: u64 = 64 * 1024;

/// Sends deliveries until the server ends.
pub(super) async fn run(hub: Arc<Hub>, tick: Duration) {
    let mut changes = hub.watch();
    loop {
        changes.borrow_and_update();
        if hub.read(|state, now| state.webhooks.has_due(now)) {
            let (due, timeout) = hub.note(|state, now| {
                let timeout = Duration::from_millis(state.settings.webhooks.timeout_ms);
                (state.webhooks.take_due(now), timeout)
            });
            for delivery in due {
                let hub = Arc::clone(&hub);
                // The task ends within the timeout.
                tokio::task::spawn_blocking(move || {
                    let attempt = send(&delivery, timeout);
                    hub.change(|state, _| state.webhooks.finish(delivery.id, attempt));
                });
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(tick) => {}
        }
    }
}

fn send(delivery: &Outgoing, timeout: Duration) -> Attempt {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(timeout))
        .user_agent("")
        .accept("")
        .build()
        .into();
    let mut request = agent.post(&delivery.url);
    for (name, value) in &delivery.headers {
        request = request.header(name, value);
    }
    let (at, started) = (unix_ms(), Instant::now());
    let answer = request.send(delivery.body.as_bytes());
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (status, code, response) = match answer {
        Ok(mut answer) => {
            let code = answer.status().as_u16();
            let status = if answer.status().is_success() {
                "OK".to_owned()
            } else {
                format!("Invalid HTTP Response: {code}")
            };
            let body = answer.body_mut().with_config().limit(ANSWER_BYTES);
            (status, code, body.read_to_string().unwrap_or_default())
        }
        Err(ureq::Error::Timeout(_)) => ("timed out".into(), 0, String::new()),
        Err(_) => ("failed to connect to host".into(), 0, String::new()),
    };
    Attempt {
        at,
        duration_ms,
        status,
        code,
        response,
    }
}
