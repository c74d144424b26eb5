//! Durations for people.

/// Returns a duration in at most two units, cut, never rounded up: `7.2 s`, `42 s`, `3 m 10 s`, `1 h`, `2 d 5 h`.
#[must_use]
pub fn span(millis: u64) -> String {
    /// Units from the largest, each with its length in seconds.
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let seconds = millis / 1_000;
    if seconds < 10 {
        return format!("{seconds}.{} s", millis % 1_000 / 100);
    }
    let larger = UNITS.iter().zip(&UNITS[1..]);
    for ((unit, length), (next, next_length)) in larger {
        let count = seconds / length;
        let rest = seconds % length / next_length;
        match (count, rest) {
            (0, _) => {}
            (_, 0) => return format!("{count} {unit}"),
            (_, _) => return format!("{count} {unit} {rest} {next}"),
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_at_most_two_units() {
        for (millis, text) in [
            (0, "0.0 s"),
            (99, "0.0 s"),
            (7_290, "7.2 s"),
            (9_999, "9.9 s"),
            (10_000, "10 s"),
            (59_999, "59 s"),
            (60_000, "1 m"),
            (190_000, "3 m 10 s"),
            (3_600_000, "1 h"),
            (3_659_000, "1 h"),
            (3_660_000, "1 h 1 m"),
            (86_399_000, "23 h 59 m"),
            (86_400_000, "1 d"),
            (190_800_000, "2 d 5 h"),
            (u64::MAX, "213503982334 d 14 h"),
        ] {
            assert_eq!(span(millis), text, "{millis}");
        }
    }
}
