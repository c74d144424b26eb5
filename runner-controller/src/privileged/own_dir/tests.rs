use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::files::{MAX_ENTRIES, MAX_FILES};
use super::text::{MAX_FILE_BYTES, MAX_TEXT_BYTES};
use super::*;
use crate::pool::ResourceUse;
use crate::redact::Redactor;
use crate::world::Invocation;

fn end(exit: Exit) -> EndRecord {
    EndRecord {
        invocation: Invocation::parse(&"0".repeat(32)).unwrap(),
        service_result: "success".into(),
        exit,
        memory_peak_bytes: None,
        oom_kills: 0,
        cpu_ms: None,
        usage: ResourceUse::default(),
        listening_at: None,
        stop_requested: false,
        returns_result: true,
        last_line: None,
        at: crate::pool::Timestamp::from_millis(1),
    }
}

/// Returns a directory with `_diag` in it, as the upper layer of an overlay has it.
fn tree() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let diag = dir.path().join("upper/_diag");
    fs::create_dir_all(&diag).unwrap();
    (dir, diag)
}

fn names(dir: &Path) -> Vec<String> {
    let files = files::open(dir).unwrap();
    files.into_iter().map(|(name, _)| name).collect()
}

fn bundle(dir: &Path) -> String {
    let redactor = Redactor::new(std::iter::empty()).unwrap();
    text::of_files("head\n", files::open(dir).unwrap(), &redactor)
}

#[test]
fn ends_that_are_kept_are_those_of_failures() {
    let stopped = |line: &str| EndRecord {
        stop_requested: true,
        last_line: Some(line.to_owned()),
        ..end(Exit::Status(143))
    };
    let listening = "2026-11-30 00:00:00Z: Listening for Jobs";
    let timed_out = EndRecord {
        service_result: "timeout".into(),
        ..stopped(listening)
    };
    let killed = |line: &str, oom_kills| EndRecord {
        service_result: "signal".into(),
        last_line: Some(line.to_owned()),
        oom_kills,
        ..end(Exit::Signal("KILL".into()))
    };
    for (end, is_failure) in [
        (killed(listening, 0), false),
        (
            killed("The runner no longer exists on the server. Please", 0),
            false,
        ),
        (killed(listening, 1), true),
        (killed("Running job: test", 0), true),
        (end(Exit::Status(100)), false),
        (end(Exit::Status(103)), false),
        (stopped(listening), false),
        (end(Exit::Status(102)), true),
        (end(Exit::Status(105)), true),
        (end(Exit::Status(0)), true),
        (end(Exit::Status(1)), true),
        (end(Exit::Signal("KILL".into())), true),
        (end(Exit::Unknown), true),
        (stopped("Running job: test"), true),
        (timed_out, true),
    ] {
        assert_eq!(is_kept(KeptLogs::Failed, &end), is_failure, "{end:?}");
        assert!(is_kept(KeptLogs::All, &end));
        assert!(!is_kept(KeptLogs::None, &end));
    }
}

#[test]
fn the_listeners_files_come_first_and_their_number_is_bounded() {
    let (dir, diag) = tree();
    for name in ["a.log", "b.log", "c.log", "Worker_1.log", "Runner_1.log"] {
        fs::write(diag.join(name), "x").unwrap();
    }
    let found = names(dir.path());
    assert_eq!(found[..2], ["Runner_1.log", "Worker_1.log"]);
    assert_eq!(found.len(), MAX_FILES);
    // A directory without an overlay has the files at its top.
    fs::rename(&diag, dir.path().join("_diag")).unwrap();
    assert_eq!(names(dir.path()), found);
    assert_eq!(names(&dir.path().join("absent")), [""; 0]);
}

#[test]
fn only_regular_files_with_one_plain_name_are_opened() {
    let (dir, diag) = tree();
    let secret = dir.path().join("upper/.credentials_rsaparams");
    fs::write(&secret, "the runner's key").unwrap();
    symlink(&secret, diag.join("Runner_link.log")).unwrap();
    symlink("/etc/passwd", diag.join("Runner_passwd.log")).unwrap();
    fs::hard_link(&secret, diag.join("Runner_second.log")).unwrap();
    mkfifo(&diag.join("Runner_pipe.log"), Mode::S_IRWXU).unwrap();
    fs::create_dir(diag.join("Runner_dir.log")).unwrap();
    for name in [
        "Runner_\u{1b}[2J.log",
        "Runner_a b.log",
        ".log",
        "Runner.txt",
        "-x.log",
    ] {
        fs::write(diag.join(name), "x").unwrap();
    }
    fs::write(diag.join(format!("{}.log", "n".repeat(200))), "x").unwrap();
    fs::write(diag.join("Runner_good.log"), "x").unwrap();
    assert_eq!(names(dir.path()), ["Runner_good.log"]);
}

