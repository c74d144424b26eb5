//! Checks of the API's parsers for [`crate::outside`].

#![expect(clippy::expect_used, reason = "a panic is how a check fails")]

use std::sync::Arc;

use axum::body::Body;
use axum::http::{self, Method};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt as _;

use super::access::{Access, ApiToken, Peer};
use super::metrics;
use super::page::try_document;
use super::routes::{ReadHistory, router};
use crate::controller::Request;
use crate::status::{HistoryPage, Status};
use crate::view::health;

/// Checks that a request gets an answer under every access, and that only root's POST on the Unix
/// socket reaches the controller.
pub(crate) fn try_request(bytes: &[u8]) {
    let Some(request) = read_request(bytes) else {
        return;
    };
    let is_post = request.method() == Method::POST;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let token = ApiToken::of(b"a token that no input has by chance");
    let root = Peer {
        uid: 0,
        gid: 0,
        pid: None,
    };
    for (access, may_command) in [
        (Access::ReadOnly, false),
        (Access::Token(token), false),
        (Access::Peer(root), is_post),
    ] {
        let (requests, mut received) = mpsc::channel::<Request>(1);
        let (_show, status) = watch::channel(Status::default());
        let answer = runtime.block_on(async {
            let mut sent = request.clone().map(Body::from);
            sent.extensions_mut().insert(access);
            let answer = router(status, requests, no_history()).oneshot(sent);
            let controller = async {
                while let Some((command, reply)) = received.recv().await {
                    assert!(may_command, "{command:?} was sent by {request:?}");
                    let _ = reply.send(());
                }
                std::future::pending().await
            };
            tokio::select! { answer = answer => answer, never = controller => never }
        });
        let answer = answer.expect("an answer");
        assert!(answer.status().as_u16() >= 200, "{answer:?}");
    }
}

/// Returns an empty history.
pub(super) fn no_history() -> ReadHistory {
    Arc::new(|_| Box::pin(async { Ok(HistoryPage::default()) }))
}

/// Reads `METHOD PATH`, header lines, an empty line, and the body.
fn read_request(bytes: &[u8]) -> Option<http::Request<Vec<u8>>> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(body.as_bytes().to_vec()).ok()
}

/// Checks that every metric of a status is one line, that its health can be judged, and that it adds no element to
/// the page.
pub(crate) fn try_metrics(status: &Status) {
    let text = metrics::render(status).expect("text");
    for line in text.lines() {
        assert!(
            line.starts_with("# ") || line.starts_with("runner_controller_"),
            "{line:?}"
        );
    }
    let _ = health(status);
    try_document(status);
}
