//! From the file as written to a [`Config`], collecting every mistake on the way.

use std::path::Path;

use super::{Config, Mistakes};

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let _ = path;
    unimplemented!()
}

/// Checks the text of `file`.
pub fn parse(file: &Path, text: &str) -> Result<Config, Mistakes> {
    let _ = (file, text);
    unimplemented!()
}

/// Checks what only the host can tell: token, images, directories.
#[must_use]
pub fn check_host(config: &Config) -> Vec<super::Mistake> {
    let _ = config;
    unimplemented!()
}
