//! A recording as an SVG without scripts: the frames are a film strip, and a style sheet moves it.
//!
//! A reader that does not animate, or that prefers reduced motion, shows the last frame. Colours of the
//! terminal are left out, because our programs print none.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::num::NonZeroU16;

use super::frames::Frame;

/// Width of a character at the font size of 13 pixels, in tenths of a pixel.
const CHARACTER_WIDTH: u32 = 78;
const LINE_HEIGHT: u32 = 18;
const MARGIN: u32 = 14;

/// Returns the picture of a recording of `command`.
pub(super) fn render(frames: &[Frame], columns: NonZeroU16, command: &str) -> String {
    let rows = frames.first().map_or(0, |frame| frame.rows.len());
    let width = u32::from(columns.get()) * CHARACTER_WIDTH / 10 + 2 * MARGIN;
    let height = u32::try_from(rows).unwrap_or(u32::MAX) * LINE_HEIGHT + 2 * MARGIN;
    let command = escaped(command);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="Recording of {command}">
<style>
text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #e6edf3; white-space: pre }}
.film {{ transform: translateX(-{end}px); animation: play {seconds:.2}s step-end infinite }}
{moves}@media (prefers-reduced-motion: reduce) {{ .film {{ animation: none }} }}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>
"##,
        end = position(frames.len().saturating_sub(1), width),
        seconds = seconds(frames),
        moves = keyframes(frames, width),
    );
    let lines = lines(frames);
    svg += "<defs>\n";
    for (text, number) in &lines {
        let text = escaped(text);
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            r#"<text id="l{number}" xml:space="preserve">{text}</text>"#
        );
    }
    svg += "</defs>\n<g class=\"film\">\n";
    for (number, frame) in frames.iter().enumerate() {
        let x = position(number, width) + MARGIN;
        for (row, text) in frame.rows.iter().enumerate() {
            if let Some(line) = lines.get(text.as_str()) {
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
fn lines(frames: &[Frame]) -> BTreeMap<&str, usize> {
    let mut lines = BTreeMap::new();
    for text in frames.iter().flat_map(|frame| &frame.rows) {
        if !text.is_empty() {
            let next = lines.len();
            lines.entry(text.as_str()).or_insert(next);
        }
    }
    lines
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

    fn picture(texts: &[&str]) -> String {
        let frames: Vec<Frame> = texts
            .iter()
            .map(|text| Frame {
                rows: vec![(*text).to_owned(), String::new()],
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
