//! What lies between the daemon's GitHub client and GitHub: requests and answers, limits, faults.
//! The client is the real one; this is its network.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use runner_controller::github::OctoBody;
use runner_controller::pool::RunnerName;
use tokio::sync::oneshot;
use tower::Service;

use crate::books::Call;
use crate::clock;
use crate::github::Row;
use crate::limits::Manner;
use crate::mutation::Mutation;
use crate::rule::Rule;
use crate::world::{Inner, World};

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 502, and nothing was done.
    Refused,
    /// 502 after it was done.
    DoneAndRefused,
    /// Never answered, and nothing was done.
    Lost,
    /// Done, and never answered.
    DoneAndLost,
    /// The connection breaks.
    Broken,
    /// 401.
    Unauthorized,
    /// 403 for want of a permission.
    Forbidden,
    /// 404 for everything.
    NotFound,
    /// Done, and the answer has other types than are documented.
    Misshapen,
    /// Done, and the answer breaks off.
    CutOff,
    /// A list without some of its rows: a page that was made while another row went away.
    Skipping,
    /// 409, although the name is new.
    NameTaken,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Refused,
        Self::DoneAndRefused,
        Self::Lost,
        Self::DoneAndLost,
        Self::Broken,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Misshapen,
        Self::CutOff,
        Self::Skipping,
        Self::NameTaken,
    ];
}

/// How GitHub answers for now.
#[derive(Debug, Clone, Default)]
pub struct Mood {
    /// This goes wrong, so many times in a thousand.
    pub fault: Option<(Fault, u64)>,
    /// Limited until then.
    pub limited: Option<(u64, Manner)>,
    /// How slow it is, in milliseconds for most answers.
    pub slow: u64,
}

/// An answer on its way.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

enum Outcome {
    Answer(Answer),
    Broken,
    Never,
}

/// The network of one daemon.
#[derive(Clone)]
pub struct Wire {
    /// The world.
    pub world: World,
    /// Which daemon's.
    pub incarnation: u64,
}

impl Service<Request<OctoBody>> for Wire {
    type Response = Response<Full<Bytes>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<OctoBody>) -> Self::Future {
        Box::pin(self.clone().exchange(request))
    }
}

impl Wire {
    async fn exchange(
        self,
        request: Request<OctoBody>,
    ) -> Result<Response<Full<Bytes>>, io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let later = query.split('&').any(|part| part.starts_with("page="));
        let asked = Asked {
            call: match parts.method {
                Method::POST => Call::Mint,
                Method::DELETE => Call::Delete,
                _ if later => Call::Page,
                _ => Call::List,
            },
            path: parts.uri.path().to_owned(),
            page: query
                .split('&')
                .find_map(|part| part.strip_prefix("page=")?.parse().ok())
                .unwrap_or(1),
            etag: parts
                .headers
                .get("if-none-match")
                .and_then(|tag| tag.to_str().ok())
                .map(str::to_owned),
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        let at = {
            let mut w = self.world.lock();
            w.leaves(&asked);
            let slow = w.github.mood.slow;
            w.now() + w.rng.wait(5, 60 + slow, 3_000 + 4 * slow)
        };
        let incarnation = self.incarnation;
        let outcome = self
            .world
            .call(at, move |w, answer| w.arrives(asked, incarnation, answer))
            .await;
        match outcome {
            Some(Outcome::Answer(answer)) => {
                let mut response = Response::builder().status(answer.status);
                for (name, value) in answer.headers {
                    response = response.header(name, value);
                }
                response
                    .body(Full::new(answer.body.into()))
                    .map_err(io::Error::other)
            }
            Some(Outcome::Broken) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(Outcome::Never) | None => std::future::pending().await,
        }
    }
}

struct Asked {
    call: Call,
    path: String,
    page: usize,
    etag: Option<String>,
    body: String,
}

fn error(status: u16, message: &str) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: serde_json::json!({ "message": message }).to_string(),
    }
}

