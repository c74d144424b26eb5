//! The rules for a request: those of OTLP, and the bounds that this program promises.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// Bound of a text, in bytes.
const MAX_TEXT: usize = 256;

/// Returns the request, or the status of a refusal and its reason.
pub(crate) fn check(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<ExportTraceServiceRequest, (u16, String)> {
    let content = headers.get("content-type").map(AsRef::as_ref);
    if content != Some(b"application/x-protobuf") {
        return Err((415, format!("content type {content:?}")));
    }
    let request = ExportTraceServiceRequest::decode(body);
    let request = request.map_err(|error| (400, error.to_string()))?;
    // Otherwise there are fields that the messages do not have.
    if request.encode_to_vec() != body {
        return Err((400, "the request has unknown fields".to_owned()));
    }
    match check_request(&request) {
        Ok(()) => Ok(request),
        Err(violation) => Err((400, violation)),
    }
}

fn require(holds: bool, violation: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(violation()) }
}

fn check_request(request: &ExportTraceServiceRequest) -> Result<(), String> {
    for resource in &request.resource_spans {
        let attributes = resource.resource.as_ref().ok_or("no resource")?;
        check_attributes(&attributes.attributes)?;
        let has_service = attributes
            .attributes
            .iter()
            .any(|a| a.key == "service.name");
        require(has_service, || "no service.name".into())?;
        for scope in &resource.scope_spans {
            let name = scope.scope.as_ref().map(|scope| scope.name.as_str());
            require(name.is_some_and(|name| !name.is_empty()), || {
                "no scope".into()
            })?;
            require(!scope.spans.is_empty(), || "no spans".into())?;
            check_spans(&scope.spans)?;
        }
    }
    require(!request.resource_spans.is_empty(), || {
        "empty request".into()
    })
}

fn check_spans(spans: &[Span]) -> Result<(), String> {
    let mut known = BTreeMap::new();
    for span in spans {
        check_span(span)?;
        let id = (span.trace_id.as_slice(), span.span_id.as_slice());
        require(known.insert(id, span).is_none(), || {
            format!("id twice: {span:?}")
        })?;
    }
    for span in spans.iter().filter(|span| !span.parent_span_id.is_empty()) {
        let id = (span.trace_id.as_slice(), span.parent_span_id.as_slice());
        let parent = known
            .get(&id)
            .ok_or_else(|| format!("no parent: {span:?}"))?;
        let is_inside = parent.start_time_unix_nano <= span.start_time_unix_nano
            && span.end_time_unix_nano <= parent.end_time_unix_nano;
        require(is_inside, || format!("outside its parent: {span:?}"))?;
    }
    let traces: BTreeSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    let roots = spans.iter().filter(|span| span.parent_span_id.is_empty());
    let roots = roots.count();
    require(roots == traces.len(), || {
        format!("{roots} roots in {} traces", traces.len())
    })
}

fn check_span(span: &Span) -> Result<(), String> {
    let is_id = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
    require(is_id(&span.trace_id, 16), || format!("trace id: {span:?}"))?;
    require(is_id(&span.span_id, 8), || format!("span id: {span:?}"))?;
    let parent = &span.parent_span_id;
    require(parent.is_empty() || is_id(parent, 8), || {
        format!("parent id: {span:?}")
    })?;
    require(!span.name.is_empty() && span.name.len() <= 32, || {
        format!("name: {span:?}")
    })?;
    require((1..=5).contains(&span.kind), || format!("kind: {span:?}"))?;
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    require(start > 0 && start <= end, || format!("times: {span:?}"))?;
    if let Some(status) = &span.status {
        require((0..=2).contains(&status.code), || {
            format!("status: {span:?}")
        })?;
        check_text(&status.message)?;
    }
    check_attributes(&span.attributes)
}

fn check_attributes(attributes: &[KeyValue]) -> Result<(), String> {
    let mut keys = BTreeSet::new();
    require(attributes.len() <= 16, || {
        format!("{} attributes", attributes.len())
    })?;
    for attribute in attributes {
        let key = &attribute.key;
        require(!key.is_empty() && keys.insert(key), || {
            format!("key {key:?}")
        })?;
        match attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref())
        {
            Some(Value::StringValue(text)) => {
                require(!text.is_empty(), || format!("{key} is empty"))?;
                check_text(text)?;
            }
            Some(Value::IntValue(_)) => {}
            other => return Err(format!("{key} is {other:?}")),
        }
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), String> {
    require(text.len() <= MAX_TEXT, || {
        format!("a text of {} bytes", text.len())
    })?;
    require(!text.chars().any(char::is_control), || {
        format!("control in {text:?}")
    })
}
