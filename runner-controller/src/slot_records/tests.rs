//! Records as they are written, read, bounded and pruned.

use std::time::{Duration, SystemTime};

use super::*;

fn invocation(digit: char) -> Invocation {
    Invocation::parse(&String::from(digit).repeat(32)).unwrap()
}

fn start(digit: char, at: u64) -> StartRecord {
    StartRecord {
        invocation: invocation(digit),
        generation: "0011".into(),
        returns_result: true,
        at: Timestamp::from_millis(at),
    }
}

fn end(digit: char, at: u64, exit: Exit) -> EndRecord {
    EndRecord {
        invocation: invocation(digit),
        service_result: "exit-code".into(),
        exit,
        memory_peak_bytes: Some(1 << 30),
        oom_kills: 2,
        cpu_ms: None,
        usage: ResourceUse {
            layer_peak_bytes: Some(u64::MAX),
            received_bytes: None,
            sent_bytes: Some(0),
        },
        listening_at: Some(Timestamp::from_millis(at.saturating_sub(3))),
        stop_requested: true,
        returns_result: true,
        last_line: Some("a last line".into()),
        at: Timestamp::from_millis(at),
    }
}

#[test]
fn records_are_read_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    for exit in [Exit::Status(7), Exit::Signal("KILL".into()), Exit::Unknown] {
        write_start(dir.path(), &start('a', 5)).unwrap();
        write_end(dir.path(), &end('a', 9, exit.clone())).unwrap();
        let records = of(dir.path(), &invocation('a'));
        assert_eq!(records.start, Some(start('a', 5)));
        assert_eq!(records.end, Some(end('a', 9, exit)));
        assert!(records.unreadable.is_empty());
    }
}

#[test]
fn a_record_of_an_earlier_version_says_nothing_of_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        r#"{"service_result":"success","exit":{"status":0},"memory_peak_bytes":null,"at_ms":9}"#;
    fs::write(dir.path().join(format!("{}{END}", invocation('a'))), text).unwrap();
    let end = of(dir.path(), &invocation('a')).end.unwrap();
    assert!(!end.returns_result && !end.stop_requested && end.last_line.is_none());
    assert_eq!(end.listening_at, None);
}

#[test]
fn a_record_of_a_later_version_is_read_without_what_it_adds() {
    let dir = tempfile::tempdir().unwrap();
    let mut text: serde_json::Value =
        serde_json::from_slice(&end_bytes(&end('a', 9, Exit::Status(7))).unwrap()).unwrap();
    text["added_later"] = serde_json::json!({ "bytes": 5 });
    let file = dir.path().join(format!("{}{END}", invocation('a')));
    fs::write(file, text.to_string()).unwrap();
    let records = of(dir.path(), &invocation('a'));
    assert_eq!(records.end, Some(end('a', 9, Exit::Status(7))));
}

#[test]
fn the_time_of_a_listener_is_taken_once_and_only_a_number_counts() {
    let dir = tempfile::tempdir().unwrap();
    let file = listening_file(dir.path(), &invocation('a'));
    for (text, wanted) in [
        ("1234", Some(1_234)),
        ("", None),
        ("soon", None),
        ("99999999999999999999999", None),
    ] {
        fs::write(&file, text).unwrap();
        let taken = take_listening(dir.path(), &invocation('a'));
        assert_eq!(taken, wanted.map(Timestamp::from_millis), "{text}");
        assert!(!file.exists());
    }
    assert_eq!(take_listening(dir.path(), &invocation('a')), None);
}

#[test]
fn the_last_line_of_a_runner_is_bounded_and_harmless_and_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = last_line_file(dir.path(), &invocation('a'));
    let long = format!("\u{1b}[2Jred\u{202e} {}\n", "x".repeat(5000));
    fs::write(&file, long).unwrap();
    let line = take_last_line(dir.path(), &invocation('a')).unwrap();
    assert!(
        line.starts_with("\\u{1b}[2Jred\\u{202e} xx") && line.ends_with("x…"),
        "{line}"
    );
    assert_eq!(line.chars().count(), MAX_LAST_LINE + 1);
    assert_eq!(terminal::plain(&line), line);
    assert!(!file.exists());
    assert_eq!(take_last_line(dir.path(), &invocation('a')), None);
}