impl Inner {
    fn arrives(&mut self, asked: Asked, incarnation: u64, answer: oneshot::Sender<Outcome>) {
        let counted = self.count_call(asked.call);
        let fault = self.github.mood.fault;
        let fault = fault.filter(|(_, rate)| self.rng.below(1000) < *rate);
        let fault = fault.map(|(fault, _)| fault).or_else(|| {
            let unlucky = self.rng.chance(8);
            unlucky
                .then(|| self.rng.pick(&Fault::ALL).copied())
                .flatten()
        });
        let outcome = if let Some((until, manner)) = counted.refused {
            if self.breaks(Mutation::DeafToLimits) {
                Outcome::Answer(error(500, "Server Error"))
            } else {
                Outcome::Answer(self.refusal(until, manner))
            }
        } else if self.breaks(Mutation::NeverGivesBack) && asked.call == Call::Delete {
            Outcome::Answer(error(404, "Not Found"))
        } else {
            self.with_fault(&asked, fault)
        };
        self.note(|| {
            let told = match &outcome {
                Outcome::Answer(answer) => answer.status.to_string(),
                Outcome::Broken => "broken".to_owned(),
                Outcome::Never => "never answered".to_owned(),
            };
            format!("GitHub: {:?} {} {told}", asked.call, asked.path)
        });
        let Outcome::Answer(mut told) = outcome else {
            let wait = self.rng.between(5, 200);
            self.answer(wait, answer, outcome);
            return;
        };
        let date = UNIX_EPOCH + Duration::from_millis(clock::true_unix_ms());
        told.headers.push(("date", httpdate::fmt_http_date(date)));
        if !self.breaks(Mutation::DeafToLimits) {
            told.headers.extend(counted.headers);
        }
        let slow = self.github.mood.slow;
        let wait = self.rng.wait(5, 80 + slow, 3_000 + 4 * slow);
        let (refused, empty) = (counted.refused, counted.empty_until);
        self.after(wait, move |w| {
            if w.runs(incarnation) && !answer.is_closed() {
                w.limit_told(refused.map(|(until, _)| until), counted.resource, empty);
            }
            let _ = answer.send(Outcome::Answer(told));
        });
    }

    fn refusal(&mut self, until: u64, manner: Manner) -> Answer {
        let status = if self.rng.chance(500) { 403 } else { 429 };
        match manner {
            Manner::RetryAfter => {
                let mut answer = error(status, "You have exceeded a secondary rate limit");
                let seconds = until.saturating_sub(self.now()) / 1000;
                answer.headers.push(("retry-after", seconds.to_string()));
                answer
            }
            Manner::NoTime => error(status, "You have exceeded a secondary rate limit"),
            Manner::Primary => error(status, "API rate limit exceeded for user ID 1"),
        }
    }

    fn with_fault(&mut self, asked: &Asked, fault: Option<Fault>) -> Outcome {
        let refused = |status, message| Outcome::Answer(error(status, message));
        match fault {
            Some(Fault::Refused) => refused(502, "Server Error"),
            Some(Fault::DoneAndRefused) => {
                self.carry_out(asked, false);
                refused(502, "Server Error")
            }
            Some(Fault::Lost) => Outcome::Never,
            Some(Fault::DoneAndLost) => {
                self.carry_out(asked, false);
                Outcome::Never
            }
            Some(Fault::Broken) => Outcome::Broken,
            Some(Fault::Unauthorized) => refused(401, "Bad credentials"),
            Some(Fault::Forbidden) => refused(403, "Resource not accessible by integration"),
            // To a deletion it would say that the runner is gone.
            Some(Fault::NotFound) if asked.call != Call::Delete => refused(404, "Not Found"),
            Some(Fault::NameTaken) if asked.call == Call::Mint => refused(409, "Already exists"),
            Some(Fault::Misshapen) if asked.call != Call::Delete => {
                self.carry_out(asked, false);
                Outcome::Answer(Answer {
                    status: if asked.call == Call::Mint { 201 } else { 200 },
                    headers: Vec::new(),
                    body: r#"{"runner":{"id":"x"},"runners":{}}"#.to_owned(),
                })
            }
            Some(Fault::CutOff) if asked.call != Call::Delete => {
                let mut answer = self.carry_out(asked, false);
                answer.headers.retain(|(name, _)| *name != "etag");
                answer.body.truncate(answer.body.len() / 2);
                if answer.status == 304 {
                    answer = error(502, "Server Error");
                }
                Outcome::Answer(answer)
            }
            Some(Fault::Skipping) => Outcome::Answer(self.carry_out(asked, true)),
            Some(Fault::NotFound | Fault::NameTaken | Fault::Misshapen | Fault::CutOff) | None => {
                Outcome::Answer(self.carry_out(asked, false))
            }
        }
    }

    fn carry_out(&mut self, asked: &Asked, skipping: bool) -> Answer {
        match asked.call {
            Call::Mint => self.mint(&asked.body),
            Call::List | Call::Page => self.list(asked, skipping),
            Call::Delete => {
                let id = asked.path.rsplit('/').next().and_then(|id| id.parse().ok());
                self.delete(id.unwrap_or_default())
            }
        }
    }

