//! The `[traces]` table.

use url::Url;

use super::section::Section;
use crate::config::TracesConfig;

const EXAMPLE: &str = "\"http://127.0.0.1:4318\"";
const FILE_EXAMPLE: &str = "\"/run/agenix/traces-headers\"";

/// Path of OTLP's calls below an endpoint.
const PATH: &str = "/v1/traces";

/// Reads the collector that gets traces; `None` without the table. `can_send` is true if the program was built to
/// send them.
pub(super) fn traces(top: &mut Section<'_>, can_send: bool) -> Option<TracesConfig> {
    let is_there = top.has("traces");
    let mut section = top.section("traces");
    if !is_there {
        // The table is a known key, whether or not it is there.
        section.finish();
        return None;
    }
    let endpoint = section.required("endpoint", EXAMPLE, Section::text);
    if let Some(problem) = endpoint.as_deref().and_then(problem) {
        section.wrong("endpoint", problem, format!("endpoint = {EXAMPLE}"));
    }
    let headers_file = section.path("headers_file", FILE_EXAMPLE);
    if headers_file
        .as_ref()
        .is_some_and(|file| file.starts_with("/nix/store"))
    {
        section.wrong(
            "headers_file",
            "every user of the host can read /nix/store",
            format!("a path outside it, such as {FILE_EXAMPLE}"),
        );
    }
    section.finish();
    if !can_send {
        top.wrong(
            "traces",
            "this build of the program sends no traces",
            "a program that was built with `--features traces` (`runner-controller docs operations`), or no table [traces]",
        );
    }
    Some(TracesConfig {
        endpoint: endpoint?,
        headers_file,
    })
}

/// Returns what is wrong with an endpoint. No message has a user or a password of it.
fn problem(endpoint: &str) -> Option<&'static str> {
    let Ok(url) = endpoint.parse::<Url>() else {
        return Some("the endpoint is not an address");
    };
    let has_login = !url.username().is_empty() || url.password().is_some();
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        Some("the endpoint does not begin with http:// or https:// and a host")
    } else if has_login {
        Some("the endpoint has a user or a password; headers_file is for secrets")
    } else if url.query().is_some() || url.fragment().is_some() {
        Some("the endpoint has a query or a fragment")
    } else if url.path().trim_end_matches('/').ends_with(PATH) {
        Some("the endpoint has the path /v1/traces, which the program adds by itself")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::mistake::Mistake;
    use crate::config::read::section::Report;
    use crate::config::{parse, testing};

    /// Returns the table as a program reads it that can send traces, or cannot.
    fn read(lines: &str, can_send: bool) -> Result<Option<TracesConfig>, Vec<Mistake>> {
        let report = Report::default();
        let mut top = Section::new("", lines.parse().unwrap(), &report);
        let config = traces(&mut top, can_send);
        top.finish();
        let list = report.into_list();
        if list.is_empty() {
            Ok(config)
        } else {
            Err(list)
        }
    }

    #[test]
    fn a_collector_has_an_endpoint_and_perhaps_headers() {
        assert_eq!(read("", true), Ok(None));
        assert_eq!(read("", false), Ok(None));
        let lines =
            "[traces]\nendpoint = \"https://otel.example/otlp/\"\nheaders_file = \"/run/h\"";
        let config = read(lines, true).unwrap().unwrap();
        assert_eq!(config.endpoint, "https://otel.example/otlp/");
        assert_eq!(config.headers_file, Some("/run/h".into()));
        let short = read("[traces]\nendpoint = \"http://[::1]:4318\"", true);
        assert_eq!(short.unwrap().unwrap().headers_file, None);
    }

    #[test]
    fn each_mistake_of_the_table_is_told_by_its_key() {
        let good = "endpoint = \"http://otel:4318\"";
        for (lines, key) in [
            (String::new(), "traces.endpoint"),
            ("endpoint = 4318".to_owned(), "traces.endpoint"),
            ("endpoint = \"otel:4318\"".to_owned(), "traces.endpoint"),
            (
                "endpoint = \"grpc://otel:4317\"".to_owned(),
                "traces.endpoint",
            ),
            ("endpoint = \"http://\"".to_owned(), "traces.endpoint"),
            (
                "endpoint = \"http://me:hunter2@otel\"".to_owned(),
                "traces.endpoint",
            ),
            (
                "endpoint = \"http://otel?key=hunter2\"".to_owned(),
                "traces.endpoint",
            ),
            (
                "endpoint = \"http://otel/v1/traces\"".to_owned(),
                "traces.endpoint",
            ),
            (
                format!("{good}\nheaders_file = \"h\""),
                "traces.headers_file",
            ),
            (
                format!("{good}\nheaders_file = \"/nix/store/h\""),
                "traces.headers_file",
            ),
            (
                format!("{good}\nheaders = \"a: hunter2\""),
                "traces.headers",
            ),
        ] {
            let list = read(&format!("[traces]\n{lines}"), true).unwrap_err();
            let found: Vec<&str> = list.iter().map(|mistake| mistake.key.as_str()).collect();
            assert_eq!(found, [key], "{lines}");
            assert!(!format!("{list:?}").contains("hunter2"), "{list:?}");
        }
    }

    #[test]
    fn a_program_that_cannot_send_traces_refuses_the_table() {
        let lines = "[traces]\nendpoint = \"http://otel:4318\"";
        let list = read(lines, false).unwrap_err();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].key, "traces");
        assert!(list[0].write.contains("--features traces"));
        // The whole file is read as this build does.
        let parsed = parse(Path::new("x"), &format!("{}{lines}\n", testing::TEXT));
        assert_eq!(parsed.is_ok(), cfg!(feature = "traces"));
    }
}
