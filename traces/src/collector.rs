//! Calls to a collector: OTLP over HTTP, with protobuf.
//!
//! The rules are those of the OTLP specification (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>): which answers
//! are worth a further request, and after which delay.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::headers::Headers;

/// Path of the calls below the endpoint.
const PATH: &str = "/v1/traces";

/// Media type of requests and answers.
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Maximum size of an answer. It has a number and a message.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Maximum length of a collector's message in a log line, in characters.
const MAX_MESSAGE: usize = 200;

/// Time after which an idle connection is closed.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// Failure to set up the calls.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The endpoint is not an address for HTTP.
    #[error("cannot use the endpoint {0:?} for traces: it must be an http:// or https:// address")]
    Endpoint(String),
    /// The host has no certificate authorities.
    #[error("cannot send traces over TLS: this host has no certificate authorities")]
    Roots,
    /// TLS cannot be set up.
    #[error("cannot set up TLS for traces")]
    Tls(#[from] rustls::Error),
}

/// Answer of a collector to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It took the spans, some of them perhaps not.
    Taken {
        /// Number of spans that it refused.
        rejected: u64,
        /// Its message.
        message: String,
    },
    /// The same request may succeed later.
    Later {
        /// Delay that it asked for.
        after: Option<Duration>,
        /// Reason.
        reason: String,
    },
    /// The same request never succeeds.
    Refused {
        /// Reason.
        reason: String,
    },
}

/// A collector.
#[derive(Debug)]
pub(crate) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

impl Collector {
    /// Returns the collector at an endpoint, to which the path is added. `authorities` are trusted beside those of
    /// the host.
    pub(crate) fn new(
        endpoint: &str,
        Headers(mut headers): Headers,
        authorities: Vec<CertificateDer<'static>>,
        timeout: Duration,
    ) -> Result<Self, CollectorError> {
        let wrong = || CollectorError::Endpoint(endpoint.to_owned());
        let uri = format!("{}{PATH}", endpoint.trim_end_matches('/'));
        let uri: Uri = uri.parse().map_err(|_| wrong())?;
        let is_over_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(wrong()),
        };
        headers.insert(CONTENT_TYPE, PROTOBUF);
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static("runner-controller"));
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(is_over_tls, authorities)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            client,
            uri,
            headers,
            timeout,
        })
    }

    /// Sends an encoded request.
    pub(crate) async fn send(&self, body: Bytes) -> Answer {
        let later = |reason| Answer::Later {
            after: None,
            reason,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let answered = async {
            let answer = self.client.request(request).await.map_err(|e| chain(&e))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| format!("the answer is not whole: {error}"))?;
            Ok((parts, body.to_bytes()))
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok((parts, body))) => judge(parts.status, &parts.headers, &body),
            Ok(Err(reason)) => later(reason),
            Err(_) => later(format!("no answer within {:?}", self.timeout)),
        }
    }
}

/// Returns the settings for TLS. Without TLS, no certificate authority is needed.
fn tls(
    is_over_tls: bool,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<ClientConfig, CollectorError> {
    let mut roots = RootCertStore::empty();
    if is_over_tls {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(authorities);
        if roots.is_empty() {
            return Err(CollectorError::Roots);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Judges an answer by its status, its headers and its body.
fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    if status.is_success() {
        return judge_success(headers, body);
    }
    let reason = format!("the collector answered {status}");
    match status.as_u16() {
        429 | 502 | 503 | 504 => Answer::Later {
            after: headers.get(RETRY_AFTER).and_then(delay),
            reason,
        },
        401 | 403 => Answer::Refused {
            reason: format!("{reason}; check traces.headers_file"),
        },
        404 | 405 | 300..=399 => Answer::Refused {
            reason: format!("{reason}; check traces.endpoint, to which {PATH} is added"),
        },
        _ => Answer::Refused { reason },
    }
}

/// Judges a success. Any web server answers so, and only a collector answers with its message or without a body.
fn judge_success(headers: &HeaderMap, body: &[u8]) -> Answer {
    let is_protobuf = headers.get(CONTENT_TYPE) == Some(&PROTOBUF);
    let answer = match body {
        [] => Some(ExportTraceServiceResponse::default()),
        _ if is_protobuf => ExportTraceServiceResponse::decode(body).ok(),
        _ => None,
    };
    let Some(answer) = answer else {
        return Answer::Refused {
            reason: "the answer is not a collector's; check traces.endpoint".to_owned(),
        };
    };
    let partial = answer.partial_success.unwrap_or_default();
    let message = partial.error_message.chars().filter(|c| !c.is_control());
    Answer::Taken {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
        message: message.take(MAX_MESSAGE).collect(),
    }
}

/// Returns the delay of a `Retry-After`: a number of seconds, or a date.
fn delay(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Returns an error and all its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    fn judged(status: u16, headers: &[(&'static str, &'static str)], body: &[u8]) -> Answer {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        judge(StatusCode::from_u16(status).unwrap(), &headers, body)
    }

    #[test]
    fn only_the_answers_of_the_specification_are_worth_a_further_request() {
        for status in [400, 401, 403, 404, 413, 415, 500, 501, 301] {
            let answer = judged(status, &[("retry-after", "1")], b"");
            assert!(matches!(answer, Answer::Refused { .. }), "{status}");
        }
        for status in [429, 502, 503, 504] {
            let answer = judged(status, &[], b"");
            assert!(
                matches!(answer, Answer::Later { after: None, .. }),
                "{status}"
            );
        }
    }

    #[test]
    fn a_delay_is_a_number_of_seconds_or_a_date() {
        let after = |text| match judged(503, &[("retry-after", text)], b"") {
            Answer::Later { after, .. } => after,
            other @ (Answer::Taken { .. } | Answer::Refused { .. }) => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        let past = after("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(past, Some(Duration::ZERO));
        assert!(after("Tue, 01 Jan 2999 00:00:00 GMT") > Some(Duration::from_hours(1)));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn a_page_of_a_web_server_is_not_a_collectors_answer() {
        let taken = Answer::Taken {
            rejected: 0,
            message: String::new(),
        };
        assert_eq!(judged(200, &[], b""), taken);
        let protobuf = ("content-type", "application/x-protobuf");
        let partial = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: 2,
                error_message: "too old\n".into(),
            }),
        };
        let Answer::Taken { rejected, message } =
            judged(200, &[protobuf], &partial.encode_to_vec())
        else {
            panic!("not taken");
        };
        assert_eq!((rejected, &*message), (2, "too old"));
        for (headers, body) in [
            (&[("content-type", "text/html")][..], &b"<html>"[..]),
            (&[], b"ok"),
            (&[protobuf], b"\xff"),
        ] {
            let answer = judged(200, headers, body);
            assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
        }
    }

    #[test]
    fn an_endpoint_is_an_address_for_http() {
        let uri = |endpoint: &str| {
            let timeout = Duration::from_secs(1);
            let collector = Collector::new(endpoint, Headers::default(), Vec::new(), timeout);
            collector.map(|collector| collector.uri.to_string())
        };
        assert_eq!(
            uri("http://otel:4318").unwrap(),
            "http://otel:4318/v1/traces"
        );
        assert_eq!(uri("http://otel/a/").unwrap(), "http://otel/a/v1/traces");
        for wrong in ["", "otel:4318", "grpc://otel:4317", "http://"] {
            assert!(uri(wrong).is_err(), "{wrong}");
        }
    }
}