#[test]
fn a_directory_that_a_job_replaced_is_not_followed() {
    let (dir, diag) = tree();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("Runner_1.log"), "x").unwrap();
    fs::remove_dir(&diag).unwrap();
    symlink(elsewhere.path(), &diag).unwrap();
    assert_eq!(names(dir.path()), [""; 0]);
    fs::remove_file(&diag).unwrap();
    fs::remove_dir(dir.path().join("upper")).unwrap();
    fs::create_dir(elsewhere.path().join("_diag")).unwrap();
    fs::write(elsewhere.path().join("_diag/Runner_1.log"), "x").unwrap();
    symlink(elsewhere.path(), dir.path().join("upper")).unwrap();
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_directory_with_many_files_is_read_in_part() {
    let (dir, diag) = tree();
    for number in 0..MAX_ENTRIES * 20 {
        fs::File::create(diag.join(format!("Runner_{number}.log"))).unwrap();
    }
    assert_eq!(names(dir.path()).len(), MAX_FILES);
}

#[test]
fn a_file_of_any_size_is_read_from_its_end_in_bounds() {
    let (dir, diag) = tree();
    let mut sparse = fs::File::create(diag.join("Runner_1.log")).unwrap();
    sparse.seek(SeekFrom::Start(1 << 40)).unwrap();
    sparse.write_all(b"\nlast line\n").unwrap();
    let text = bundle(dir.path());
    assert!(text.ends_with("last line\n"), "{}", &text[..100]);
    assert!(text.contains("==> Runner_1.log (1099511627787 bytes) <=="));
    assert!(text.len() <= MAX_TEXT_BYTES + 100);
}

#[test]
fn an_entry_whose_beginning_is_cut_off_is_left_out() {
    let (dir, diag) = tree();
    let key = format!(
        "-----BEGIN RSA PRIVATE KEY-----\n{}",
        "Qk1YzA9w\n".repeat(MAX_FILE_BYTES / 9)
    );
    fs::write(
        diag.join("Runner_1.log"),
        format!("[old]\n{key}\n[new] entry\n"),
    )
    .unwrap();
    let text = bundle(dir.path());
    assert!(text.ends_with("<==\n[new] entry\n"), "{text}");
}

#[test]
fn a_bundle_has_no_secret_and_no_control_of_a_terminal() {
    let (dir, diag) = tree();
    let token = "ghs_0123456789abcdefghijABCDEFGHIJ";
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhYmMifQ.c2lnbmF0dXJl";
    let lines = format!(
        "[1] sent {token}\n[2] Authorization: Bearer {jwt}\n[3] \u{1b}]0;x\u{7} \u{202e}\r\n[4] {{\"d\":\"{}\"}}\n",
        "Ab0-_".repeat(40)
    );
    fs::write(diag.join("Runner_1.log"), lines).unwrap();
    let text = bundle(dir.path());
    for secret in [token, jwt, "Ab0-_Ab0-_", "\u{1b}", "\u{202e}", "\r"] {
        assert!(!text.contains(secret), "{secret:?} is in {text}");
    }
    assert!(text.contains("[1] sent [redacted]\n"), "{text}");
    assert!(text.contains("[3] \\u{1b}]0;x\\u{7} \\u{202e}"), "{text}");
}

#[test]
fn no_text_makes_a_bundle_longer_than_its_bound() {
    let redactor = Redactor::new(std::iter::empty()).unwrap();
    for part in ["\0", "a:", "--", "token=", "://a", "\u{1b}", "\n"] {
        let (dir, diag) = tree();
        for number in 0..MAX_FILES {
            let text = part.repeat(MAX_FILE_BYTES / part.len());
            fs::write(diag.join(format!("Runner_{number}.log")), text).unwrap();
        }
        let text = text::of_files("", files::open(dir.path()).unwrap(), &redactor);
        assert!(text.len() <= MAX_FILES * (MAX_TEXT_BYTES + 100), "{part:?}");
    }
}
