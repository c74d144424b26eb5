//! Headers for the collector. Their values are secrets.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Maximum size of the file in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// Headers that describe the request itself.
const RESERVED: [HeaderName; 5] = [
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    TRANSFER_ENCODING,
];

/// Headers that each request has. They are never printed.
#[derive(Clone, Default)]
pub struct Headers(pub(crate) HeaderMap);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Headers({} headers)", self.0.len())
    }
}

/// Failure to read the headers. It contains no value of a header.
#[derive(Debug, thiserror::Error)]
pub enum HeadersError {
    /// The file cannot be read.
    #[error("cannot read the headers for traces from {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A line of the file is not a header.
    #[error("cannot use line {line} of {}: {reason}; write one `name: value` on each line", path.display())]
    Line {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line.
        line: usize,
        /// Reason.
        reason: &'static str,
    },
    /// The file has no header, or is too large.
    #[error("{} does not hold headers: it must have one `name: value` on each line, and at most {MAX_BYTES} bytes", path.display())]
    Content {
        /// Path of the file.
        path: PathBuf,
    },
}

impl Headers {
    /// Reads a file with one header on each line. Empty lines and lines that begin with `#` are left out.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or has a line that is not a header.
    pub fn read(path: &Path) -> Result<Self, HeadersError> {
        let mut text = String::new();
        let limit = u64::try_from(MAX_BYTES + 1).unwrap_or(u64::MAX);
        File::open(path)
            .and_then(|file| file.take(limit).read_to_string(&mut text))
            .map_err(|source| HeadersError::Read {
                path: path.to_owned(),
                source,
            })?;
        let content = || HeadersError::Content {
            path: path.to_owned(),
        };
        if text.len() > MAX_BYTES {
            return Err(content());
        }
        let mut headers = HeaderMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = header(line).map_err(|reason| HeadersError::Line {
                path: path.to_owned(),
                line: at + 1,
                reason,
            })?;
            headers.append(name, value);
        }
        if headers.is_empty() {
            return Err(content());
        }
        Ok(Self(headers))
    }
}

fn header(line: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let (name, value) = line.split_once(':').ok_or("it has no colon")?;
    let name: HeaderName = name.trim_end().parse().map_err(|_| "its name is invalid")?;
    if RESERVED.contains(&name) {
        return Err("the program itself sets this header");
    }
    let mut value: HeaderValue = value.trim().parse().map_err(|_| "its value is invalid")?;
    if value.is_empty() {
        return Err("its value is empty");
    }
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Headers, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("headers");
        std::fs::write(&file, text).unwrap();
        Headers::read(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn each_line_is_a_header() {
        let headers = read("# for the collector\nAuthorization: Bearer a:b\n\nx-scope : acme \n");
        let headers = headers.unwrap();
        assert_eq!(headers.0["authorization"], "Bearer a:b");
        assert_eq!(headers.0["x-scope"], "acme");
        assert_eq!(format!("{headers:?}"), "Headers(2 headers)");
        assert!(!format!("{:?}", headers.0).contains("Bearer"));
    }

    #[test]
    fn an_error_names_the_line_and_never_the_value() {
        for (text, part) in [
            ("", "does not hold headers"),
            ("# none\n", "does not hold headers"),
            ("a: b\nhunter2", "line 2"),
            ("na me: hunter2", "its name is invalid"),
            ("a: hunter2\u{7f}", "its value is invalid"),
            ("a:", "its value is empty"),
            ("Content-Type: hunter2", "the program itself sets"),
            ("Host: hunter2", "the program itself sets"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(read(&format!("a: {}", "x".repeat(MAX_BYTES))).is_err());
        let missing = Headers::read(Path::new("/nonexistent/headers")).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/headers"));
    }
}
