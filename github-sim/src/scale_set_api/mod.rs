//! The service of scale sets: the admin connection, sets, sessions, message queues and runners.

mod access;
mod errors;
mod queue;
mod runners;
mod sessions;
mod sets;

use std::sync::Arc;

use crate::{
    http::{ApiReply, ApiRequest},
    scale_set_call::ScaleSetCall,
    state::Hub,
};

/// Answers a request. A poll is held until there is a message, up to one of the configured times.
pub(crate) async fn answer(hub: &Arc<Hub>, request: &ApiRequest, call: ScaleSetCall) -> ApiReply {
    if call == ScaleSetCall::SetPoll {
        return queue::poll(hub, request).await;
    }
    hub.change(|state, now| match call {
        ScaleSetCall::AdminToken => access::admin_token(state, now, request),
        ScaleSetCall::SetList => sets::list(state, now, request),
        ScaleSetCall::SetCreate => sets::create(state, now, request),
        ScaleSetCall::SetGet => sets::get(state, now, request),
        ScaleSetCall::SetUpdate => sets::update(state, now, request),
        ScaleSetCall::SetDelete => sets::delete(state, now, request),
        ScaleSetCall::SetGroups => sets::groups(state, now, request),
        ScaleSetCall::SetSession => sessions::open(state, now, request),
        ScaleSetCall::SetSessionRefresh => sessions::refresh(state, now, request),
        ScaleSetCall::SetSessionDelete => sessions::close(state, now, request),
        ScaleSetCall::SetAcquire => queue::acquire(state, now, request),
        ScaleSetCall::SetAcquirable => queue::acquirable(state, now, request),
        ScaleSetCall::SetMint => runners::mint(state, now, request),
        ScaleSetCall::SetRunnerFind => runners::find(state, now, request),
        ScaleSetCall::SetRunnerGet => runners::get(state, now, request),
        ScaleSetCall::SetRunnerDelete => runners::delete(state, now, request),
        ScaleSetCall::SetAck => queue::acknowledge(state, now, request),
        ScaleSetCall::SetPoll => Err(ApiReply::empty(axum::http::StatusCode::NOT_FOUND)),
    })
    .unwrap_or_else(|refusal| refusal)
}
