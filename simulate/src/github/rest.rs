//! The REST API: requests, answers, and their failures.

use std::time::{Duration, UNIX_EPOCH};

use runner_controller::pool::{ListedRunner, RunnerId};
use serde_json::{Value, json};

use super::{GitHub, Schedule};
use crate::api::{ApiAnswer, ApiRequest, Endpoint};
use crate::clock;
use crate::event::SimEvent;
use crate::fault::{AnswerFailure, LimitNotice};

/// Calls in a thousand that fail by themselves.
const FAILURE_RATE: u64 = 5;

impl GitHub {
    /// A call arrives. Its answer leaves at once.
    pub(crate) fn call_arrived(
        &mut self,
        call: u64,
        request: &ApiRequest,
        schedule: &mut Schedule<'_>,
    ) {
        let (endpoint, now) = (request.endpoint, schedule.now());
        if endpoint.is_of_service() {
            let failure = self.draw_failure();
            if let Some(answer) = self.serve(call, request, failure, schedule) {
                schedule.emit(SimEvent::Answered {
                    call,
                    endpoint,
                    answer,
                });
            }
            return;
        }
        let counted = self.limits.count(endpoint, self.faults.limited, now);
        let failure = self.draw_failure();
        let mut answer = match (counted.refused, counted.announced.refused_until) {
            (Some(notice), Some(until)) => self.refusal(notice, until.saturating_sub(now)),
            _ => self.answer(request, failure, schedule),
        };
        let date = UNIX_EPOCH + Duration::from_millis(clock::true_unix_ms());
        (answer.headers).push(("date", httpdate::fmt_http_date(date)));
        answer.headers.extend(counted.headers);
        answer.limits = counted.announced;
        schedule.emit(SimEvent::Answered {
            call,
            endpoint,
            answer,
        });
    }

    fn draw_failure(&mut self) -> Option<AnswerFailure> {
        if let Some((failure, rate)) = self.faults.failure
            && self.random.chance(rate)
        {
            return Some(failure);
        }
        let fails = self.random.chance(FAILURE_RATE);
        let failure = self.random.pick(&AnswerFailure::ALL).copied();
        failure.filter(|_| fails)
    }

    fn refusal(&mut self, notice: LimitNotice, wait_ms: u64) -> ApiAnswer {
        let status = if self.random.chance(500) { 403 } else { 429 };
        match notice {
            LimitNotice::RetryAfter => {
                let mut answer =
                    ApiAnswer::error(status, "You have exceeded a secondary rate limit");
                let seconds = wait_ms / 1000;
                answer.headers.push(("retry-after", seconds.to_string()));
                answer
            }
            LimitNotice::NoTime => {
                ApiAnswer::error(status, "You have exceeded a secondary rate limit")
            }
            LimitNotice::Primary => {
                ApiAnswer::error(status, "API rate limit exceeded for user ID 1")
            }
        }
    }

