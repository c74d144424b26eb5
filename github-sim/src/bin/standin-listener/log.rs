//! The listener's log on standard output and in `_diag`.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::SystemTime,
};

/// The listener's log. A line that cannot be written is dropped, because a log must not end a job.
pub(crate) struct ListenerLog(Option<File>);

impl ListenerLog {
    /// Opens `_diag/Runner_<time>-utc.log` under the root.
    pub(crate) fn open(root: &Path) -> Self {
        let diag = root.join("_diag");
        let name = format!("Runner_{}-utc.log", stamp().replace([':', ' '], "-"));
        let _ = fs::create_dir_all(&diag);
        Self(
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(diag.join(name))
                .ok(),
        )
    }

    /// Writes a line.
    pub(crate) fn line(&self, text: &str) {
        stdio::progress(text);
        self.diag("INFO", text);
    }

    /// Writes a line that starts with the time.
    pub(crate) fn event(&self, text: &str) {
        self.line(&format!("{}: {text}", stamp()));
    }

    /// Writes a line to standard error.
    pub(crate) fn error(&self, text: &str) {
        stdio::error(text);
        self.diag("ERR ", text);
    }

    fn diag(&self, level: &str, text: &str) {
        if let Some(mut file) = self.0.as_ref() {
            let _ = writeln!(file, "[{} {level} Listener] {text}", stamp());
        }
    }
}

/// Returns the time as `2026-01-02 03:04:05Z`.
fn stamp() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now())
        .to_string()
        .replace('T', " ")
}
