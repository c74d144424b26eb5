//! The line of the job-started hook: `v1\t<repository>\t<run id>\t<job>\t<workflow>\n`.

use crate::world::JobNote;

/// Maximum number of bytes that are read of a line, its newline included.
pub(crate) const MAX_LINE: usize = 512;

const MAX_REPOSITORY: usize = 140;
const MAX_RUN_ID: usize = 20;
const MAX_NAME: usize = 100;

/// Malformed line. It still means that a job has started, because only this container can write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoteError {
    /// The line does not begin with `v1` and a tab.
    #[error("the line is not of version 1")]
    Version,
    /// The line has fewer than five fields.
    #[error("the line has fewer than five fields")]
    Fields,
}

/// Parses the first line of `bytes`, with or without its newline.
///
/// Each field keeps printable ASCII alone, and the run id digits alone, up to the length that [`JobNote`]
/// promises. Jobs are untrusted, and these texts are shown on terminals and pages.
pub(crate) fn parse(bytes: &[u8]) -> Result<JobNote, NoteError> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    let mut fields = line.splitn(5, |byte| *byte == b'\t');
    if fields.next() != Some(b"v1") {
        return Err(NoteError::Version);
    }
    let mut next = || fields.next().ok_or(NoteError::Fields);
    Ok(JobNote {
        repository: filtered(next()?, MAX_REPOSITORY, printable),
        run_id: filtered(next()?, MAX_RUN_ID, |byte| byte.is_ascii_digit()),
        job: filtered(next()?, MAX_NAME, printable),
        workflow: filtered(next()?, MAX_NAME, printable),
    })
}

fn printable(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}

fn filtered(field: &[u8], max: usize, keep: impl Fn(u8) -> bool) -> String {
    field
        .iter()
        .filter(|byte| keep(**byte))
        .take(max)
        .map(|byte| char::from(*byte))
        .collect()
}

/// Panics unless a note keeps the promises of [`parse`].
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
    fn a_note_is_parsed_from_its_line() {
        let note = parse(b"v1\tacme/app\t12345\tbuild\tCI on push\nsecond line").unwrap();
        assert_eq!(note.repository, "acme/app");
        assert_eq!(note.run_id, "12345");
        assert_eq!(note.job, "build");
        assert_eq!(note.workflow, "CI on push");
    }

    #[test]
    fn unprintable_characters_are_removed_and_long_fields_are_cut() {
        let line = format!("v1\ta\x1b[31m/b\t1x2\t{}\tW\u{e4}h\trest", "j".repeat(150));
        let note = parse(line.as_bytes()).unwrap();
        assert_eq!(note.repository, "a[31m/b");
        assert_eq!(note.run_id, "12");
        assert_eq!(note.job.len(), 100);
        assert_eq!(note.workflow, "Whrest");
    }

    #[test]
    fn a_malformed_line_is_an_error() {
        assert_eq!(parse(b""), Err(NoteError::Version));
        assert_eq!(parse(b"v2\ta\t1\tb\tc\n"), Err(NoteError::Version));
        assert_eq!(parse(b"v1\ta\t1\tb\n"), Err(NoteError::Fields));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_bounded_note_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let prefixed = [b"v1\t".as_slice(), &bytes].concat();
            for input in [&bytes, &prefixed] {
                if let Ok(note) = parse(input) {
                    ensure_bounded(&note);
                }
            }
        }
    }
}
