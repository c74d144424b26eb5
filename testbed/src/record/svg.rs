//! A recording as an SVG without scripts: the frames are a film strip, and a style sheet moves it.
//!
//! A reader that does not animate, or that prefers reduced motion, shows the last frame.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::num::NonZeroU16;

use super::frames::{Frame, Row, Style, Text};

/// Width of a character at the font size of 13 pixels, in tenths of a pixel.
const CHARACTER_WIDTH: u32 = 78;
const LINE_HEIGHT: u32 = 18;
const MARGIN: u32 = 14;
const BACKGROUND: &str = "#0d1117";
const FOREGROUND: &str = "#e6edf3";
/// Colours of a terminal, 0 to 15.
const COLOURS: [&str; 16] = [
    "#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4",
    "#6e7681", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#ffffff",
];

/// Returns the picture of a recording of `command`.
pub(super) fn render(frames: &[Frame], columns: NonZeroU16, command: &str) -> String {
    let rows = frames.first().map_or(0, |frame| frame.rows.len());
    let width = u32::from(columns.get()) * CHARACTER_WIDTH / 10 + 2 * MARGIN;
    let height = u32::try_from(rows).unwrap_or(u32::MAX) * LINE_HEIGHT + 2 * MARGIN;
    let command = escaped(command);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="Recording of {command}">
<style>
text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: {FOREGROUND}; white-space: pre }}
.film {{ transform: translateX(-{end}px); animation: play {seconds:.2}s step-end infinite }}
{moves}@media (prefers-reduced-motion: reduce) {{ .film {{ animation: none }} }}
</style>
<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>
"#,
        end = position(frames.len().saturating_sub(1), width),
        seconds = seconds(frames),
        moves = keyframes(frames, width),
    );
    let lines = lines(frames);
    svg += "<defs>\n";
    for (row, number) in &lines {
        svg += &line(row, *number);
    }
    svg += "</defs>\n<g class=\"film\">\n";
    for (number, frame) in frames.iter().enumerate() {
        let x = position(number, width) + MARGIN;
        for (row, text) in frame.rows.iter().enumerate() {
            if let Some(line) = lines.get(text) {
                let row = u32::try_from(row).unwrap_or(u32::MAX);
                let y = MARGIN + row * LINE_HEIGHT + 13;
                let _ = writeln!(svg, r##"<use href="#l{line}" x="{x}" y="{y}"/>"##);
            }
        }
    }
    svg += "</g>\n</svg>\n";
    svg
}

/// Returns the position of a frame on the film strip. Frames are a picture's width apart, so that only
/// one is in view.
fn position(number: usize, width: u32) -> u32 {
    u32::try_from(number)
        .unwrap_or(u32::MAX)
        .saturating_mul(width)
}

fn seconds(frames: &[Frame]) -> f64 {
    frames.iter().map(|frame| frame.lasts.as_secs_f64()).sum()
}

fn keyframes(frames: &[Frame], width: u32) -> String {
    let all = seconds(frames).max(f64::MIN_POSITIVE);
    let mut text = String::from("@keyframes play {\n");
    let mut begin = 0.0;
    for (number, frame) in frames.iter().enumerate() {
        let percent = begin / all * 100.0;
        let x = position(number, width);
        let _ = writeln!(text, "{percent:.3}% {{ transform: translateX(-{x}px) }}");
        begin += frame.lasts.as_secs_f64();
    }
    text += "}\n";
    text
}

/// Returns every line that a frame shows, once, with a number. Empty lines need no element.
fn lines(frames: &[Frame]) -> BTreeMap<&Row, usize> {
    let mut lines = BTreeMap::new();
    for row in frames.iter().flat_map(|frame| &frame.rows) {
        if !row.is_empty() {
            let next = lines.len();
            lines.entry(row).or_insert(next);
        }
    }
    lines
}

/// Returns the element of a line: one text if it has one plain style, otherwise a group.
fn line(row: &Row, number: usize) -> String {
    if let [text] = &row[..]
        && text.style == Style::default()
    {
        let characters = escaped(&text.characters);
        return format!("<text id=\"l{number}\" xml:space=\"preserve\">{characters}</text>\n");
    }
    let texts: String = row.iter().map(styled).collect();
    format!("<g id=\"l{number}\">{texts}</g>\n")
}

fn styled(text: &Text) -> String {
    let column = |number: usize| u32::try_from(number).unwrap_or(u32::MAX) * CHARACTER_WIDTH / 10;
    let x = column(usize::from(text.column));
    let colour = |number: u8| COLOURS.get(usize::from(number)).copied();
    let own = text.style.colour.and_then(colour).unwrap_or(FOREGROUND);
    let width = column(text.characters.chars().count());
    let (block, fill) = if text.style.is_inverse {
        let block = format!(
            r#"<rect x="{x}" y="-13" width="{width}" height="{LINE_HEIGHT}" fill="{own}"/>"#
        );
        (block, BACKGROUND)
    } else {
        (String::new(), own)
    };
    let bold = if text.style.is_bold {
        r#" font-weight="bold""#
    } else {
        ""
    };
    let dim = if text.style.is_dim {
        r#" opacity="0.6""#
    } else {
        ""
    };
    let characters = escaped(&text.characters);
    // A style sheet goes before an attribute, so the colour is a style.
    format!(
        r#"{block}<text x="{x}" textLength="{width}" style="fill:{fill}"{bold}{dim} xml:space="preserve">{characters}</text>"#
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn plain(text: &str) -> Row {
        vec![Text {
            column: 0,
            characters: text.to_owned(),
            style: Style::default(),
        }]
    }

    fn picture(texts: &[&str]) -> String {
        let frames: Vec<Frame> = texts
            .iter()
            .map(|text| Frame {
                rows: vec![plain(text), Row::new()],
                lasts: Duration::from_secs(1),
            })
            .collect();
        render(&frames, NonZeroU16::new(10).unwrap(), "demo")
    }

    #[test]
    fn output_cannot_add_elements() {
        let svg = picture(&["</text><script>&"]);
        assert!(svg.contains("&lt;/text&gt;&lt;script&gt;&amp;<"), "{svg}");
        assert!(!svg.contains("<script"));
    }

    #[test]
    fn a_style_is_a_colour_and_a_block_behind_the_text() {
        let text = Text {
            column: 10,
            characters: "<b>".into(),
            style: Style {
                colour: Some(1),
                is_inverse: true,
                ..Style::default()
            },
        };
        let line = line(&vec![text], 7);
        assert!(line.starts_with("<g id=\"l7\"><rect x=\"78\""), "{line}");
        assert!(line.contains("fill=\"#ff7b72\""), "{line}");
        assert!(line.contains("style=\"fill:#0d1117\""), "{line}");
        assert!(line.contains(">&lt;b&gt;<"), "{line}");
    }

    #[test]
    fn a_line_that_stays_is_one_element() {
        let svg = picture(&["same", "same", "other"]);
        assert_eq!(svg.matches("<text id").count(), 2);
        assert_eq!(svg.matches("<use").count(), 3);
    }

    #[test]
    fn each_frame_has_its_share_of_the_time() {
        let svg = picture(&["a", "b", "c", "d"]);
        for start in ["0.000%", "25.000%", "50.000%", "75.000%"] {
            assert!(svg.contains(start), "{start} in {svg}");
        }
    }
}
