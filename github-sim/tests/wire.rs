//! Bytes of answers as they arrive, without a client library between.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

use common::{PATIENCE, Sim};
use github_sim::{Endpoint, Fault, FaultRule, Settings};
use serde_json::json;

const LIST: &str = "/orgs/acme/actions/runners";
const EMPTY_LIST: &str = r#"{"runners":[],"total_count":0}"#;

/// Opens a connection and sends a request with what every call must bring.
fn send(sim: &Sim, method: &str, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(sim.url().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: sim\r\nUser-Agent: raw\r\nAuthorization: Bearer {}\r\n{headers}\r\n",
        sim.token()
    )
    .unwrap();
    stream
}

/// Returns all bytes until the server closes the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Sends one request and returns the whole answer. Values that differ from call to call are `…`.
fn exchange(sim: &Sim, method: &str, path: &str, headers: &str) -> String {
    let headers = format!("Connection: close\r\n{headers}");
    let answer = rest(send(sim, method, path, &headers));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let varying = ["x-github-request-id", "x-ratelimit-reset", "date", "etag"];
    let line = |line: &str| match line.split_once(": ") {
        Some((name, value)) if varying.contains(&name) => {
            assert!(!value.is_empty(), "{name} is empty");
            format!("{name}: …")
        }
        _ => line.to_owned(),
    };
    let head: Vec<String> = head.split("\r\n").map(line).collect();
    format!("{}\n\n{body}", head.join("\n"))
}

/// Lists once under `fault` and returns the connection.
fn list_under(sim: &Sim, fault: Fault) -> TcpStream {
    sim.control()
        .add_faults([FaultRule::on(Endpoint::List, 1, fault)]);
    send(sim, "GET", LIST, "")
}

#[test]
fn a_list_arrives_byte_for_byte() {
    assert_eq!(
        exchange(&Sim::start(), "GET", LIST, ""),
        format!(
            "\
HTTP/1.1 200 OK
content-type: application/json; charset=utf-8
etag: …
cache-control: private, max-age=60, s-maxage=60
x-github-api-version-selected: 2022-11-28
x-github-media-type: github.v3; format=json
server: github.com
x-ratelimit-limit: 5000
x-ratelimit-remaining: 4999
x-ratelimit-used: 1
x-ratelimit-reset: …
x-ratelimit-resource: core
x-github-request-id: …
content-length: 30
connection: close
date: …

{EMPTY_LIST}"
        )
    );
}

#[test]
fn a_wrong_method_or_path_is_not_found() {
    let not_found = |used: u64| {
        format!(
            "\
HTTP/1.1 404 Not Found
content-type: application/json; charset=utf-8
x-github-api-version-selected: 2022-11-28
x-github-media-type: github.v3; format=json
server: github.com
x-ratelimit-limit: 5000
x-ratelimit-remaining: {}
x-ratelimit-used: {used}
x-ratelimit-reset: …
x-ratelimit-resource: core
x-github-request-id: …
content-length: 117
connection: close
date: …

",
            5000 - used
        )
    };
    let body = r#"{"documentation_url":"https://docs.github.com/rest/actions/self-hosted-runners","message":"Not Found","status":"404"}"#;
    let sim = Sim::start();
    for (used, (method, path)) in (1..).zip([
        ("PUT", LIST),
        ("GET", "/nothing"),
        ("POST", "/broker/message"),
        ("GET", "/orgs/%FF/actions/runners"),
        ("GET", "//orgs/acme/actions/runners"),
    ]) {
        assert_eq!(
            exchange(&sim, method, path, ""),
            not_found(used) + body,
            "{method} {path}"
        );
    }
    assert_eq!(exchange(&sim, "HEAD", LIST, ""), not_found(6));
}

#[test]
fn an_answer_without_a_body_has_no_length() {
    let sim = Sim::start();
    let id = sim.mint("r1", &["ci"]).json()["runner"]["id"].clone();
    let deleted = exchange(&sim, "DELETE", &format!("{LIST}/{id}"), "");
    assert!(
        deleted.starts_with("HTTP/1.1 204 No Content\n"),
        "{deleted}"
    );
    assert!(deleted.ends_with("\n\n") && !deleted.contains("content-"));
}

