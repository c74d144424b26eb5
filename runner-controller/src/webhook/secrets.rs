//! The secrets of the hook, and the signatures that they make.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use axum::http::HeaderMap;
use ring::hmac;

use crate::config::WebhookConfig;

/// Header with the signature. GitHub also sends one of SHA-1, which is ignored.
const SIGNATURE: &str = "x-hub-signature-256";
/// Minimum length of a secret. A shorter one can be guessed.
const MIN_LENGTH: usize = 16;
/// Maximum length of a secret.
const MAX_LENGTH: usize = 1024;

/// Keys of the configured secrets.
pub struct Secrets(Vec<hmac::Key>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Failure to load a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the webhook's secret from {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The file does not hold a secret.
    #[error("{} does not hold a webhook's secret: it must be one line of {MIN_LENGTH} to {MAX_LENGTH} printable ASCII characters; make one with `openssl rand -hex 32`", path.display())]
    Content {
        /// Path of the file.
        path: PathBuf,
    },
}

/// Judgement of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    /// One of the secrets made it.
    Right,
    /// There is none.
    Missing,
    /// None of the secrets made it.
    Wrong,
}

impl Secrets {
    /// Loads the secrets from systemd's credentials if they are there, otherwise from the configured files.
    ///
    /// # Errors
    /// Fails if a file cannot be read or does not hold a secret.
    pub fn load(config: &WebhookConfig) -> Result<Self, SecretError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let files = [
            (WebhookConfig::CREDENTIAL, Some(&config.secret_file)),
            (
                WebhookConfig::NEXT_CREDENTIAL,
                config.next_secret_file.as_ref(),
            ),
        ];
        let keys = files.into_iter().filter_map(|(name, file)| {
            let file = file?;
            let credential = credentials.as_ref().map(|dir| dir.join(name));
            let credential = credential.filter(|path| path.exists());
            Some(read(credential.as_ref().unwrap_or(file)))
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Returns the keys of some secrets.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(secrets: &[&[u8]]) -> Self {
        Self(secrets.iter().map(|secret| key(secret)).collect())
    }

    /// Returns the header with the signature of a body under the first secret, and its name.
    pub(super) fn sign(&self, body: &[u8]) -> Option<(&'static str, String)> {
        let tag = hmac::sign(self.0.first()?, body);
        Some((SIGNATURE, format!("sha256={}", hex::encode(tag))))
    }

    /// Judges the signature of a body. The comparison takes the same time for every signature.
    pub(super) fn judge(&self, headers: &HeaderMap, body: &[u8]) -> Signature {
        let mut shown = headers.get_all(SIGNATURE).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else {
            return if headers.contains_key(SIGNATURE) {
                Signature::Wrong
            } else {
                Signature::Missing
            };
        };
        let hex = shown.as_bytes().strip_prefix(b"sha256=");
        let Some(tag) = hex.and_then(|hex| hex::decode(hex).ok()) else {
            return Signature::Wrong;
        };
        if (self.0.iter()).any(|key| hmac::verify(key, body, &tag).is_ok()) {
            Signature::Right
        } else {
            Signature::Wrong
        }
    }
}

fn key(secret: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

fn read(path: &Path) -> Result<hmac::Key, SecretError> {
    let mut text = Vec::new();
    let limit = u64::try_from(MAX_LENGTH + 2).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut text))
        .map_err(|source| SecretError::Read {
            path: path.to_owned(),
            source,
        })?;
    let secret = text.trim_ascii();
    let is_printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let is_good = (MIN_LENGTH..=MAX_LENGTH).contains(&secret.len());
    if is_good && secret.iter().all(is_printable) {
        Ok(key(secret))
    } else {
        Err(SecretError::Content {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GitHub's example ("Validating webhook deliveries").
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const HEX: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    fn judge(secrets: &[&[u8]], values: &[&str], body: &[u8]) -> Signature {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SIGNATURE, value.parse().unwrap());
        }
        Secrets::of(secrets).judge(&headers, body)
    }

    #[test]
    fn github_s_own_example_is_right_under_each_of_two_secrets() {
        let shown = format!("sha256={HEX}");
        for secrets in [&[SECRET][..], &[b"another", SECRET], &[SECRET, b"another"]] {
            assert_eq!(judge(secrets, &[&shown], BODY), Signature::Right);
        }
        assert_eq!(judge(&[b"another"], &[&shown], BODY), Signature::Wrong);
        assert_eq!(
            judge(&[SECRET], &[&shown], b"Hello, World?"),
            Signature::Wrong
        );
    }

    #[test]
    fn a_signature_is_that_of_the_first_secret() {
        let shown = Some((SIGNATURE, format!("sha256={HEX}")));
        assert_eq!(Secrets::of(&[SECRET, b"another"]).sign(BODY), shown);
        assert_ne!(Secrets::of(&[b"another", SECRET]).sign(BODY), shown);
        assert_eq!(Secrets::of(&[]).sign(BODY), None);
    }

    #[test]
    fn only_one_whole_signature_is_accepted() {
        let shown = format!("sha256={HEX}");
        assert_eq!(judge(&[SECRET], &[], BODY), Signature::Missing);
        for values in [
            vec![""],
            vec![HEX],
            vec!["sha256="],
            vec![&shown[..shown.len() - 2]],
            vec![&shown, &shown],
            vec!["sha1=757107ea0eb2509fc211221cce984b8a37570b6d"],
        ] {
            assert_eq!(
                judge(&[SECRET], &values, BODY),
                Signature::Wrong,
                "{values:?}"
            );
        }
    }

    #[test]
    fn a_file_without_a_secret_is_refused_and_its_content_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "a-long-secret-of-a-hook\n").unwrap();
        assert!(read(&file).is_ok());
        for bad in ["", "short-secret", "two-lines-secret\ntwo-lines-secret"] {
            std::fs::write(&file, bad).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains("does not hold"), "{error}");
            assert!(!error.contains("-secret"), "{error}");
        }
        let missing = read(Path::new("/nonexistent/secret"));
        assert!(matches!(missing, Err(SecretError::Read { .. })));
    }
}
