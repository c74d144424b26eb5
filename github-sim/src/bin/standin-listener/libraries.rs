//! The library that the stand-in needs as a .NET program does: libicu.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Variable with which .NET needs no libicu.
const INVARIANT: &str = "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT";
/// Directories of libraries in distributions with the usual layout.
const DIRECTORIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/lib64",
];

/// Returns true if libicu is there, or is not needed.
///
/// A system without the usual directories, such as NixOS, has a wrapper that names its libraries.
pub(crate) fn has_icu() -> bool {
    if std::env::var(INVARIANT).is_ok_and(|value| value == "1" || value == "true") {
        return true;
    }
    let known: Vec<PathBuf> = DIRECTORIES
        .into_iter()
        .map(PathBuf::from)
        .filter(|directory| holds(directory, "libc.so."))
        .collect();
    known.is_empty()
        || known
            .iter()
            .any(|directory| holds(directory, "libicuuc.so."))
}

/// Returns true if a directory has a file whose name begins so.
fn holds(directory: &Path, beginning: &str) -> bool {
    let Ok(mut entries) = fs::read_dir(directory) else {
        return false;
    };
    entries.any(|entry| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
    })
}

/// Ends the program as .NET does without libicu: by SIGABRT.
pub(crate) fn abort() -> ! {
    stdio::error(
        "Process terminated. Couldn't find a valid ICU package installed on the system. Please install libicu (or icu-libs) using your package manager and try again. Alternatively you can set the configuration flag System.Globalization.Invariant to true if you want to run with no globalization support.",
    );
    stdio::error("   at System.Environment.FailFast(System.String)");
    std::process::abort()
}
