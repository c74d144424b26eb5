//! Keys, and the screens that follow, on a terminal of 80×24 cells in memory.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::list::{Subject, View};
use super::model::{MAX_LINES, Model, Request};
use super::screen::{Colours, draw};
use super::*;
use crate::status::{
    BackoffStatus, DaemonState, FailureKind, GitHubStatus, JobNote, JobStatus, PhaseEntry,
    PhaseKind, PoolStatus, RunnerStatus, Verdict, VerdictRecord, Wanted,
};

const NOW: u64 = 1_000_000;

fn runner(slot: &str, phase: PhaseKind, phase_ms: u64, age_ms: u64) -> RunnerStatus {
    RunnerStatus {
        age_ms,
        phase_ms,
        ..RunnerStatus::new(slot.parse().unwrap(), phase)
    }
}

fn ended(slot: &str, verdict: Verdict, ago_ms: u64) -> VerdictRecord {
    let json = serde_json::json!({
        "machine": slot, "verdict": verdict, "ended_unix_ms": NOW - ago_ms, "lived_ms": 9_000,
        "oom_kills": 0, "exit": "status 1", "last_line": "cannot connect",
    });
    serde_json::from_value(json).unwrap()
}

fn pool(name: &str, runners: Vec<RunnerStatus>) -> PoolStatus {
    let count = |phase: &PhaseKind| {
        let here = runners.iter().filter(|runner| runner.phase == *phase);
        (*phase, here.count() as u64)
    };
    PoolStatus {
        name: name.into(),
        wanted: Wanted {
            idle: 1,
            spare: 1,
            max: 8,
            ..Wanted::default()
        },
        phases: PhaseKind::ALL.iter().map(count).collect(),
        runners,
        ..PoolStatus::default()
    }
}

fn host() -> Status {
    let job = JobStatus {
        note: JobNote {
            repository: "acme/widgets".into(),
            workflow: "CI".into(),
            job: "test".into(),
            run_id: "17".into(),
        },
        running_ms: 61_000,
        timeout_ms: Some(3_600_000),
    };
    let busy = RunnerStatus {
        job: Some(job),
        runner: Some("box-ci-2-0000beef".into()),
        version: "2.336.0".parse().ok(),
        phases: vec![PhaseEntry {
            phase: PhaseKind::Booting,
            after_ms: 0,
        }],
        ..runner("ci-2", PhaseKind::Busy, 61_000, 90_000)
    };
    let ci = pool(
        "ci",
        vec![
            runner("ci-1", PhaseKind::Idle, 5_000, 400_000),
            busy,
            runner("ci-10", PhaseKind::Booting, 400, 400),
        ],
    );
    let fuzz = PoolStatus {
        backoffs: vec![BackoffStatus {
            failure: FailureKind::Forbidden,
            failures: 2,
            retry_in_ms: 35_000,
            reason: "GitHub answered 403".into(),
        }],
        ..pool(
            "fuzz",
            vec![runner("fuzz-1", PhaseKind::Spare, 9_000, 9_000)],
        )
    };
    Status {
        host: "box".into(),
        scope: "acme/widgets".into(),
        state: DaemonState::Running,
        at_unix_ms: NOW,
        github: GitHubStatus {
            last_ok_unix_ms: Some(NOW - 2_000),
            ..GitHubStatus::default()
        },
        pools: vec![ci, fuzz],
        recent: vec![
            ended("ci-4", Verdict::JobDone, 72_000),
            ended("fuzz-2", Verdict::RegistrationTimeout, 90_000),
        ],
        ..Status::default()
    }
}

fn model() -> Model {
    let mut model = Model::new(None);
    model.answered(Ok(host()));
    model
}

fn drawn_in(model: &Model, width: u16, height: u16, colours: Colours) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, model, NOW, colours))
        .unwrap();
    terminal.backend().buffer().clone()
}

/// Returns the lines of the screen without spaces at their ends.
fn screen(model: &Model) -> Vec<String> {
    let buffer = drawn_in(model, 80, 24, Colours(false));
    let width = usize::from(buffer.area.width);
    let rows = buffer.content.chunks(width);
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    };
    rows.map(line).collect()
}

