//! The calls for scale sets, their sessions and their runners.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::admin::{self, Admin};
use super::messages::{Addressee, Message, Statistics};
use super::refused;
use super::wire::{self, Call, Reply};
use crate::config::GitHubConfig;
use crate::github::client::Client;
use crate::github::operation::Operation;
use crate::github::token::Token;
use crate::github::transport::Transport;
use crate::pool::{PoolName, ScopeId, SetTrouble};
use crate::world::{
    FoundSet, OpenSession, RegistryError, RegistryErrorKind, ScaleSets, SetError, SetMessage,
    WantedSet,
};

/// Version of the service's calls.
const VERSION: &str = "6.0-preview";
/// Form of the messages.
const MESSAGES: &str = "application/json; api-version=6.0-preview";
/// Header with the number of jobs that the set can have.
const CAPACITY: &str = "x-scalesetmaxcapacity";
/// Maximum time of a poll. GitHub holds polls for 50 to 90 s, and its own client waits for five minutes.
const POLL_TIMEOUT: Duration = Duration::from_mins(3);
/// Id of the runner group that every scope has.
const DEFAULT_GROUP: u64 = 1;
/// Id that stands for a session that does not exist yet.
const NO_SESSION: &str = "00000000-0000-0000-0000-000000000000";

/// The service of one scope.
pub struct ScaleSetService {
    admin: Admin,
    scope: ScopeId,
    /// Ids of the sets, by name and runner group.
    known: Mutex<BTreeMap<(String, String), u64>>,
}

/// A session of a set. Its token is a secret, and is never printed.
#[derive(Clone)]
pub struct Session {
    set: u64,
    id: String,
    queue: Url,
    token: Token,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} of set {})", self.id, self.set)
    }
}

#[derive(Deserialize)]
struct List<T> {
    value: Vec<T>,
}

#[derive(Deserialize)]
struct Group {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct Set {
    id: u64,
    name: String,
    #[serde(default)]
    labels: Vec<Label>,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opened {
    session_id: String,
    #[serde(default)]
    message_queue_url: String,
    #[serde(default)]
    message_queue_access_token: String,
    #[serde(default)]
    statistics: Option<Statistics>,
}

#[derive(Deserialize)]
pub(in crate::github) struct Registered {
    pub(in crate::github) runner: RegisteredRunner,
    #[serde(rename = "encodedJITConfig")]
    pub(in crate::github) config: String,
}

#[derive(Deserialize)]
pub(in crate::github) struct RegisteredRunner {
    pub(in crate::github) id: u64,
    pub(in crate::github) name: String,
}

/// A call with the token of the scope.
struct AdminCall<'c> {
    operation: Operation,
    method: Method,
    path: &'c [&'c str],
    query: &'c [(&'c str, &'c str)],
    body: Option<Value>,
}

impl ScaleSetService {
    pub(in crate::github) fn new(
        transport: Transport,
        config: &GitHubConfig,
        client: Arc<Client>,
    ) -> Self {
        Self {
            admin: Admin::new(transport, config, client),
            scope: config.scope_id(),
            known: Mutex::default(),
        }
    }

