//! Frames: what the terminal shows, and how long.

use std::num::NonZeroU16;
use std::time::Duration;

/// Minimum duration of a frame. Faster changes are one frame, which bounds the size of the picture.
const SHORTEST: Duration = Duration::from_millis(400);
/// Maximum duration of a frame, except the last. Longer pauses, such as a build, are cut.
const LONGEST: Duration = Duration::from_millis(1500);
/// Duration of the last frame, which has the result.
const LAST: Duration = Duration::from_secs(8);

/// Output of the command, and the time since its start.
pub(super) struct Output {
    pub(super) at: Duration,
    pub(super) bytes: Vec<u8>,
}

/// The screen during a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Rows from top to bottom, without trailing space.
    pub(super) rows: Vec<String>,
    pub(super) lasts: Duration,
}

/// Returns the frames of a recording.
pub(super) fn frames(outputs: &[Output], rows: NonZeroU16, columns: NonZeroU16) -> Vec<Frame> {
    let mut terminal = vt100::Parser::new(rows, columns, 0);
    let mut frames: Vec<Frame> = Vec::new();
    for (number, output) in outputs.iter().enumerate() {
        terminal.process(&output.bytes);
        let next = outputs.get(number + 1);
        let lasts = next.map_or(LAST, |next| next.at.saturating_sub(output.at));
        let shown = terminal
            .screen()
            .rows(0, columns.get())
            .map(|row| row.trim_end().to_owned())
            .collect();
        match frames.last_mut() {
            Some(frame) if frame.rows == shown => frame.lasts += lasts,
            Some(frame) if frame.lasts < SHORTEST => {
                frame.rows = shown;
                frame.lasts += lasts;
            }
            Some(_) | None => frames.push(Frame { rows: shown, lasts }),
        }
    }
    let [pauses @ .., last] = &mut frames[..] else {
        return frames;
    };
    for frame in pauses {
        frame.lasts = frame.lasts.min(LONGEST);
    }
    last.lasts = LAST;
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(outputs: &[(u64, &str)]) -> Vec<(String, u64)> {
        let outputs: Vec<Output> = outputs
            .iter()
            .map(|(millis, text)| Output {
                at: Duration::from_millis(*millis),
                bytes: text.as_bytes().to_vec(),
            })
            .collect();
        let size = |size| NonZeroU16::new(size).unwrap();
        frames(&outputs, size(2), size(20))
            .into_iter()
            .map(|frame| {
                let millis = u64::try_from(frame.lasts.as_millis()).unwrap();
                (frame.rows.join("|"), millis)
            })
            .collect()
    }

    #[test]
    fn a_line_that_is_written_over_shows_only_its_last_text() {
        let frames = shown(&[(0, "working"), (500, "\r\x1b[Kdone\r\n")]);
        assert_eq!(frames, [("working|".into(), 500), ("done|".into(), 8000)]);
    }

    #[test]
    fn quick_changes_are_one_frame_and_long_pauses_are_cut() {
        let frames = shown(&[(0, "a"), (100, "b"), (90_000, "c")]);
        assert_eq!(frames, [("ab|".into(), 1500), ("abc|".into(), 8000)]);
    }

    #[test]
    fn a_full_screen_scrolls() {
        let frames = shown(&[(0, "1\r\n2\r\n3")]);
        assert_eq!(frames, [("2|3".into(), 8000)]);
    }
}
