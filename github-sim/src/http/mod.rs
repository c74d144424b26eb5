//! Requests and answers as values, apart from any connection.

mod reply;
mod request;

pub(crate) use reply::ApiReply;
pub(crate) use request::{ApiRequest, ENTERPRISE};
