//! Checks of requests and answers by GitHub's `OpenAPI` description of its REST API.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use jsonschema::Validator;
use serde_json::{Map, Value};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../rest-api-subset.openapi.json")).unwrap_or_default()
});

/// Compiled schemas by their place in the document. To compile a schema takes milliseconds.
static COMPILED: LazyLock<Mutex<HashMap<String, Option<Arc<Validator>>>>> =
    LazyLock::new(Mutex::default);

/// Checks that a JSON body may be sent to `method template`. The error is text for people.
pub(crate) fn check_body(template: &str, method: &str, body: &Value) -> Result<(), String> {
    let pointer = format!(
        "{}/requestBody/content/application~1json/schema",
        operation(template, method)
    );
    let Some(schema) = DOCUMENT.pointer(&pointer) else {
        return Err("no body is expected".into());
    };
    check(&pointer, body)?;
    // The document does not forbid further fields, but GitHub refuses them in these words.
    let known = schema.get("properties").and_then(Value::as_object);
    let unknown = body
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .find(|key| known.is_some_and(|known| !known.contains_key(*key)));
    unknown.map_or(Ok(()), |key| {
        Err(format!("\"{key}\" is not a permitted key."))
    })
}

/// Checks that a path or query parameter exists and that its text fits. The error is text for people.
pub(crate) fn check_param(
    template: &str,
    method: &str,
    place: &str,
    name: &str,
    text: &str,
) -> Result<(), String> {
    let parameters = format!("{}/parameters", operation(template, method));
    let found = DOCUMENT
        .pointer(&parameters)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|parameter| inline(parameter, 0))
        .find(|parameter| parameter["name"] == name && parameter["in"] == place);
    let Some(parameter) = found else {
        return Err(format!("\"{name}\" is not a permitted {place} parameter."));
    };
    let value = match parameter["schema"]["type"].as_str() {
        Some("integer") => text.parse::<u64>().map_or(Value::Null, Value::from),
        Some("boolean") => text.parse::<bool>().map_or(Value::Null, Value::from),
        _ => Value::from(text),
    };
    let validator = jsonschema::validator_for(&parameter["schema"]).map_err(|e| e.to_string())?;
    validator
        .validate(&value)
        .map_err(|_| format!("For '{place}/{name}', {text:?} does not fit."))
}

/// Checks that `method template` may be answered with this status and body.
pub(crate) fn check_response(
    template: &str,
    method: &str,
    status: u16,
    body: Option<&Value>,
) -> Result<(), String> {
    let responses = format!("{}/responses/{status}", operation(template, method));
    let Some(response) = DOCUMENT.pointer(&responses) else {
        // The document does not list everywhere the errors that every endpoint may give.
        return match status {
            400..=599 => check_component("basic-error", body),
            304 => Ok(()),
            _ => Err(format!("{method} {template} never answers {status}")),
        };
    };
    let response = inline(response, 0);
    match (response.pointer("/content/application~1json/schema"), body) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(format!("{method} {template} {status} has no body")),
        (Some(_), None) => Err(format!("{method} {template} {status} lacks its body")),
        (Some(schema), Some(body)) => {
            let key = format!("{responses}#");
            validate(&key, || schema.clone(), body)
        }
    }
}

/// Checks the payload of a webhook event. The error is text for people.
pub(crate) fn check_event(
    event: &str,
    action: Option<&str>,
    payload: &Value,
) -> Result<(), String> {
    let name = match action {
        Some(action) => format!("webhook-{event}-{action}").replace('_', "-"),
        None => format!("webhook-{event}"),
    };
    check_component(&name, Some(payload))
}

fn check_component(name: &str, body: Option<&Value>) -> Result<(), String> {
    let pointer = format!("/components/schemas/{name}");
    body.map_or(Ok(()), |body| check(&pointer, body))
}

fn operation(template: &str, method: &str) -> String {
    format!(
        "/paths/{}/{}",
        template.replace('/', "~1"),
        method.to_ascii_lowercase()
    )
}

fn check(pointer: &str, value: &Value) -> Result<(), String> {
    let schema = || {
        DOCUMENT
            .pointer(pointer)
            .map(|s| inline(s, 0))
            .unwrap_or_default()
    };
    validate(pointer, schema, value)
}

fn validate(key: &str, schema: impl FnOnce() -> Value, value: &Value) -> Result<(), String> {
    let validator = COMPILED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(key.to_owned())
        .or_insert_with(|| jsonschema::validator_for(&schema()).ok().map(Arc::new))
        .clone()
        .ok_or_else(|| format!("no schema at {key}"))?;
    let problems: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("For '{}', {error}.", error.instance_path()))
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("\n\n"))
    }
}

/// Replaces references by their targets, and `nullable` (`OpenAPI` 3.0) by a null type.
///
/// The parts in use do not refer to themselves; the bound on the depth ends the search if one does.
fn inline(schema: &Value, depth: usize) -> Value {
    const DEEPEST: usize = 64;
    if depth > DEEPEST {
        return Value::Bool(true);
    }
    match schema {
        Value::Array(items) => items.iter().map(|item| inline(item, depth + 1)).collect(),
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let target = DOCUMENT.pointer(reference.trim_start_matches('#'));
                return target.map(|t| inline(t, depth + 1)).unwrap_or_default();
            }
            let mut copy: Map<String, Value> = fields
                .iter()
                .map(|(key, value)| (key.clone(), inline(value, depth + 1)))
                .collect();
            if copy.remove("nullable") == Some(Value::Bool(true)) {
                return serde_json::json!({"anyOf": [{"type": "null"}, copy]});
            }
            Value::Object(copy)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => schema.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MINT: &str = "/orgs/{org}/actions/runners/generate-jitconfig";
    const LIST: &str = "/orgs/{org}/actions/runners";

    #[test]
    fn a_body_needs_its_fields_and_no_others() {
        let good = json!({"name": "a", "runner_group_id": 1, "labels": ["x"]});
        assert_eq!(check_body(MINT, "POST", &good), Ok(()));
        for bad in [
            json!({"name": "a", "labels": ["x"]}),
            json!({"name": "a", "runner_group_id": "1", "labels": ["x"]}),
            json!({"name": "a", "runner_group_id": 1, "labels": []}),
            json!({"name": "a", "runner_group_id": 1, "labels": ["x"], "group": 1}),
            json!([]),
        ] {
            assert!(check_body(MINT, "POST", &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_are_typed() {
        assert_eq!(check_param(LIST, "GET", "query", "per_page", "100"), Ok(()));
        assert!(check_param(LIST, "GET", "query", "per_page", "ten").is_err());
        assert!(check_param(LIST, "GET", "query", "perpage", "10").is_err());
    }

    #[test]
    fn a_runner_may_have_no_version_but_needs_a_name() {
        let runner = json!({"id": 1, "name": "a", "os": "unknown", "status": "offline",
            "busy": false, "labels": [], "version": null});
        let get = "/orgs/{org}/actions/runners/{runner_id}";
        assert_eq!(check_response(get, "GET", 200, Some(&runner)), Ok(()));
        assert!(check_response(get, "GET", 200, Some(&json!({"id": 1}))).is_err());
        assert!(check_response(get, "GET", 201, Some(&runner)).is_err());
        assert!(check_response(get, "DELETE", 204, Some(&runner)).is_err());
    }
}
