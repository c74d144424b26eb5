//! The listener's log on standard output and in `_diag`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    time::SystemTime,
};

/// The listener's log. Like GitHub's listener, the program aborts if a line cannot be written.
pub(crate) struct ListenerLog(File);

impl ListenerLog {
    /// Opens `_diag/Runner_<time>-utc.log` under the root.
    pub(crate) fn open(root: &Path) -> Self {
        match Self::try_open(root) {
            Ok(file) => Self(file),
            Err(error) => abort(&error),
        }
    }

    fn try_open(root: &Path) -> io::Result<File> {
        let diag = root.join("_diag");
        let name = format!("Runner_{}-utc.log", stamp().replace([':', ' '], "-"));
        fs::create_dir_all(&diag)?;
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(diag.join(name))
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
        let mut file = &self.0;
        if let Err(error) = writeln!(file, "[{} {level} Listener] {text}", stamp()) {
            abort(&error);
        }
    }
}

/// Ends the program as .NET does after an exception that nothing catches: by SIGABRT.
pub(crate) fn abort(error: &io::Error) -> ! {
    stdio::error(format_args!(
        "Unhandled exception. System.IO.IOException: {error}"
    ));
    stdio::error("   at System.IO.RandomAccess.WriteAtOffset");
    std::process::abort()
}

/// Returns the time as `2026-01-02 03:04:05Z`.
fn stamp() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now())
        .to_string()
        .replace('T', " ")
}
