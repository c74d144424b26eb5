//! GitHub's list of runners, answered over a loopback socket. Pages are made when they are asked for, so that the list
//! takes no memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nix::unistd::{Pid, gettid};
use tokio::net::TcpListener;

use crate::pool::SlotId;

/// Runners on a page.
const PAGE: usize = 100;

#[derive(Default)]
struct Runners {
    /// Runners of this host by id: their names, and whether they have jobs.
    own: BTreeMap<u64, (String, bool)>,
    /// Number of runners of other hosts.
    others: usize,
    /// Part of every page's tag.
    revision: u64,
    next: u64,
    /// Time of the last request for a first page.
    asked_at: Option<Instant>,
}

/// The server, in a thread. Copies share it.
#[derive(Clone)]
pub(super) struct Server {
    runners: Arc<Mutex<Runners>>,
    pub(super) address: SocketAddr,
    pub(super) thread: Pid,
}

impl Server {
    pub(super) fn start() -> Self {
        let runners: Arc<Mutex<Runners>> = Arc::default();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&runners));
        let (started, start) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
                started
                    .send((socket.local_addr().unwrap(), gettid()))
                    .unwrap();
                axum::serve(socket, router).await.unwrap();
            });
        });
        let (address, thread) = start.recv().unwrap();
        Self {
            runners,
            address,
            thread,
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Runners) -> T) -> T {
        change(&mut self.runners.lock().unwrap())
    }

    /// Sets the number of other hosts' runners.
    pub(super) fn set_others(&self, others: usize) {
        self.with(|runners| runners.others = others);
        self.change_tags();
    }

    /// Gives every page a new tag, as if a runner of each had changed.
    pub(super) fn change_tags(&self) {
        self.with(|runners| runners.revision += 1);
    }

    /// Gives the runner in a slot a job.
    pub(super) fn job_starts(&self, slot: &SlotId) {
        let part = format!("-{slot}-");
        self.with(|runners| {
            runners.revision += 1;
            for (name, busy) in runners.own.values_mut() {
                *busy |= name.contains(&part);
            }
        });
    }

    /// Removes the runner in a slot, whose job is done.
    pub(super) fn ends(&self, slot: &SlotId) {
        let part = format!("-{slot}-");
        self.with(|runners| {
            runners.revision += 1;
            runners
                .own
                .retain(|_, (name, busy)| !(*busy && name.contains(&part)));
        });
    }

    /// Returns the time of the last request for a first page.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.with(|runners| runners.asked_at)
    }
}

async fn answer(State(runners): State<Arc<Mutex<Runners>>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    if parts.method == Method::POST {
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let name = body["name"].as_str().unwrap().to_owned();
        let mut runners = runners.lock().unwrap();
        runners.next += 1;
        runners.revision += 1;
        let id = runners.next;
        let made = format!(
            r#"{{"runner":{},"encoded_jit_config":"{}"}}"#,
            runner(id, &name, false),
            "A".repeat(4096)
        );
        runners.own.insert(id, (name, false));
        return (StatusCode::CREATED, made).into_response();
    }
    if parts.method == Method::DELETE {
        return StatusCode::NO_CONTENT.into_response();
    }
    if !parts.uri.path().ends_with("/runners") {
        return (StatusCode::NOT_FOUND, r#"{"message":"Not Found"}"#).into_response();
    }
    let query = parts.uri.query().unwrap_or_default();
    let page = query.split('&').find_map(|pair| pair.strip_prefix("page="));
    let page: usize = page.map_or(1, |page| page.parse().unwrap());
    let mut runners = runners.lock().unwrap();
    if page == 1 {
        runners.asked_at = Some(Instant::now());
    }
    let all = runners.own.len() + runners.others;
    let tag = format!("W/\"{}-{page}\"", runners.revision);
    let next = (page * PAGE < all).then(|| {
        let (path, next, last) = (parts.uri.path(), page + 1, all.div_ceil(PAGE));
        format!("<{path}?per_page=100&page={next}>; rel=\"next\", <{path}?per_page=100&page={last}>; rel=\"last\"")
    });
    let known = parts.headers.get(header::IF_NONE_MATCH);
    let mut answer = if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        runners.page(page, all).into_response()
    };
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, tag.parse().unwrap());
    if let Some(next) = next {
        headers.insert(header::LINK, next.parse().unwrap());
    }
    answer
}

impl Runners {
    fn page(&self, page: usize, all: usize) -> String {
        let own = self.own.iter();
        let own = own.map(|(id, (name, busy))| runner(*id, name, *busy));
        let others = (0..self.others as u64).map(|number| {
            let (host, slot) = (number / 100, number % 100 + 1);
            let name = format!("build{host:02}-ci-{slot}-{number:08x}");
            runner(1_000_000 + number, &name, number % 2 == 0)
        });
        let shown: Vec<String> = own
            .chain(others)
            .skip((page - 1) * PAGE)
            .take(PAGE)
            .collect();
        format!(r#"{{"total_count":{all},"runners":[{}]}}"#, shown.join(","))
    }
}

/// Returns a runner as GitHub shows one, with the three labels that its `config.sh` adds and two of its pool.
fn runner(id: u64, name: &str, busy: bool) -> String {
    format!(
        r#"{{"id":{id},"name":"{name}","os":"Linux","status":"online","busy":{busy},"labels":[{{"id":1,"name":"self-hosted","type":"read-only"}},{{"id":2,"name":"Linux","type":"read-only"}},{{"id":3,"name":"X64","type":"read-only"}},{{"id":1401,"name":"debian-13","type":"custom"}},{{"id":1402,"name":"large-memory","type":"custom"}}],"runner_group_id":1,"ephemeral":true,"version":"2.335.1"}}"#
    )
}
