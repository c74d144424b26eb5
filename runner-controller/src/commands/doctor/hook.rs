//! The hook of GitHub's deliveries: its secret and its listener.

use super::finding::Finding;
use crate::config::WebhookConfig;
use crate::status::Status;
use crate::view::signatures;
use crate::webhook::{Answer, SecretError, Secrets, SendError, send};
use crate::world::chain;

const AREA: &str = "webhook";

/// Reads the secret and sends the listener a signed ping, which changes nothing. Needs root.
pub(super) async fn check(webhook: &WebhookConfig, status: Option<&Status>) -> Vec<Finding> {
    let secrets = match Secrets::load(webhook) {
        Ok(secrets) => secrets,
        Err(error) => return vec![unreadable(&error)],
    };
    // Without a daemon nothing listens, which another finding tells.
    let Some(status) = status else {
        return vec![Finding::skipped(AREA, "no daemon listens")];
    };
    let id = format!("doctor-{:016x}", rand::random::<u64>());
    let body = br#"{"zen":"doctor"}"#.to_vec();
    let answer = send(webhook.listen, &secrets, "ping", &id, body).await;
    let mut findings = vec![judge_ping(webhook, answer)];
    findings.extend(judge_deliveries(webhook, status));
    findings
}

fn unreadable(error: &SecretError) -> Finding {
    Finding::problem(
        AREA,
        chain(error),
        "write the hook's secret to webhook.secret_file, readable by root alone, and restart runner-controller",
    )
}

fn judge_ping(webhook: &WebhookConfig, answer: Result<Answer, SendError>) -> Finding {
    let listen = webhook.listen;
    match answer {
        Ok(answer) if (200..300).contains(&answer.status) => Finding::good(
            AREA,
            format!("the listener at {listen} accepts the secret of webhook.secret_file"),
        ),
        Ok(answer) => Finding::problem(
            AREA,
            format!(
                "the listener at {listen} refuses the secret of {} with {}: {}",
                webhook.secret_file.display(),
                answer.status,
                answer.text.trim()
            ),
            "restart runner-controller, which reads the secret only at its start",
        ),
        Err(error) => Finding::problem(
            AREA,
            chain(&error),
            "read `journalctl -u runner-controller`; another program may use the port",
        ),
    }
}

/// Judges GitHub's deliveries since the daemon's start.
fn judge_deliveries(webhook: &WebhookConfig, status: &Status) -> Option<Finding> {
    let (wrong, good) = signatures(status)?;
    if wrong == 0 {
        return None;
    }
    let hint = format!(
        "set the secret of {} in the hook's settings at GitHub, or correct the file and restart the daemon",
        webhook.secret_file.display()
    );
    let text = format!("{wrong} deliveries had a wrong signature");
    Some(if good == 0 {
        let text = format!("{text} and none a right one: GitHub has another secret than this host");
        Finding::problem(AREA, text, hint)
    } else {
        Finding::warning(AREA, format!("{text}, and {good} a right one"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::status::DeliveryOutcome::{self, Accepted, Ping, WrongSignature};
    use crate::status::DemandStatus;

    fn webhook() -> WebhookConfig {
        WebhookConfig {
            listen: "127.0.0.1:9818".parse().unwrap(),
            secret_file: "/etc/secret".into(),
            next_secret_file: None,
        }
    }

    #[test]
    fn a_refused_ping_is_a_problem_of_the_daemons_secret() {
        let ping = |status| {
            let text = "wrong signature\n".into();
            judge_ping(&webhook(), Ok(Answer { status, text }))
        };
        assert_eq!(ping(200).level, Level::Good);
        let refused = ping(401);
        assert_eq!(
            refused.text,
            "the listener at 127.0.0.1:9818 refuses the secret of /etc/secret with 401: wrong signature"
        );
        assert_eq!(
            judge_ping(&webhook(), Err(SendError::Silent)).level,
            Level::Problem
        );
    }

    #[test]
    fn only_wrong_signatures_mean_another_secret_at_github() {
        let level = |outcomes: &[(DeliveryOutcome, u64)]| {
            let mut demand = DemandStatus::default();
            let taken = demand.webhook.get_or_insert_default();
            taken.deliveries = outcomes.iter().copied().collect();
            let status = Status {
                demand: Some(demand),
                ..Status::default()
            };
            judge_deliveries(&webhook(), &status).map(|found| found.level)
        };
        assert_eq!(level(&[(Accepted, 4), (Ping, 1)]), None);
        assert_eq!(
            level(&[(WrongSignature, 4), (Ping, 1)]),
            Some(Level::Problem)
        );
        assert_eq!(
            level(&[(WrongSignature, 4), (Accepted, 1)]),
            Some(Level::Warning)
        );
    }
}
