//! What the listener prints, and the same in `_diag`.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::SystemTime,
};

/// Prints as the real listener does. Failing to write is ignored: a log must not end a job.
pub(crate) struct Log(Option<File>);

impl Log {
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

    pub(crate) fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        self.diag("INFO", text);
    }

    /// A line with the time in front.
    pub(crate) fn event(&self, text: &str) {
        self.line(&format!("{}: {text}", stamp()));
    }

    pub(crate) fn error(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
        self.diag("ERR ", text);
    }

    fn diag(&self, level: &str, text: &str) {
        if let Some(mut file) = self.0.as_ref() {
            let _ = writeln!(file, "[{} {level} Listener] {text}", stamp());
        }
    }
}

/// `2026-01-02 03:04:05Z`
fn stamp() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now())
        .to_string()
        .replace('T', " ")
}