    /// A call leaves; and some that a worse daemon would send with it.
    fn leaves(&mut self, asked: &Asked) {
        let more = match asked.call {
            Call::Mint if self.breaks(Mutation::MintStorm) => 30,
            Call::Delete if self.breaks(Mutation::DeletesInBursts) => 30,
            Call::List if self.breaks(Mutation::Hasty) => 30,
            Call::Mint | Call::Delete | Call::List | Call::Page => 0,
        };
        for _ in 0..=more {
            self.sent(asked.call);
        }
    }

    fn mint(&mut self, body: &str) -> Answer {
        if self.breaks(Mutation::BlindRetry) {
            self.mint_once(body);
        }
        if self.breaks(Mutation::MintsForNobody) {
            self.mint_for_nobody();
        }
        self.mint_once(body)
    }

    fn mint_for_nobody(&mut self) {
        for _ in 0..60 {
            let name = format!("sim-ci-1-{:08x}", self.rng.below(1 << 32));
            let ours = RunnerName::parse(&self.books.config.host, &name);
            let _ = self.register(&name, "ci", ours);
        }
    }

    fn mint_once(&mut self, body: &str) -> Answer {
        let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let name = body["name"].as_str().unwrap_or_default().to_owned();
        let pool = body["labels"][0].as_str().unwrap_or_default().to_owned();
        let ours = RunnerName::parse(&self.books.config.host, &name);
        let Some(id) = self.register(&name, &pool, ours) else {
            self.violate(Rule::NamesUsedOnce, &name);
            return error(
                409,
                "Already exists - A runner with this name already exists",
            );
        };
        let runner = serde_json::json!({ "AgentId": id.to_string(), "AgentName": name });
        let files = serde_json::json!({ ".runner": BASE64_STANDARD.encode(runner.to_string()) });
        let config = BASE64_STANDARD.encode(files.to_string());
        self.books.configs.insert(config.clone(), id);
        let made = serde_json::json!({
            "runner": { "id": id, "name": name, "os": "unknown", "status": "offline", "busy": false },
            "encoded_jit_config": config,
        });
        Answer {
            status: 201,
            headers: Vec::new(),
            body: made.to_string(),
        }
    }

    fn list(&mut self, asked: &Asked, skipping: bool) -> Answer {
        let mut rows = self.github.rows(self.now());
        if self.breaks(Mutation::TakesForeign) {
            for row in &mut rows {
                row.name = row.name.replace("sim-a-", "sim-");
            }
        }
        if skipping && !rows.is_empty() {
            let gone = self.rng.below(rows.len() as u64);
            rows.remove(usize::try_from(gone).unwrap_or_default());
        }
        let size = self.github.page.max(1);
        let first = (asked.page - 1) * size;
        let more = rows.len() > first + size;
        let page: Vec<serde_json::Value> = rows.iter().skip(first).take(size).map(shown).collect();
        let body = serde_json::json!({ "total_count": rows.len(), "runners": page }).to_string();
        let etag = format!("\"{:016x}\"", digest(&body));
        let mut headers = vec![("etag", etag.clone())];
        if more {
            let next = asked.page + 1;
            let host = "https://api.github.com";
            let next = format!(
                "<{host}{}?per_page=100&page={next}>; rel=\"next\"",
                asked.path
            );
            headers.push(("link", next));
        }
        let unchanged = asked.etag.as_ref() == Some(&etag);
        let now = self.now();
        if unchanged {
            // Free of charge.
            self.github.windows.refund("core", now);
        }
        Answer {
            status: if unchanged { 304 } else { 200 },
            headers,
            body: if unchanged { String::new() } else { body },
        }
    }

    fn delete(&mut self, id: u64) -> Answer {
        let Some(runner) = self.github.runners.get(&id) else {
            return error(404, "Not Found");
        };
        if runner.ours.is_none() {
            let name = runner.name.clone();
            self.violate(Rule::ForeignLeftAlone, &name);
        } else if runner.busy.is_some() {
            if self.rng.chance(100) && !self.breaks(Mutation::BusyIsIdle) {
                return error(500, "Runner is still running a job");
            }
            if self.breaks(Mutation::BusyIsIdle) {
                return error(404, "Not Found");
            }
            let why = "Runner is currently running a job and cannot be deleted";
            return error(422, why);
        }
        self.unregister(id, true);
        Answer {
            status: 204,
            headers: Vec::new(),
            body: String::new(),
        }
    }
}

fn shown(row: &Row) -> serde_json::Value {
    serde_json::json!({
        "id": row.id, "name": row.name, "os": "linux", "busy": row.busy,
        "status": if row.online { "online" } else { "offline" }, "labels": [],
    })
}

/// FNV-1a: a tag that differs when the text does.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