    /// Registers a runner of a set. It is sent once, except that a token which the service refused is replaced.
    pub(in crate::github) async fn mint(
        &self,
        wanted: &WantedSet,
        name: &str,
        work_folder: &str,
    ) -> Result<(Registered, StatusCode, HeaderMap), RegistryError> {
        let key = (wanted.name.clone(), wanted.runner_group.clone());
        let known = self.known().get(&key).copied();
        let set = match known {
            Some(set) => set,
            None => self.find(wanted).await.map_err(|error| *error.error)?.id,
        };
        let call = AdminCall {
            operation: Operation::Mint,
            method: Method::POST,
            path: &[
                "runtime",
                "runnerscalesets",
                &set.to_string(),
                "generatejitconfig",
            ],
            query: &[],
            body: Some(json!({"name": name, "workFolder": work_folder})),
        };
        let reply = self.call(call).await.map_err(|error| {
            if error.trouble == SetTrouble::SetLost {
                self.known().remove(&key);
            }
            *error.error
        })?;
        let registered = reply.read(&self.admin.client)?;
        Ok((registered, reply.status, reply.headers))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a call with the token of the scope. A token that the service refuses is replaced once, because the service
    /// did nothing then.
    async fn call(&self, call: AdminCall<'_>) -> Result<Reply, SetError> {
        let mut is_repeated = false;
        loop {
            let access = self.admin.access().await?;
            let reply = self.call_with(&access, &call).await?;
            if reply.status == StatusCode::UNAUTHORIZED && !is_repeated {
                self.admin.drop_access(&access.token).await;
                is_repeated = true;
                continue;
            }
            return self.success(reply);
        }
    }

    async fn call_with(
        &self,
        access: &admin::Access,
        call: &AdminCall<'_>,
    ) -> Result<Reply, SetError> {
        let url = self.url(access, call)?;
        let call = Call {
            operation: call.operation,
            method: call.method.clone(),
            url: &url,
            authorization: format!("Bearer {}", access.token.expose()),
            headers: HeaderMap::new(),
            body: call.body.clone(),
            timeout: self.admin.timeout,
        };
        self.send(call).await
    }

    fn url(&self, access: &admin::Access, call: &AdminCall<'_>) -> Result<Url, SetError> {
        let mut url = access.url.clone();
        let no_base = || {
            self.admin
                .invalid(call.operation, "the service has no base address")
        };
        (url.path_segments_mut().map_err(|()| no_base())?)
            .pop_if_empty()
            .push("_apis")
            .extend(call.path);
        url.query_pairs_mut()
            .extend_pairs(call.query)
            .append_pair("api-version", VERSION);
        Ok(url)
    }

    async fn send(&self, call: Call<'_>) -> Result<Reply, SetError> {
        let reply = wire::send(self.admin.transport(), &self.admin.client, call).await;
        reply.map_err(refused::failed)
    }

    fn success(&self, reply: Reply) -> Result<Reply, SetError> {
        if reply.status.is_success() {
            Ok(reply)
        } else {
            Err(refused::read(&self.admin.client, &reply))
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, reply: &Reply) -> Result<T, SetError> {
        reply.read(&self.admin.client).map_err(refused::failed)
    }

    /// Sends a call with the token of a session.
    async fn call_queue(
        &self,
        session: &Session,
        operation: Operation,
        method: Method,
        url: &Url,
        capacity: Option<u32>,
        body: Option<Value>,
    ) -> Result<Reply, SetError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MESSAGES));
        let mut timeout = self.admin.timeout;
        if let Some(capacity) = capacity {
            headers.insert(CAPACITY, capacity.into());
            timeout = POLL_TIMEOUT;
        }
        let call = Call {
            operation,
            method,
            url,
            authorization: format!("Bearer {}", session.token.expose()),
            headers,
            body,
            timeout,
        };
        self.send(call).await
    }

    /// Returns the failure of a call with the token of a session.
    fn queue_refused(&self, reply: &Reply) -> SetError {
        let error = refused::read(&self.admin.client, reply);
        let trouble = match reply.status {
            StatusCode::UNAUTHORIZED => SetTrouble::TokenRefused,
            // The address is that of the session.
            StatusCode::NOT_FOUND if error.trouble == SetTrouble::Refused => {
                SetTrouble::SessionLost
            }
            _ => error.trouble,
        };
        SetError { trouble, ..error }
    }

    async fn group(&self, name: &str) -> Result<u64, SetError> {
        if name.eq_ignore_ascii_case("default") {
            return Ok(DEFAULT_GROUP);
        }
        let call = AdminCall {
            operation: Operation::SetFind,
            method: Method::GET,
            path: &["runtime", "runnergroups", ""],
            query: &[("groupName", name)],
            body: None,
        };
        let reply = self.call(call).await?;
        let groups: List<Group> = self.read(&reply)?;
        let mut groups = groups.value.into_iter();
        let group = groups.find(|group| group.name.eq_ignore_ascii_case(name));
        group.map(|group| group.id).ok_or_else(|| {
            let problem = format!("GitHub has no runner group {name}");
            let error = self.admin.invalid(Operation::SetFind, &problem);
            SetError {
                error: Box::new(RegistryError {
                    kind: RegistryErrorKind::NotFound,
                    advice: Some(
                        "create the group at GitHub, or change runner_group of the pool".into(),
                    ),
                    ..*error.error
                }),
                ..error
            }
        })
    }

    async fn create(&self, wanted: &WantedSet, group: u64) -> Result<Set, SetError> {
        let labels = wanted.labels.iter();
        let labels: Vec<Value> = labels
            .map(|label| json!({"type": "System", "name": label}))
            .collect();
        let call = AdminCall {
            operation: Operation::SetFind,
            method: Method::POST,
            path: &["runtime", "runnerscalesets"],
            query: &[],
            body: Some(json!({
                "name": wanted.name,
                "runnerGroupId": group,
                "labels": labels,
                "RunnerSetting": {"disableUpdate": true},
            })),
        };
        let reply = self.call(call).await?;
        let set: Set = self.read(&reply)?;
        let (id, scale_set) = (set.id, &wanted.name);
        tracing::info!(
            id,
            scale_set,
            "created scale set {scale_set} at GitHub with id {id}"
        );
        Ok(set)
    }

    async fn opened(&self, set: u64, reply: &Reply) -> Result<OpenSession<Session>, SetError> {
        let opened: Opened = self.read(reply)?;
        let read = self
            .admin
            .address(reply, &opened.message_queue_url)
            .and_then(|queue| {
                let token = Token::new(&opened.message_queue_access_token);
                let token =
                    token.map_err(|problem| reply.misshapen(&self.admin.client, problem))?;
                Ok((queue, token))
            });
        match read {
            Ok((queue, token)) => {
                self.admin
                    .client
                    .context
                    .secrets
                    .keep_of_service(token.clone());
                Ok(OpenSession {
                    token_life: admin::life(&token),
                    assigned: opened.statistics.map(|counts| counts.total_assigned_jobs),
                    session: Session {
                        set,
                        id: opened.session_id,
                        queue,
                        token,
                    },
                })
            }
            Err(error) => {
                // A session that cannot be used would keep the next one away.
                let _ = self.close_id(set, &opened.session_id).await;
                Err(refused::failed(error))
            }
        }
    }

    async fn close_id(&self, set: u64, session: &str) -> Result<(), SetError> {
        let call = AdminCall {
            operation: Operation::SetSession,
            method: Method::DELETE,
            path: &[
                "runtime",
                "runnerscalesets",
                &set.to_string(),
                "sessions",
                session,
            ],
            query: &[],
            body: None,
        };
        match self.call(call).await {
            Err(error) if error.trouble == SetTrouble::SessionLost => Ok(()),
            // Set or session are gone.
            Err(error) if error.error.status == Some(StatusCode::NOT_FOUND.as_u16()) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

impl ScaleSets for ScaleSetService {
    type Session = Session;

    fn scope(&self) -> &ScopeId {
        &self.scope
    }

    async fn find(&self, wanted: &WantedSet) -> Result<FoundSet, SetError> {
        let group = self.group(&wanted.runner_group).await?;
        let call = AdminCall {
            operation: Operation::SetFind,
            method: Method::GET,
            path: &["runtime", "runnerscalesets"],
            query: &[
                ("runnerGroupId", &group.to_string()),
                ("name", &wanted.name),
            ],
            body: None,
        };
        let reply = self.call(call).await?;
        let sets: List<Set> = self.read(&reply)?;
        let mut sets = sets.value.into_iter();
        let set = match sets.find(|set| set.name.eq_ignore_ascii_case(&wanted.name)) {
            Some(set) => set,
            None => self.create(wanted, group).await?,
        };
        let key = (wanted.name.clone(), wanted.runner_group.clone());
        self.known().insert(key, set.id);
        Ok(FoundSet {
            id: set.id,
            labels: set.labels.into_iter().map(|label| label.name).collect(),
        })
    }

    async fn open(&self, set: u64, owner: &str) -> Result<OpenSession<Session>, SetError> {
        let call = AdminCall {
            operation: Operation::SetSession,
            method: Method::POST,
            path: &["runtime", "runnerscalesets", &set.to_string(), "sessions"],
            query: &[],
            body: Some(json!({"ownerName": owner, "sessionId": NO_SESSION})),
        };
        let reply = self.call(call).await.map_err(|error| SetError {
            trouble: match error.error.status {
                Some(409) => SetTrouble::Occupied,
                Some(_) | None => error.trouble,
            },
            ..error
        })?;
        self.opened(set, &reply).await
    }

    async fn refresh(&self, session: &Session) -> Result<OpenSession<Session>, SetError> {
        let call = AdminCall {
            operation: Operation::SetSession,
            method: Method::PATCH,
            path: &[
                "runtime",
                "runnerscalesets",
                &session.set.to_string(),
                "sessions",
                &session.id,
            ],
            query: &[],
            body: None,
        };
        let reply = self.call(call).await.map_err(|error| SetError {
            trouble: match (error.error.status, error.trouble) {
                (Some(404), SetTrouble::Refused) => SetTrouble::SessionLost,
                (_, trouble) => trouble,
            },
            ..error
        })?;
        self.opened(session.set, &reply).await
    }

    async fn poll(
        &self,
        session: &Session,
        after: u64,
        capacity: u32,
        pool: &PoolName,
        unix_ms: u64,
    ) -> Result<Option<SetMessage>, SetError> {
        let mut url = session.queue.clone();
        if after > 0 {
            url.query_pairs_mut()
                .append_pair("lastMessageId", &after.to_string());
        }
        let (operation, method) = (Operation::SetPoll, Method::GET);
        let call = self.call_queue(session, operation, method, &url, Some(capacity), None);
        let reply = call.await?;
        match reply.status {
            StatusCode::OK => {
                let message: Message = self.read(&reply)?;
                let to = Addressee {
                    scope: &self.scope,
                    set: session.set,
                    pool,
                };
                Ok(Some(message.read(&to, unix_ms)))
            }
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(None),
            _ => Err(self.queue_refused(&reply)),
        }
    }

    async fn acquire(&self, session: &Session, requests: &[i64]) -> Result<(), SetError> {
        let access = self.admin.access().await?;
        let (operation, method) = (Operation::SetAcquire, Method::POST);
        let call = AdminCall {
            operation,
            method: method.clone(),
            path: &[
                "runtime",
                "runnerscalesets",
                &session.set.to_string(),
                "acquirejobs",
            ],
            query: &[],
            body: None,
        };
        let url = self.url(&access, &call)?;
        let body = Some(json!(requests));
        let reply = self.call_queue(session, operation, method, &url, None, body);
        let reply = reply.await?;
        // github.com, which assigns jobs by itself, has no such call.
        if reply.status.is_success() || reply.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(self.queue_refused(&reply))
    }

    async fn acknowledge(&self, session: &Session, message: u64) -> Result<(), SetError> {
        let mut url = session.queue.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(&message.to_string());
        }
        let (operation, method) = (Operation::SetAcknowledge, Method::DELETE);
        let reply = self.call_queue(session, operation, method, &url, None, None);
        let reply = reply.await?;
        if reply.status.is_success() || reply.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(self.queue_refused(&reply))
    }

    async fn close(&self, session: &Session) -> Result<(), SetError> {
        self.close_id(session.set, &session.id).await
    }
}
