//! The one line a job-started hook writes: `v1\t<repository>\t<run id>\t<job>\t<workflow>\n`.

use crate::world::JobNote;

/// The most that is read of a line, its newline included.
pub const MAX_LINE: usize = 512;

const MAX_REPOSITORY: usize = 140;
const MAX_RUN_ID: usize = 20;
const MAX_NAME: usize = 100;

/// Why a line is not a note. It still tells that a job has started: nobody but this container can
/// write there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotANote {
    /// It does not begin with `v1` and a tab.
    #[error("not a line of version 1")]
    Version,
    /// It has fewer than five fields.
    #[error("fewer than five fields")]
    Fields,
}

/// Reads a note from the first line of `bytes`, with or without its newline.
///
/// Of each field only printable ASCII is kept (of the run id only digits), cut to the length that
/// [`JobNote`] promises: what a job says of itself is shown on terminals and pages.
pub fn parse(bytes: &[u8]) -> Result<JobNote, NotANote> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    let mut fields = line.splitn(5, |byte| *byte == b'\t');
    if fields.next() != Some(b"v1") {
        return Err(NotANote::Version);
    }
    let mut next = || fields.next().ok_or(NotANote::Fields);
    Ok(JobNote {
        repository: kept(next()?, MAX_REPOSITORY, printable),
        run_id: kept(next()?, MAX_RUN_ID, |byte| byte.is_ascii_digit()),
        job: kept(next()?, MAX_NAME, printable),
        workflow: kept(next()?, MAX_NAME, printable),
    })
}

fn printable(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}

fn kept(field: &[u8], max: usize, keep: impl Fn(u8) -> bool) -> String {
    field
        .iter()
        .filter(|byte| keep(**byte))
        .take(max)
        .map(|byte| char::from(*byte))
        .collect()
}

/// Panics unless a note is as short and as plain as [`parse`] promises.
#[cfg(any(test, fuzzing))]
pub(super) fn ensure_bounded(note: &JobNote) {
    assert!(note.run_id.len() <= MAX_RUN_ID);
    assert!(note.run_id.bytes().all(|byte| byte.is_ascii_digit()));
    for (text, max) in [
        (&note.repository, MAX_REPOSITORY),
        (&note.job, MAX_NAME),
        (&note.workflow, MAX_NAME),
    ] {
        assert!(text.len() <= max && text.bytes().all(printable), "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_note_is_read_from_its_line() {
        let note = parse(b"v1\tacme/app\t12345\tbuild\tCI on push\nsecond line").unwrap();
        assert_eq!(note.repository, "acme/app");
        assert_eq!(note.run_id, "12345");
        assert_eq!(note.job, "build");
        assert_eq!(note.workflow, "CI on push");
    }

    #[test]
    fn what_is_not_printable_is_left_out_and_what_is_long_is_cut() {
        let line = format!("v1\ta\x1b[31m/b\t1x2\t{}\tW\u{e4}h\trest", "j".repeat(150));
        let note = parse(line.as_bytes()).unwrap();
        assert_eq!(note.repository, "a[31m/b");
        assert_eq!(note.run_id, "12");
        assert_eq!(note.job.len(), 100);
        assert_eq!(note.workflow, "Whrest");
    }

    #[test]
    fn garbage_is_told_apart() {
        assert_eq!(parse(b""), Err(NotANote::Version));
        assert_eq!(parse(b"v2\ta\t1\tb\tc\n"), Err(NotANote::Version));
        assert_eq!(parse(b"v1\ta\t1\tb\n"), Err(NotANote::Fields));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_bounded_note_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let prefixed = [b"v1\t".as_slice(), &bytes].concat();
            for input in [&bytes, &prefixed] {
                if let Ok(note) = parse(input) {
                    ensure_bounded(&note);
                }
            }
        }
    }
}
