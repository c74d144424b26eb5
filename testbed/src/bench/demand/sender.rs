//! A sender of signed deliveries, in GitHub's place: each over its own connection from the test host's internet.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::hook::{PORT, SECRET};
use crate::host::TestHost;
use crate::net::{INTERNET, UPLINK};

/// Number of threads that send in turns, so that a late answer delays no other delivery.
const SENDERS: usize = 8;
/// Time after which GitHub gives a delivery up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Number of jobs between the queue and the start of a job, and between its start and its end.
const JOBS_BETWEEN: u64 = 500;
/// Id of the first job. The stand-in has none of them.
const FIRST_JOB: u64 = 9_000_000_000;
/// Payloads of GitHub's own description (octokit/webhooks).
const EXAMPLES: &str = include_str!("../../../../github-sim/tests/webhooks/examples.json");

/// Answer to a delivery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answer {
    pub(super) millis: f64,
    /// HTTP status; 0 without an answer.
    pub(super) code: u16,
}

/// The deliveries of a row of jobs: each job is queued, starts and ends.
pub(super) struct Deliveries {
    /// Examples of `queued`, `in_progress` and `completed`.
    examples: [Value; 3],
    api_url: String,
}

const ACTIONS: [&str; 3] = ["queued", "in_progress", "completed"];

impl Deliveries {
    pub(super) fn new(api_url: &str) -> Result<Self> {
        let all: Value = serde_json::from_str(EXAMPLES)?;
        let all = all["workflow_job"].as_array().context("no examples")?;
        let example = |action: &str| {
            let is = |value: &&Value| {
                value["action"] == action && value["workflow_job"]["status"] == action
            };
            let found = all.iter().find(is);
            found.with_context(|| format!("no example of {action}"))
        };
        let [queued, started, ended] = ACTIONS.map(example);
        Ok(Self {
            examples: [queued?.clone(), started?.clone(), ended?.clone()],
            api_url: api_url.to_owned(),
        })
    }

    /// Returns a delivery as a request.
    fn request(&self, number: usize) -> Result<Vec<u8>> {
        let body = self.body(number)?.to_string();
        let signature = github_sim::signature(SECRET, &body).context("the secret signs nothing")?;
        Ok(format!(
            "POST /webhook HTTP/1.1\r\nHost: {UPLINK}:{PORT}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nUser-Agent: GitHub-Hookshot/6d4c2a0\r\n\
             X-GitHub-Delivery: 00000000-0000-4000-8000-{number:012x}\r\nX-GitHub-Event: workflow_job\r\n\
             X-Hub-Signature-256: {signature}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes())
    }

    /// Returns the payload of a delivery. Of each three, one tells the queue of a job, one the start of an earlier one,
    /// and one the end of a still earlier one.
    fn body(&self, number: usize) -> Result<Value> {
        let kind = number % ACTIONS.len();
        let later = u64::try_from(ACTIONS.len() - 1 - kind)?;
        let id = FIRST_JOB + u64::try_from(number / ACTIONS.len())? + later * JOBS_BETWEEN;
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let mut body = self.examples[kind].clone();
        let job = &mut body["workflow_job"];
        job["id"] = id.into();
        job["run_id"] = id.into();
        // No pool has it, so nothing starts.
        job["labels"] = json!(["self-hosted", "gpu"]);
        for key in ["created_at", "started_at"] {
            job[key] = now.as_str().into();
        }
        if !job["completed_at"].is_null() {
            job["completed_at"] = now.as_str().into();
        }
        let repository = &mut body["repository"];
        repository["full_name"] = "acme/widgets".into();
        repository["url"] = format!("{}/repos/acme/widgets", self.api_url).into();
        Ok(body)
    }
}

/// Sends deliveries, each at its time. Returns the answers, and the time from the first one until the last answer.
pub(super) fn send_all(
    host: &TestHost,
    deliveries: &Deliveries,
    count: usize,
    interval: Duration,
) -> Result<(Vec<Answer>, Duration)> {
    let namespace = host.path(&format!("/run/netns/{INTERNET}"));
    let began = Instant::now();
    let row = |first: usize| -> Result<Vec<Answer>> {
        let namespace = File::open(&namespace).context("open the test host's internet")?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let mut answers = Vec::new();
        for number in (first..count).step_by(SENDERS) {
            let request = deliveries.request(number)?;
            let due = interval * u32::try_from(number)?;
            // The pace is the measured load, so this waits for time to pass.
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let start = Instant::now();
            let code = send(&request).unwrap_or_default();
            let millis = start.elapsed().as_secs_f64() * 1000.0;
            answers.push(Answer { millis, code });
        }
        Ok(answers)
    };
    // The changed namespaces end with the threads.
    let rows = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SENDERS)
            .map(|first| scope.spawn(move || row(first)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<Answer>>>| {
            thread.join().map_err(|_| anyhow!("a sender panicked"))?
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    Ok((rows.concat(), began.elapsed()))
}

/// Sends a request, and returns the status of the answer.
fn send(request: &[u8]) -> Result<u16> {
    let mut stream = TcpStream::connect((UPLINK, PORT))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    stream.write_all(request)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    status(&line).with_context(|| format!("the answer is not HTTP: {line:?}"))
}

/// Returns the status in the first line of an answer.
fn status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_queued_and_starts_and_ends() {
        let deliveries = Deliveries::new("http://198.51.100.7:8080").unwrap();
        let mut told: Vec<(u64, String)> = (0..6_000)
            .map(|number| {
                let body = deliveries.body(number).unwrap();
                let id = body["workflow_job"]["id"].as_u64().unwrap();
                (id, body["action"].as_str().unwrap().to_owned())
            })
            .collect();
        let id = FIRST_JOB + 2 * JOBS_BETWEEN;
        told.retain(|(told, _)| *told == id);
        let actions: Vec<&str> = told.iter().map(|(_, action)| action.as_str()).collect();
        assert_eq!(actions, ACTIONS);
    }

    #[test]
    fn a_request_is_signed_and_has_its_length() {
        let deliveries = Deliveries::new("http://198.51.100.7:8080").unwrap();
        let request = String::from_utf8(deliveries.request(7).unwrap()).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        let signature = github_sim::signature(SECRET, body).unwrap();
        assert!(head.ends_with(&signature), "{head}");
        assert!(body.len() > 7_000, "{} bytes", body.len());
    }

    #[test]
    fn the_status_is_in_the_first_line() {
        assert_eq!(status("HTTP/1.1 202 Accepted\r\n"), Some(202));
        assert_eq!(status(""), None);
        assert_eq!(status("SSH-2.0"), None);
    }
}