#[test]
fn the_newest_start_may_be_later_than_the_newest_end() {
    let dir = tempfile::tempdir().unwrap();
    write_start(dir.path(), &start('b', 10)).unwrap();
    write_end(dir.path(), &end('b', 11, Exit::Status(0))).unwrap();
    write_start(dir.path(), &start('a', 20)).unwrap();
    let records = newest(dir.path()).unwrap();
    assert_eq!(records.start.unwrap().invocation, invocation('a'));
    assert_eq!(records.end.unwrap().invocation, invocation('b'));
}

#[test]
fn an_unreadable_record_is_reported_and_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    write_start(dir.path(), &start('a', 5)).unwrap();
    let bad = dir.path().join(format!("{}{START}", invocation('b')));
    fs::write(&bad, "{\"generation\":").unwrap();
    fs::write(dir.path().join("notes.txt"), "").unwrap();
    let records = newest(dir.path()).unwrap();
    assert_eq!(records.start, Some(start('a', 5)));
    assert_eq!(records.unreadable.len(), 1);
    assert_eq!(records.unreadable[0].file, bad);
}

#[test]
fn every_end_of_every_slot_is_found_with_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("ci-1"), dir.path().join("old-12"));
    for slot in [&one, &two, &dir.path().join("no slot")] {
        fs::create_dir(slot).unwrap();
    }
    write_start(&one, &start('a', 5)).unwrap();
    write_end(&one, &end('a', 9, Exit::Status(0))).unwrap();
    write_start(&one, &start('b', 10)).unwrap();
    write_end(&one, &end('b', 11, Exit::Status(1))).unwrap();
    write_start(&one, &start('c', 12)).unwrap();
    write_end(&two, &end('d', 3, Exit::Unknown)).unwrap();
    fs::write(two.join(format!("{}{END}", invocation('e'))), "{").unwrap();
    write_end(&dir.path().join("no slot"), &end('f', 1, Exit::Unknown)).unwrap();
    let mut ends = every_end(dir.path());
    ends.sort_by_key(|ended| ended.end.invocation.clone());
    let found: Vec<_> = ends
        .into_iter()
        .map(|ended| (ended.slot.to_string(), ended.start, ended.end))
        .collect();
    let expected = [
        (
            "ci-1".to_owned(),
            Some(start('a', 5)),
            end('a', 9, Exit::Status(0)),
        ),
        (
            "ci-1".to_owned(),
            Some(start('b', 10)),
            end('b', 11, Exit::Status(1)),
        ),
        ("old-12".to_owned(), None, end('d', 3, Exit::Unknown)),
    ];
    assert_eq!(found, expected);
    assert_eq!(every_end(&dir.path().join("nowhere")), []);
}

#[test]
fn a_slot_that_never_started_has_no_records() {
    let dir = tempfile::tempdir().unwrap();
    let records = newest(&dir.path().join("nowhere")).unwrap();
    assert!(records.start.is_none() && records.end.is_none());
}

#[test]
fn pruning_keeps_both_records_of_the_newest_starts() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".half"), "").unwrap();
    for (age, digit) in "0123456789".chars().enumerate() {
        write_start(dir.path(), &start(digit, age as u64)).unwrap();
        write_end(dir.path(), &end(digit, age as u64, Exit::Unknown)).unwrap();
        for kind in [START, END] {
            let file = dir.path().join(format!("{}{kind}", invocation(digit)));
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(age as u64);
            File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_modified(written)
                .unwrap();
        }
    }
    prune(dir.path()).unwrap();
    let mut left = entries(dir.path()).unwrap();
    left.sort();
    assert_eq!(left.len(), 16);
    assert!(left[0].starts_with("22"), "{left:?}");
}
