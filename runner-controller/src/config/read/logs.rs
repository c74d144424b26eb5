//! The `[logs]` table.

use strum::VariantArray;

use super::section::{DAY, Section};
use crate::config::{ByteSize, KeptLogs, LogsConfig};

/// Smallest space for bundles. One takes up to a megabyte.
const MIN_SPACE: ByteSize = ByteSize(16 << 20);

/// Reads which log files of listeners are kept, and for how long.
pub(super) fn logs(mut section: Section<'_>) -> LogsConfig {
    let default = LogsConfig::default();
    let keep = keep(&mut section).unwrap_or(default.keep);
    let space: ByteSize = section
        .parsed("space", "\"1 GiB\"")
        .unwrap_or(default.space);
    if space.0 < MIN_SPACE.0 {
        let wrong = format!("{space} is less than {MIN_SPACE}");
        section.wrong("space", wrong, "space = \"1 GiB\", or keep = \"none\"");
    }
    let logs = LogsConfig {
        keep,
        space,
        age: section.duration("age", default.age, DAY..=365 * DAY),
    };
    section.finish();
    logs
}

fn keep(section: &mut Section<'_>) -> Option<KeptLogs> {
    let text = section.text("keep", "\"failed\"")?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let names: Vec<String> = KeptLogs::VARIANTS
            .iter()
            .map(|keep| format!("\"{keep}\""))
            .collect();
        let wrong = format!("{text:?} says not which log files are kept");
        section.wrong("keep", wrong, format!("keep = {}", names.join(" or ")));
    }
    parsed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Mistakes, parse, testing};

    fn with(lines: &str) -> Result<Config, Mistakes> {
        parse(Path::new("x"), &format!("{}{lines}\n", testing::TEXT))
    }

    #[test]
    fn log_files_of_failed_runners_are_kept_by_default() {
        assert_eq!(with("").unwrap().logs, LogsConfig::default());
        let set = "[logs]\nkeep = \"all\"\nspace = \"20 MiB\"\nage = \"30days\"";
        let set = with(set).unwrap().logs;
        assert_eq!(set.keep, KeptLogs::All);
        assert_eq!(set.space, ByteSize(20 << 20));
        assert_eq!(set.age, 30 * DAY);
    }

    #[test]
    fn each_mistake_of_the_table_is_told_by_its_key() {
        for (line, key) in [
            ("keep = \"failures\"", "logs.keep"),
            ("keep = true", "logs.keep"),
            ("space = \"1 MiB\"", "logs.space"),
            ("age = \"1h\"", "logs.age"),
            ("dir = \"/var/log\"", "logs.dir"),
        ] {
            let list = with(&format!("[logs]\n{line}")).unwrap_err().list;
            let found: Vec<&str> = list.iter().map(|mistake| mistake.key.as_str()).collect();
            assert_eq!(found, [key], "{line}");
        }
    }
}
