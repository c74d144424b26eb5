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
    /// Rows from top to bottom.
    pub(super) rows: Vec<Row>,
    pub(super) lasts: Duration,
}

/// Texts of one row, from left to right, without trailing space. Neighbours have different styles.
pub(super) type Row = Vec<Text>;

/// Characters that follow each other in one style.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text {
    /// Column of the first character.
    pub(super) column: u16,
    pub(super) characters: String,
    pub(super) style: Style,
}

/// Appearance of characters. Colours are the terminal's numbers, 0 to 15.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Style {
    pub(super) colour: Option<u8>,
    pub(super) is_bold: bool,
    pub(super) is_dim: bool,
    pub(super) is_inverse: bool,
}

/// Returns what a screen shows.
pub(super) fn rows(screen: &vt100::Screen) -> Vec<Row> {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let row = |row| -> Row {
        let mut texts: Row = Vec::new();
        let cells = (0..columns).filter_map(|column| Some((column, screen.cell(row, column)?)));
        for (column, cell) in cells.filter(|(_, cell)| !cell.is_wide_continuation()) {
            let style = Style::of(cell);
            let characters = if cell.has_contents() {
                cell.contents()
            } else {
                " "
            };
            match texts.last_mut() {
                Some(text) if text.style == style => text.characters.push_str(characters),
                Some(_) | None => texts.push(Text {
                    column,
                    characters: characters.to_owned(),
                    style,
                }),
            }
        }
        if let Some(last) = texts.last_mut()
            && !last.style.is_inverse
        {
            last.characters.truncate(last.characters.trim_end().len());
        }
        texts.retain(|text| !text.characters.is_empty());
        texts
    };
    (0..rows).map(row).collect()
}

impl Style {
    fn of(cell: &vt100::Cell) -> Self {
        Self {
            colour: match cell.fgcolor() {
                vt100::Color::Idx(number @ 0..=15) => Some(number),
                vt100::Color::Default | vt100::Color::Idx(_) | vt100::Color::Rgb(..) => None,
            },
            is_bold: cell.bold(),
            is_dim: cell.dim(),
            is_inverse: cell.inverse(),
        }
    }
}

/// Returns the frames of a recording.
pub(super) fn frames(outputs: &[Output], height: NonZeroU16, columns: NonZeroU16) -> Vec<Frame> {
    let mut terminal = vt100::Parser::new(height, columns, 0);
    let mut frames: Vec<Frame> = Vec::new();
    for (number, output) in outputs.iter().enumerate() {
        terminal.process(&output.bytes);
        let next = outputs.get(number + 1);
        let lasts = next.map_or(LAST, |next| next.at.saturating_sub(output.at));
        let shown = rows(terminal.screen());
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
                let rows = frame.rows.into_iter().map(|row| match &row[..] {
                    [] => String::new(),
                    [text] => text.characters.clone(),
                    more => format!("{more:?}"),
                });
                (rows.collect::<Vec<_>>().join("|"), millis)
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
    fn a_row_has_a_text_for_each_style() {
        let size = |size| NonZeroU16::new(size).unwrap();
        let mut terminal = vt100::Parser::new(size(1), size(12), 0);
        terminal.process(b"ab\x1b[1;31mcd\x1b[0m  \x1b[7mef \x1b[0m");
        let [row] = &rows(terminal.screen())[..] else {
            panic!("one row");
        };
        let texts: Vec<_> = (row.iter())
            .map(|text| (text.column, text.characters.as_str(), text.style))
            .collect();
        let (plain, inverse) = (
            Style::default(),
            Style {
                is_inverse: true,
                ..Style::default()
            },
        );
        let red = Style {
            colour: Some(1),
            is_bold: true,
            ..plain
        };
        let wanted = [
            (0, "ab", plain),
            (2, "cd", red),
            (4, "  ", plain),
            (6, "ef ", inverse),
        ];
        assert_eq!(texts, wanted);
    }

    #[test]
    fn a_full_screen_scrolls() {
        let frames = shown(&[(0, "1\r\n2\r\n3")]);
        assert_eq!(frames, [("2|3".into(), 8000)]);
    }
}
