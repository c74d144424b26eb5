//! The calls of the scale-set service.

use serde_json::{Value, json};

use super::scale_sets::ScaleSet;
use super::{GitHub, Schedule};
use crate::api::{ApiAnswer, ApiRequest, Endpoint};
use crate::event::SimEvent;
use crate::fault::AnswerFailure;

/// Address of the service for a scope, without the scope.
const SERVICE: &str = "https://service.example/repos";
/// Address of the queues for a scope, without the scope.
const QUEUES: &str = "https://queues.example/repos";
/// Token for registrations.
const REGISTRATION: &str = "registration";

impl GitHub {
    /// Returns the answer with a token for registrations.
    pub(super) fn registration_token() -> ApiAnswer {
        let token = json!({ "token": REGISTRATION, "expires_at": "2030-01-01T00:00:00Z" });
        ApiAnswer::new(201, token.to_string())
    }

    /// Answers a call of the service; `None` for a poll that waits.
    pub(super) fn serve(
        &mut self,
        call: u64,
        request: &ApiRequest,
        failure: Option<AnswerFailure>,
        schedule: &mut Schedule<'_>,
    ) -> Option<ApiAnswer> {
        let is_poll = request.endpoint == Endpoint::SetPoll;
        Some(match failure {
            Some(AnswerFailure::NotDone) => ApiAnswer::exception(503, "ServiceUnavailable"),
            Some(AnswerFailure::DoneAndFailed) => {
                if !is_poll {
                    self.carry_out_call(request, schedule);
                }
                ApiAnswer::exception(500, "ServerError")
            }
            Some(AnswerFailure::Unauthorized) => {
                ApiAnswer::exception(401, "UnauthorizedRequestException")
            }
            Some(AnswerFailure::Forbidden) => ApiAnswer::exception(403, "AccessDeniedException"),
            Some(AnswerFailure::NotFound) => ApiAnswer::new(404, "404 page not found".to_owned()),
            Some(AnswerFailure::WrongTypes)
                if matches!(
                    request.endpoint,
                    Endpoint::SetMint | Endpoint::SessionOpen | Endpoint::SetFind
                ) =>
            {
                let answer = self.carry_out_call(request, schedule);
                misshapen(request.endpoint, answer)
            }
            Some(
                AnswerFailure::NameTaken | AnswerFailure::WrongTypes | AnswerFailure::RowSkipped,
            )
            | None
                if is_poll =>
            {
                return self.begin_poll(call, request, schedule);
            }
            Some(
                AnswerFailure::NameTaken | AnswerFailure::WrongTypes | AnswerFailure::RowSkipped,
            )
            | None => self.carry_out_call(request, schedule),
        })
    }

    fn begin_poll(
        &mut self,
        call: u64,
        request: &ApiRequest,
        schedule: &mut Schedule<'_>,
    ) -> Option<ApiAnswer> {
        let set = match self.set_of_token(request, schedule.now()) {
            Ok(set) => set,
            Err(refusal) => return Some(refusal),
        };
        let after = request.parameter("lastMessageId");
        let after = after.and_then(|id| id.parse().ok()).unwrap_or(0);
        let capacity = request.capacity.unwrap_or(0);
        self.poll(set, (call, after), capacity, schedule);
        None
    }

    /// Returns the set whose queue the token of the request opens.
    fn set_of_token(&mut self, request: &ApiRequest, now: u64) -> Result<u64, ApiAnswer> {
        let refused = || ApiAnswer::exception(401, "UnauthorizedRequestException");
        let set = self.sets.of_token(&request.token).ok_or_else(refused)?;
        let session = self.sets.session(set).ok_or_else(refused)?;
        if now < session.token_until {
            Ok(set)
        } else {
            Err(refused())
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "other calls are answered elsewhere"
    )]
    fn carry_out_call(&mut self, request: &ApiRequest, schedule: &mut Schedule<'_>) -> ApiAnswer {
        let now = schedule.now();
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        match request.endpoint {
            Endpoint::SetAccess => return self.access(request, &body, now),
            Endpoint::SetAcknowledge => return self.acknowledge(request, schedule),
            _ => {}
        }
        let until = self.sets.accesses.get(&request.token);
        if until.is_none_or(|until| *until <= now) {
            return ApiAnswer::exception(401, "UnauthorizedRequestException");
        }
        match request.endpoint {
            Endpoint::SetFind => self.find_set(request.parameter("name").unwrap_or_default()),
            Endpoint::SetCreate => self.create_set(&body),
            _ => match request
                .set()
                .filter(|set| self.sets.by_id.contains_key(set))
            {
                Some(set) => self.call_of_set(set, request, &body, schedule),
                None => ApiAnswer::exception(404, "RunnerScaleSetNotFoundException"),
            },
        }
    }

    fn access(&mut self, request: &ApiRequest, body: &Value, now: u64) -> ApiAnswer {
        if request.token != REGISTRATION {
            return ApiAnswer::exception(401, "UnauthorizedRequestException");
        }
        let url = body["url"].as_str().unwrap_or_default();
        let scope = url.trim_start_matches("https://github.com/");
        let token = self.sets.secret("access");
        let until = now + self.sets.access_life_ms;
        self.sets.accesses.retain(|_, until| now < *until);
        self.sets.accesses.insert(token.clone(), until);
        let access = json!({ "url": format!("{SERVICE}/{scope}/"), "token": token });
        ApiAnswer::new(200, access.to_string())
    }