#[test]
fn an_answer_of_the_broker_has_no_headers_of_the_rest_api() {
    assert_eq!(
        exchange(&Sim::start(), "DELETE", "/broker/session", ""),
        "\
HTTP/1.1 401 Unauthorized
content-type: application/json; charset=utf-8
x-github-request-id: …
content-length: 113
connection: close
date: …

{\"source\":\"actions-broker-listener\",\"errorKind\":\"Unauthorized\",\"statusCode\":401,\"errorMessage\":\"token not valid\"}"
    );
}

#[test]
fn a_body_that_is_too_large_or_too_slow_is_refused() {
    let sim = Sim::with(Settings {
        body_timeout_ms: 50,
        ..Settings::default()
    });
    let mint = format!("{LIST}/generate-jitconfig");
    let close = "Connection: close\r\n";
    let slow = rest(send(
        &sim,
        "POST",
        &mint,
        &format!("{close}Content-Length: 9\r\n"),
    ));
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    let mut large = send(
        &sim,
        "POST",
        &mint,
        &format!("{close}Content-Length: 1048577\r\n"),
    );
    large.write_all(&vec![b' '; (1 << 20) + 1]).unwrap();
    let large = rest(large);
    assert!(large.starts_with("HTTP/1.1 413 "), "{large}");
}

#[test]
fn a_dropped_connection_ends_before_the_first_byte() {
    let sim = Sim::start();
    for fault in [Fault::DropBefore, Fault::DropAfter] {
        assert_eq!(rest(list_under(&sim, fault)), "");
    }
}

#[test]
fn a_truncated_answer_ends_inside_its_body() {
    let sim = Sim::start();
    let answer = rest(list_under(&sim, Fault::Truncate { bytes: 5 }));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-length: 30"), "{head}");
    assert_eq!(body, &EMPTY_LIST[..5]);
}

#[test]
fn a_reset_connection_ends_with_an_error() {
    let sim = Sim::start();
    let mut stream = list_under(&sim, Fault::Reset { bytes: 5 });
    let error = stream.read_to_end(&mut vec![]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn garbage_arrives_in_place_of_an_answer() {
    let sim = Sim::start();
    let mut stream = list_under(&sim, Fault::Garbage { bytes: 1000 });
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 1000);
    assert!(!bytes.starts_with(b"HTTP/"));
    assert_eq!(sim.control().stats().calls["list"]["dropped"], 1);
}

/// Reads an answer up to the end of an empty list.
fn read_list(stream: &mut TcpStream) -> String {
    let mut bytes = vec![];
    while !bytes.ends_with(EMPTY_LIST.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.extend(byte);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_wrong_content_length_leaves_the_connection_open() {
    let sim = Sim::start();
    // With 10, the rest of the list looks like the start of the next answer. With 1000, a client waits.
    for bytes in [10, 1000] {
        let mut stream = list_under(&sim, Fault::ContentLength { bytes });
        let first = read_list(&mut stream);
        let header = format!("\r\ncontent-length: {bytes}\r\n");
        assert!(first.contains(&header), "{first}");
        write!(
            stream,
            "GET /_sim/health HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let second = rest(stream);
        assert!(second.starts_with("HTTP/1.1 200 OK\r\n"), "{second}");
        assert!(second.ends_with(r#"{"status":"ok"}"#), "{second}");
    }
}

#[test]
fn the_next_answer_on_a_connection_is_whole_again() {
    let sim = Sim::start();
    let rule = json!({"match": {"endpoint": "list"}, "times": 1, "fault": {"content_length": {"bytes": 30}}});
    assert_eq!(sim.call("POST", "/_sim/faults", Some(&rule)).status, 200);
    let mut stream = send(&sim, "GET", LIST, "");
    let mut first = [0; 1024];
    let read = stream.read(&mut first).unwrap();
    assert!(!String::from_utf8_lossy(&first[..read]).contains("\r\ndate: "));
    write!(
        stream,
        "GET {LIST} HTTP/1.1\r\nHost: sim\r\nUser-Agent: raw\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        sim.token()
    )
    .unwrap();
    let second = rest(stream);
    assert!(second.contains("\r\ndate: "), "{second}");
    assert!(second.ends_with(EMPTY_LIST), "{second}");
}

#[test]
fn a_slow_answer_arrives_whole() {
    let sim = Sim::start();
    sim.control().add_faults([FaultRule::on(
        Endpoint::List,
        1,
        Fault::SlowDrip { bytes_per_s: 1000 },
    )]);
    let answer = exchange(&sim, "GET", LIST, "");
    assert!(answer.contains("\ncontent-length: 30\n"), "{answer}");
    assert!(answer.ends_with(EMPTY_LIST), "{answer}");
}

#[test]
fn the_end_of_the_server_ends_every_connection() {
    let sim = Sim::alone(Ipv4Addr::new(127, 0, 0, 77));
    let listener = sim.listener("r1", &[]);
    sim.wait_online(listener.id);
    // The listener's poll is held, one connection is idle, and one waits for its answer.
    let idle = send(&sim, "GET", "/_sim/health", "");
    let waiting = list_under(&sim, Fault::Delay { ms: 3_600_000 });
    while sim.control().faults()[0].times != Some(0) {
        std::thread::yield_now();
    }
    let address = sim.url().trim_start_matches("http://").to_owned();
    let _runtime = sim.end();
    for mut stream in [idle, waiting] {
        let ended = stream.read_to_end(&mut vec![]);
        if let Err(error) = ended {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
    // The task that accepts connections ends with the server, but on another thread.
    let since = Instant::now();
    let error = loop {
        match TcpStream::connect(&address) {
            Err(error) => break error,
            Ok(_) => assert!(since.elapsed() < PATIENCE, "{address} still listens"),
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}