fn press(model: &mut Model, code: KeyCode) -> Request {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_text(model: &mut Model, text: &str) {
    for c in text.chars() {
        press(model, KeyCode::Char(c));
    }
}

/// Returns the first cells of the list, in its order.
fn slots(model: &Model) -> Vec<String> {
    let rows = model.rows().into_iter();
    rows.map(|row| row.subject.slot.to_string()).collect()
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

#[test]
fn a_busy_host_looks_like_this() {
    let wanted = "\
box at acme/widgets: running, NOT healthy
! pool fuzz has no runner ready for a job: GitHub answered 403
! pool fuzz: GitHub refused permission twice, next try in 35 s; run `runner-cont
  GitHub answered 2.0 s ago
POOL  IDLE  SPARE  BUSY  STARTING  ENDING  ALL  FAILED
ci    1/1   0/1    1     1         0       3/8  0
fuzz  0/1   1/1    0     0         0       1/8  0
1 runners  2 ended  3 notices  4 rows, order: as listed
";
    let lines = screen(&model());
    for (line, wanted) in lines.iter().zip(wanted.lines()).take(8) {
        assert_eq!(line, wanted);
    }
    for text in ["> ci-1", "ci-10", "acme/widgets: CI / test"] {
        assert!(has(&lines, text), "{lines:#?}");
    }
    assert!(lines[23].starts_with("q quit"), "{lines:#?}");
}

#[test]
fn the_last_line_names_the_keys_of_each_view_and_fits_80_columns() {
    let mut model = model();
    for (key, text) in [
        (KeyCode::Null, "p pool"),
        (KeyCode::Char('2'), "p pool"),
        (KeyCode::Char('3'), "2 ended"),
    ] {
        press(&mut model, key);
        let last = screen(&model).pop().unwrap();
        assert!(last.starts_with("q quit") && last.ends_with(text), "{last}");
    }
    press(&mut model, KeyCode::Char('1'));
    press(&mut model, KeyCode::Enter);
    let last = screen(&model).pop().unwrap();
    assert!(last.contains("esc back"), "{last}");
}

#[test]
fn the_selection_stays_with_its_runner_when_the_list_changes() {
    let mut model = model();
    press(&mut model, KeyCode::Down);
    assert!(has(&screen(&model), "> ci-2"));
    let mut other = host();
    let first = runner("aaa-1", PhaseKind::Idle, 0, 0);
    other.pools.insert(0, pool("aaa", vec![first]));
    model.answered(Ok(other));
    assert!(has(&screen(&model), "> ci-2"));
    let mut without = host();
    without.pools[0].runners.remove(1);
    model.answered(Ok(without));
    assert!(has(&screen(&model), "> ci-1"));
    for _ in 0..50 {
        press(&mut model, KeyCode::Down);
    }
    assert!(has(&screen(&model), "> fuzz-1"));
    press(&mut model, KeyCode::Home);
    press(&mut model, KeyCode::Up);
    assert!(has(&screen(&model), "> ci-1"));
}

#[test]
fn a_list_is_sorted_by_each_column_and_reversed() {
    let mut model = model();
    let mut orders = Vec::new();
    for _ in 0..6 {
        press(&mut model, KeyCode::Char('s'));
        orders.push(slots(&model).join(" "));
    }
    assert_eq!(
        orders,
        [
            // By slot, as numbers.
            "ci-1 ci-2 ci-10 fuzz-1",
            // By state.
            "ci-10 ci-2 ci-1 fuzz-1",
            // By the time in the state, and by the age, the longest first.
            "ci-2 fuzz-1 ci-1 ci-10",
            "ci-1 ci-2 fuzz-1 ci-10",
            // By job.
            "ci-1 ci-10 fuzz-1 ci-2",
            // As listed.
            "ci-1 ci-2 ci-10 fuzz-1",
        ]
    );
    press(&mut model, KeyCode::Char('r'));
    assert_eq!(slots(&model).join(" "), "fuzz-1 ci-10 ci-2 ci-1");
    assert!(has(&screen(&model), "order: as listed, reversed"));
}

#[test]
fn a_filter_keeps_the_rows_that_contain_it_in_any_case() {
    let mut model = model();
    press(&mut model, KeyCode::Char('/'));
    // Keys of the list are text here.
    type_text(&mut model, "WIDGETSq");
    assert!(screen(&model)[23].starts_with("filter: WIDGETSq_"));
    assert_eq!(slots(&model), [] as [String; 0]);
    press(&mut model, KeyCode::Backspace);
    press(&mut model, KeyCode::Enter);
    assert_eq!(slots(&model), ["ci-2"]);
    assert!(has(
        &screen(&model),
        "1 rows, order: as listed, filter: WIDGETS"
    ));
    press(&mut model, KeyCode::Esc);
    assert_eq!(slots(&model).len(), 4);
    press(&mut model, KeyCode::Char('/'));
    type_text(&mut model, &"x".repeat(500));
    assert_eq!(model.filter.len(), 40);
    press(&mut model, KeyCode::Esc);
    assert_eq!((model.filter.as_str(), model.is_typing), ("", false));
}

#[test]
fn pools_are_shown_one_by_one_and_then_all() {
    let mut model = model();
    let mut shown = Vec::new();
    for _ in 0..3 {
        press(&mut model, KeyCode::Char('p'));
        shown.push((model.pool.clone(), slots(&model).len()));
    }
    assert_eq!(
        shown,
        [(Some("ci".into()), 3), (Some("fuzz".into()), 1), (None, 4)]
    );
}

#[test]
fn the_ended_runners_are_a_list_with_their_failures_marked() {
    let mut model = model();
    press(&mut model, KeyCode::Tab);
    assert_eq!(model.view, View::Ended);
    let lines = screen(&model);
    assert!(has(&lines, "> ci-4"), "{lines:#?}");
    assert!(has(&lines, "fuzz-2!"), "{lines:#?}");
    press(&mut model, KeyCode::Down);
    let request = press(&mut model, KeyCode::Enter);
    assert!(matches!(request, Request::ReadLog(subject) if subject.slot.to_string() == "fuzz-2"));
    let lines = screen(&model);
    assert!(
        has(
            &lines,
            "! it wrote \"cannot connect\"; run `runner-controller doctor`"
        ),
        "{lines:#?}"
    );
}

#[test]
fn a_detail_shows_the_runner_its_job_and_the_end_of_its_log() {
    let mut model = model();
    press(&mut model, KeyCode::Down);
    let request = press(&mut model, KeyCode::Enter);
    assert!(matches!(request, Request::ReadLog(subject) if subject.slot.to_string() == "ci-2"));
    for number in 0..50 {
        model.logged(&format!("line {number}"));
    }
    let lines = screen(&model);
    for text in [
        "ci-2: busy for 1 m 1 s, 1 m 30 s old, unit runner-ci@2.service",
        "at GitHub box-ci-2-0000beef, version 2.336.0",
        "job for 1 m 1 s, at most 1 h: acme/widgets: CI / test",
        "https://github.com/acme/widgets/actions/runs/17",
        "phases: booting at 0.0 s",
        "log of ci-2",
    ] {
        assert!(has(&lines, text), "{text} in {lines:#?}");
    }
    assert_eq!(lines[22], "line 49");
    press(&mut model, KeyCode::Up);
    assert_eq!(screen(&model)[22], "line 48");
    assert!(has(&screen(&model), "log of ci-2, 1 lines back"));
    // A log that is scrolled back does not move under the reader.
    model.logged("line 50");
    assert_eq!(screen(&model)[22], "line 48");
    press(&mut model, KeyCode::End);
    assert_eq!(screen(&model)[22], "line 50");
    model.log_ended("the journal has no further lines".into());
    assert_eq!(screen(&model)[22], "the journal has no further lines");
    assert_eq!(press(&mut model, KeyCode::Esc), Request::CloseLog);
    assert!(has(&screen(&model), "> ci-2"));
}

#[test]
fn a_detail_tells_the_end_of_its_runner() {
    let mut model = model();
    let mut with_id = host();
    let invocation = crate::status::Invocation::parse(&"a".repeat(32));
    with_id.pools[0].runners[0]
        .invocation
        .clone_from(&invocation);
    model.answered(Ok(with_id));
    press(&mut model, KeyCode::Enter);
    let mut without = host();
    without.pools[0].runners.remove(0);
    model.answered(Ok(without.clone()));
    assert!(has(&screen(&model), "ci-1: this runner has ended"));
    // The next runner of the slot is another one.
    let next = crate::status::Invocation::parse(&"b".repeat(32));
    let mut end = ended("ci-1", Verdict::Ghost, 500);
    end.invocation = invocation;
    without.recent.insert(0, end);
    let other = RunnerStatus {
        invocation: next,
        ..runner("ci-1", PhaseKind::Booting, 1, 1)
    };
    without.pools[0].runners.push(other);
    model.answered(Ok(without));
    assert!(has(&screen(&model), "ci-1: ghost 0.5 s ago after 9.0 s"));
}

#[test]
fn a_log_is_bounded() {
    let mut model = model();
    press(&mut model, KeyCode::Enter);
    for number in 0..(MAX_LINES + 10) {
        model.logged(&format!("{number}{}", "x".repeat(100_000)));
    }
    let log = &model.detail.as_ref().unwrap().log;
    assert_eq!(log.len(), MAX_LINES);
    assert!(log.iter().all(|line| line.len() <= 1_000));
    assert!(log[0].starts_with("10x"));
}

#[test]
fn a_daemon_that_does_not_answer_is_told_above_the_last_status() {
    let mut model = Model::new(None);
    assert!(has(&screen(&model), "waiting for the daemon"));
    model.answered(Err("no daemon listens on /run/x".into()));
    assert_eq!(screen(&model)[1], "! no daemon listens on /run/x");
    model.answered(Ok(host()));
    assert!(!has(&screen(&model), "no daemon"));
    model.answered(Err("silent".into()));
    let line = "! silent (below: the status of 0.0 s ago)";
    assert_eq!(screen(&model)[1], line);
    assert!(has(&screen(&model), "> ci-1"));
}

#[test]
fn hostile_text_cannot_control_the_terminal() {
    let mut hostile = host();
    let evil = "\u{1b}[2J\u{9b}31m\u{202e}\u{7}x";
    hostile.pools[0].runners[0].runner = Some(evil.into());
    hostile.notes.push(evil.into());
    hostile.recent[1].last_line = Some(evil.into());
    let safe = terminal::plain_document(&hostile).unwrap();
    let mut model = model();
    model.answered(Ok(safe));
    for keys in [
        vec![],
        vec![KeyCode::Char('3')],
        vec![KeyCode::Char('1'), KeyCode::Enter],
    ] {
        for key in keys {
            press(&mut model, key);
        }
        model.logged(evil);
        model.log_ended(evil.into());
        let text = screen(&model).join("");
        assert_eq!(terminal::plain(&text), text);
    }
    model.answered(Err(evil.into()));
    let text = screen(&model).join("");
    assert_eq!(terminal::plain(&text), text);
    assert!(text.contains("! \\u{1b}[2J\\u{9b}31m\\u{202e}\\u{7}x"));
}

#[test]
fn a_problem_has_a_mark_and_colours_only_where_they_are_wanted() {
    let model = model();
    let colour_of = |colours| {
        let buffer = drawn_in(&model, 80, 24, colours);
        (buffer[(0, 1)].symbol().to_owned(), buffer[(0, 1)].fg)
    };
    assert_eq!(colour_of(Colours(true)), ("!".into(), Color::Red));
    assert_eq!(colour_of(Colours(false)), ("!".into(), Color::Reset));
    let plain = drawn_in(&model, 80, 24, Colours(false));
    let is_plain =
        |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
    assert!(plain.content.iter().all(is_plain));
}

#[test]
fn every_size_of_a_terminal_is_drawn() {
    let mut model = model();
    for _ in 0..20 {
        let more = runner("ci-1", PhaseKind::Idle, 0, 0);
        let mut status = host();
        status.pools.push(pool("more", vec![more]));
        status.notes = vec!["note".into(); 40];
        model.answered(Ok(status));
    }
    for keys in [
        vec![],
        vec![KeyCode::Char('3')],
        vec![KeyCode::Char('1'), KeyCode::Enter],
    ] {
        for key in keys {
            press(&mut model, key);
        }
        for (width, height) in [(0, 0), (1, 1), (5, 3), (20, 5), (80, 24), (300, 100)] {
            drawn_in(&model, width, height, Colours(true));
        }
    }
}

#[test]
fn notices_that_do_not_fit_are_counted_and_scroll_in_their_own_view() {
    let mut model = model();
    let mut status = host();
    status.notes = (0..60).map(|number| format!("number {number}")).collect();
    model.answered(Ok(status));
    let lines = screen(&model);
    assert!(has(&lines, "more: press 3"), "{lines:#?}");
    assert!(has(&lines, "> ci-1"), "{lines:#?}");
    press(&mut model, KeyCode::Char('3'));
    assert!(has(&screen(&model), "note: number 0"));
    press(&mut model, KeyCode::End);
    let lines = screen(&model);
    assert!(
        !has(&lines, "number 0") && has(&lines, "number 59"),
        "{lines:#?}"
    );
}

#[test]
fn q_and_control_c_end_the_screen() {
    let mut model = model();
    assert_eq!(press(&mut model, KeyCode::Char('q')), Request::Quit);
    press(&mut model, KeyCode::Enter);
    assert_eq!(press(&mut model, KeyCode::Char('q')), Request::Quit);
    press(&mut model, KeyCode::Esc);
    press(&mut model, KeyCode::Char('/'));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.press(control_c), Request::Quit);
}

#[test]
fn only_the_hosts_journal_is_read() {
    let with = |invocation: Option<&str>| {
        let subject = Subject {
            slot: "ci-3".parse().unwrap(),
            invocation: invocation.and_then(crate::status::Invocation::parse),
        };
        log::arguments(&subject).join(" ")
    };
    assert_eq!(
        with(None),
        "--quiet --follow --output=short --no-hostname --lines=500 --unit=runner-ci@3.service"
    );
    let id = "0123456789abcdef0123456789abcdef";
    assert!(with(Some(id)).ends_with(&format!(
        "--lines=500 _SYSTEMD_INVOCATION_ID={id} + INVOCATION_ID={id}"
    )));
}