    fn find_set(&self, name: &str) -> ApiAnswer {
        let sets = self.sets.by_id.iter().filter(|(_, set)| set.name == name);
        let sets: Vec<Value> = sets.map(|(id, set)| row(*id, set)).collect();
        let found = json!({ "count": sets.len(), "value": sets });
        ApiAnswer::new(200, found.to_string())
    }

    fn create_set(&mut self, body: &Value) -> ApiAnswer {
        let name = body["name"].as_str().unwrap_or_default();
        let label = body["labels"][0]["name"].as_str().unwrap_or_default();
        if self.sets.by_id.values().any(|set| set.name == name) {
            return ApiAnswer::exception(400, "RunnerScaleSetExistsException");
        }
        self.sets.last_set += 1;
        let id = self.sets.last_set;
        let set = ScaleSet::new(name, label);
        let made = row(id, &set).to_string();
        self.sets.by_id.insert(id, set);
        ApiAnswer::new(200, made)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "other calls are answered elsewhere"
    )]
    fn call_of_set(
        &mut self,
        set: u64,
        request: &ApiRequest,
        body: &Value,
        schedule: &mut Schedule<'_>,
    ) -> ApiAnswer {
        match request.endpoint {
            Endpoint::SetDelete => self.delete_set(set, schedule),
            Endpoint::SetMint => self.mint_in_set(set, request, body, schedule),
            Endpoint::SessionOpen => self.open_session(set, request, schedule.now()),
            _ => {
                let session = self.sets.session(set).map(|session| session.id.as_str());
                if session != Some(request.last_part()) {
                    return ApiAnswer::exception(404, "RunnerAdminException");
                }
                if request.endpoint == Endpoint::SessionRefresh {
                    self.sets.renew(set, schedule.now());
                    self.session_answer(set, request)
                } else {
                    let refusal = ApiAnswer::exception(401, "UnauthorizedRequestException");
                    self.end_session(set, refusal, schedule);
                    ApiAnswer::new(204, String::new())
                }
            }
        }
    }

    fn delete_set(&mut self, set: u64, schedule: &mut Schedule<'_>) -> ApiAnswer {
        if let Some(deleted) = self.sets.by_id.remove(&set) {
            let name = deleted.name;
            schedule.emit(SimEvent::SetDeleted { name });
        }
        self.release_jobs_of(set, schedule);
        ApiAnswer::new(204, String::new())
    }

    fn open_session(&mut self, set: u64, request: &ApiRequest, now: u64) -> ApiAnswer {
        let is_occupied = |set: &ScaleSet| set.is_occupied(now);
        if self.sets.by_id.get(&set).is_some_and(is_occupied) {
            return ApiAnswer::exception(409, "RunnerScaleSetSessionConflictException");
        }
        self.sets.open(set, now);
        self.session_answer(set, request)
    }

    fn session_answer(&mut self, set: u64, request: &ApiRequest) -> ApiAnswer {
        let load = self.load(set);
        let Some(session) = self.sets.session(set) else {
            return ApiAnswer::exception(404, "RunnerAdminException");
        };
        let opened = json!({
            "sessionId": session.id,
            "messageQueueUrl": format!("{QUEUES}/{}/scalesets/message", request.scope()),
            "messageQueueAccessToken": session.token,
            "statistics": { "totalAssignedJobs": load },
        });
        ApiAnswer::new(200, opened.to_string())
    }

    fn mint_in_set(
        &mut self,
        set: u64,
        request: &ApiRequest,
        body: &Value,
        schedule: &mut Schedule<'_>,
    ) -> ApiAnswer {
        let name = body["name"].as_str().unwrap_or_default();
        let label = self.sets.by_id.get(&set).map(|set| set.label.clone());
        schedule.emit(SimEvent::MintReceived {
            name: name.to_owned(),
        });
        let label = label.unwrap_or_default();
        let Some((id, config)) = self.register(&request.scope(), name, &label, schedule) else {
            return ApiAnswer::exception(409, "AgentExistsException");
        };
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.set = Some(set);
        }
        let made = json!({ "runner": { "id": id.0, "name": name }, "encodedJITConfig": config });
        ApiAnswer::new(200, made.to_string())
    }

    fn acknowledge(&mut self, request: &ApiRequest, schedule: &mut Schedule<'_>) -> ApiAnswer {
        let set = match self.set_of_token(request, schedule.now()) {
            Ok(set) => set,
            Err(refusal) => return refusal,
        };
        let (id, now) = (request.last_part().parse().unwrap_or(0), schedule.now());
        let set = self.sets.by_id.get_mut(&set);
        let Some(told) = set.and_then(|set| set.delete(id, now)) else {
            return ApiAnswer::exception(404, "MessageNotFoundException");
        };
        schedule.emit(SimEvent::MessageDeleted { told });
        ApiAnswer::new(204, String::new())
    }
}

fn row(id: u64, set: &ScaleSet) -> Value {
    json!({
        "id": id, "name": set.name, "runnerGroupId": 1,
        "labels": [{ "type": "System", "name": set.label }],
    })
}

/// Returns the answer to a call that was carried out, with other types than expected, or without an address.
fn misshapen(endpoint: Endpoint, answer: ApiAnswer) -> ApiAnswer {
    let mut body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        return answer;
    }
    if endpoint == Endpoint::SessionOpen {
        body["messageQueueUrl"] = "".into();
    } else {
        body = json!({ "value": {}, "runner": { "id": "x" } });
    }
    ApiAnswer::new(200, body.to_string())
}