    fn answer(
        &mut self,
        request: &ApiRequest,
        failure: Option<AnswerFailure>,
        schedule: &mut Schedule<'_>,
    ) -> ApiAnswer {
        let endpoint = request.endpoint;
        match failure {
            Some(AnswerFailure::NotDone) => ApiAnswer::error(502, "Server Error"),
            Some(AnswerFailure::DoneAndFailed) => {
                self.carry_out(request, false, schedule);
                ApiAnswer::error(502, "Server Error")
            }
            Some(AnswerFailure::Unauthorized) => ApiAnswer::error(401, "Bad credentials"),
            Some(AnswerFailure::Forbidden) => {
                ApiAnswer::error(403, "Resource not accessible by integration")
            }
            // As the answer to a deletion or a question for one runner it would mean that the runner is gone.
            Some(AnswerFailure::NotFound)
                if !matches!(endpoint, Endpoint::Delete | Endpoint::Find) =>
            {
                ApiAnswer::error(404, "Not Found")
            }
            Some(AnswerFailure::NameTaken) if endpoint == Endpoint::Mint => {
                ApiAnswer::error(409, "Already exists")
            }
            Some(AnswerFailure::WrongTypes) if endpoint != Endpoint::Delete => {
                self.carry_out(request, false, schedule);
                let status = if endpoint == Endpoint::Mint { 201 } else { 200 };
                ApiAnswer::new(status, r#"{"runner":{"id":"x"},"runners":{}}"#.to_owned())
            }
            Some(AnswerFailure::RowSkipped) => self.carry_out(request, true, schedule),
            Some(
                AnswerFailure::NotFound | AnswerFailure::NameTaken | AnswerFailure::WrongTypes,
            )
            | None => self.carry_out(request, false, schedule),
        }
    }

    fn carry_out(
        &mut self,
        request: &ApiRequest,
        skips_row: bool,
        schedule: &mut Schedule<'_>,
    ) -> ApiAnswer {
        match request.endpoint {
            Endpoint::Mint => self.mint(&request.scope(), &request.body, schedule),
            Endpoint::RegistrationToken => Self::registration_token(),
            Endpoint::Find => self.find_one(request, schedule.now()),
            Endpoint::List | Endpoint::Page => self.list(request, skips_row, schedule.now()),
            Endpoint::Delete => match request.deleted_runner() {
                Some(id) => self.delete(id, &request.scope(), schedule),
                None => ApiAnswer::error(404, "Not Found"),
            },
            // The service answers these.
            Endpoint::SetAccess
            | Endpoint::SetFind
            | Endpoint::SetCreate
            | Endpoint::SetDelete
            | Endpoint::SetMint
            | Endpoint::SessionOpen
            | Endpoint::SessionRefresh
            | Endpoint::SessionClose
            | Endpoint::SetPoll
            | Endpoint::SetAcknowledge => ApiAnswer::error(404, "Not Found"),
        }
    }

    fn mint(&mut self, scope: &str, body: &str, schedule: &mut Schedule<'_>) -> ApiAnswer {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let name = body["name"].as_str().unwrap_or_default();
        let label = body["labels"][0].as_str().unwrap_or_default();
        schedule.emit(SimEvent::MintReceived {
            name: name.to_owned(),
        });
        let Some((id, config)) = self.register(scope, name, label, schedule) else {
            let taken = "Already exists - A runner with this name already exists";
            return ApiAnswer::error(409, taken);
        };
        let made = json!({
            "runner": { "id": id.0, "name": name, "os": "unknown", "status": "offline", "busy": false },
            "encoded_jit_config": config,
        });
        ApiAnswer::new(201, made.to_string())
    }

    fn list(&mut self, request: &ApiRequest, skips_row: bool, now: u64) -> ApiAnswer {
        let mut rows = self.rows(&request.scope(), now);
        if skips_row && !rows.is_empty() {
            let skipped = self.random.below(rows.len() as u64);
            rows.remove(usize::try_from(skipped).unwrap_or_default());
        }
        let size = self.page_size.max(1);
        let first = request.page.saturating_sub(1) * size;
        let page: Vec<Value> = rows.iter().skip(first).take(size).map(row).collect();
        let body = json!({ "total_count": rows.len(), "runners": page }).to_string();
        let etag = format!("\"{:016x}\"", digest(&body));
        let unchanged = request.etag.as_ref() == Some(&etag);
        let mut answer = if unchanged {
            self.limits.refund(request.endpoint, now);
            ApiAnswer::new(304, String::new())
        } else {
            ApiAnswer::new(200, body)
        };
        answer.headers.push(("etag", etag));
        if rows.len() > first + size {
            let path = &request.path;
            let next = request.page + 1;
            let link =
                format!("<https://api.github.com{path}?per_page=100&page={next}>; rel=\"next\"");
            answer.headers.push(("link", link));
        }
        answer
    }

    fn find_one(&self, request: &ApiRequest, now: u64) -> ApiAnswer {
        let id = request.runner();
        match id.and_then(|id| self.find(id, &request.scope(), now)) {
            Some(found) => ApiAnswer::new(200, row(&found).to_string()),
            None => ApiAnswer::error(404, "Not Found"),
        }
    }

    fn delete(&mut self, id: RunnerId, scope: &str, schedule: &mut Schedule<'_>) -> ApiAnswer {
        let Some(runner) = self.runners.get(&id) else {
            return ApiAnswer::error(404, "Not Found");
        };
        if runner.scope != scope {
            let name = format!("stranger-{id}");
            schedule.emit(SimEvent::DeleteReceived { runner: id, name });
            return ApiAnswer::new(204, String::new());
        }
        if self.faults.deletes_fail {
            return ApiAnswer::error(500, "Server Error");
        }
        let name = runner.name.clone();
        let busy = runner.job.is_some();
        schedule.emit(SimEvent::DeleteReceived { runner: id, name });
        if busy && self.random.chance(100) {
            return ApiAnswer::error(500, "Runner is still running a job");
        }
        if busy {
            let why = "Runner is currently running a job and cannot be deleted";
            return ApiAnswer::error(422, why);
        }
        self.deregister(id, true, schedule);
        ApiAnswer::new(204, String::new())
    }
}

/// Returns a row of the list in GitHub's form.
fn row(runner: &ListedRunner) -> Value {
    json!({
        "id": runner.id.0, "name": runner.name, "os": "linux", "busy": runner.busy,
        "status": if runner.online { "online" } else { "offline" }, "labels": [],
    })
}

/// Returns FNV-1a of a text, for a tag that differs when the text does.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
