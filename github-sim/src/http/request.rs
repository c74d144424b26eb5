//! A request whose body has arrived.

use std::{sync::Arc, time::Duration};

use axum::{
    RequestPartsExt,
    body::Bytes,
    extract::{FromRequest, MatchedPath, RawPathParams, Request},
    http::{HeaderMap, StatusCode},
};
use serde::de::DeserializeOwned;

use super::ApiReply;
use crate::{endpoint::Endpoint, scope::Scope, state::Hub};

/// Start of the REST API's paths on GitHub Enterprise Server. The same endpoints are there, too.
pub(crate) const ENTERPRISE: &str = "/api/v3";

/// A request whose body has arrived.
#[derive(Clone, Debug)]
pub(crate) struct ApiRequest {
    pub(crate) endpoint: Endpoint,
    pub(crate) method: String,
    /// Path as in GitHub's `OpenAPI` description, with the names of its parameters; empty for an
    /// unknown path.
    pub(crate) template: String,
    pub(crate) path: String,
    /// Path and query as they came.
    pub(crate) target: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    path_params: Vec<(String, String)>,
}

impl FromRequest<Arc<Hub>> for ApiRequest {
    /// Answer to a body that is too large or too slow.
    type Rejection = ApiReply;

    async fn from_request(request: Request, hub: &Arc<Hub>) -> Result<Self, ApiReply> {
        let (mut parts, body) = request.into_parts();
        let matched: Option<MatchedPath> = parts.extract().await.ok();
        // A parameter that is not UTF-8 names nothing that exists.
        let params: Option<RawPathParams> = parts.extract().await.ok();
        let head = parts.clone();
        let bytes = Bytes::from_request(Request::from_parts(parts, body), hub);
        let timeout = hub.read(|state, _| Duration::from_millis(state.settings.body_timeout_ms));
        let body = tokio::time::timeout(timeout, bytes)
            .await
            .map_err(|_| ApiReply::empty(StatusCode::REQUEST_TIMEOUT))?
            .map_err(|refusal| ApiReply::empty(refusal.status()))?;
        let template = matched.as_ref().map_or("", MatchedPath::as_str);
        let template = template.strip_prefix(ENTERPRISE).unwrap_or(template);
        let query = head.uri.query().unwrap_or("");
        Ok(Self {
            endpoint: Endpoint::of(head.method.as_str(), template),
            method: head.method.as_str().to_owned(),
            template: template.to_owned(),
            path: head.uri.path().to_owned(),
            target: head
                .uri
                .path_and_query()
                .map_or("/", |at| at.as_str())
                .to_owned(),
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            headers: head.headers,
            body,
            path_params: params.iter().flatten().map(owned).collect(),
        })
    }
}

impl ApiRequest {
    /// Returns a header whose value is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns a parameter of the query.
    pub(crate) fn query_param(&self, name: &str) -> Option<&str> {
        value_of(&self.query, name)
    }

    /// Returns a parameter of the path.
    pub(crate) fn path_param(&self, name: &str) -> Option<&str> {
        value_of(&self.path_params, name)
    }

    /// Returns the organisation or the repository that the path names.
    pub(crate) fn scope(&self) -> Option<Scope> {
        if let Some(organization) = self.path_param("org") {
            return Some(Scope::Organization(organization.into()));
        }
        Some(Scope::Repository {
            owner: self.path_param("owner")?.into(),
            name: self.path_param("repo")?.into(),
        })
    }

    /// Returns the token of `Authorization: Bearer …`, or of `token …`, which GitHub takes too.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        (scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token"))
            .then_some(token.trim())
    }

    /// Returns the body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn value_of<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let (_, value) = pairs.iter().find(|(key, _)| key == name)?;
    Some(value)
}
