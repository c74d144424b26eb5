//! An answer that has not been sent.

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, HeaderName, HeaderValue},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

/// An answer that has not been sent.
#[derive(Clone, Debug)]
pub(crate) struct ApiReply {
    pub(crate) status: StatusCode,
    /// Boxed, because a refusal travels as an error and an error should be small.
    pub(crate) headers: Box<HeaderMap>,
    pub(crate) body: Bytes,
}

impl ApiReply {
    /// Returns an answer without a body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Box::default(),
            body: Bytes::new(),
        }
    }

    /// Returns an answer with a JSON body.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => Self::with_type(status, "application/json; charset=utf-8", bytes),
            Err(error) => Self::with_type(
                StatusCode::INTERNAL_SERVER_ERROR,
                "text/plain",
                error.to_string().into_bytes(),
            ),
        }
    }

    /// Returns an answer with a body of any type.
    pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Self {
        let mut reply = Self::empty(status);
        reply.body = body.into();
        reply
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        reply
    }

    /// Returns the answer with one more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a header. A value that HTTP does not allow is left out.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            self.headers.insert(name, value);
        }
    }

    /// Returns the body as JSON.
    pub(crate) fn value(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Returns the answer with another body, whose length is not known before its end.
    pub(crate) fn with_body(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = *self.headers;
        response
    }

    /// Returns status line and headers as HTTP/1.1 has them, with this `Content-Length`.
    pub(crate) fn head(&self, content_length: usize) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {}\r\n", self.status).into_bytes();
        for (name, value) in self.headers.iter() {
            head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        head.extend(format!("content-length: {content_length}\r\n\r\n").into_bytes());
        head
    }
}

impl IntoResponse for ApiReply {
    fn into_response(self) -> Response {
        let body = Body::from(self.body.clone());
        self.with_body(body)
    }
}
