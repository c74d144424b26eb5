//! The keys of a pool about Nix.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use super::section::Section;
use crate::config::pool::{Image, Nix};

/// Length of a public key. Nix signs with Ed25519.
const PUBLIC_KEY_BYTES: usize = 32;
/// Length of a secret key, which its public key follows.
const SECRET_KEY_BYTES: usize = 64;

const SUBSTITUTERS: &str = "[\"https://cache.example.org\"]";
const KEYS: &str = "[\"cache.example.org-1:BASE64\"]";

/// Reads `substituters` and `trusted_public_keys`. `wanted` is the value of `nix`.
pub(super) fn nix(
    section: &mut Section<'_>,
    wanted: bool,
    registration: Option<PathBuf>,
) -> Option<Nix> {
    let substituters = list(section, "substituters", SUBSTITUTERS, wanted, substituter);
    let keys = list(section, "trusted_public_keys", KEYS, wanted, public_key);
    wanted.then_some(Nix {
        substituters,
        trusted_public_keys: keys,
        registration,
    })
}

fn list(
    section: &mut Section<'_>,
    key: &'static str,
    example: &str,
    wanted: bool,
    check: impl Fn(&str) -> Result<(), String>,
) -> Vec<String> {
    let list = section.texts(key, example).unwrap_or_default();
    if !list.is_empty() && !wanted {
        section.wrong(
            key,
            "jobs of this pool do not have a Nix",
            format!("nix = true, or no {key}"),
        );
    }
    for item in &list {
        if let Err(wrong) = check(item) {
            section.wrong(key, wrong, format!("{key} = {example}"));
        }
    }
    list
}

/// Checks the URL of a binary cache over HTTP. Other kinds of store are files or sockets of the
/// container, or need a secret, which a container does not have.
fn substituter(text: &str) -> Result<(), String> {
    let url: Url = text
        .parse()
        .map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err(format!("{text:?} does not begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The URL is not repeated, because this text is logged.
        return Err("a URL has a password in it, which every job could read".into());
    }
    // nix.conf splits at white space and takes text after a # for a comment.
    if !text
        .chars()
        .all(|c| c.is_ascii_graphic() && !"#\"'\\<>".contains(c))
    {
        return Err(format!(
            "{text:?} has a fragment, white space, a quote or a character that is not ASCII"
        ));
    }
    Ok(())
}

/// Checks a public key: `name:base64`, as `nix key convert-secret-to-public` prints it.
fn public_key(text: &str) -> Result<(), String> {
    let Some((name, key)) = text.split_once(':') else {
        return Err(format!(
            "{text:?} does not have a name and a colon before the key"
        ));
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(format!(
            "{name:?} is not a name of a key: it takes letters, digits, dots, dashes and underscores"
        ));
    }
    match STANDARD.decode(key).map(|bytes| bytes.len()) {
        Ok(PUBLIC_KEY_BYTES) => Ok(()),
        Ok(SECRET_KEY_BYTES) => Err(format!(
            "the key after {name:?} is secret, and every reader of this file can sign with it; make a new one"
        )),
        Ok(bytes) => Err(format!(
            "the key after {name:?} has {bytes} bytes instead of {PUBLIC_KEY_BYTES}"
        )),
        Err(error) => Err(format!("the key after {name:?} is not base64: {error}")),
    }
}

/// Reads `registration` of an image and returns its path in the container.
pub(super) fn registration(
    section: &mut Section<'_>,
    image: Option<&Image>,
    wanted: bool,
) -> Option<PathBuf> {
    let example = match image? {
        Image::Directory { .. } => "\"/nix-path-registration\"",
        Image::Nixos { .. } => "\"/nix/store/…-closure-info/registration\"",
    };
    let given = section.path("registration", example);
    let Image::Nixos { store, .. } = image? else {
        return given;
    };
    let Some(given) = given else {
        if wanted {
            section.wrong(
                "registration",
                "the Nix of a container does not know the paths of the store without it, and the pool has nix = true",
                format!("registration = {example}, from pkgs.closureInfo of the system"),
            );
        }
        return None;
    };
    let Ok(within) = given.strip_prefix(store) else {
        section.wrong(
            "registration",
            format!("{} is not below {}", given.display(), store.display()),
            format!("registration = {example}"),
        );
        return None;
    };
    Some(Path::new(Nix::STORE).join(within))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

    #[test]
    fn a_substituter_is_an_http_url_without_secrets() {
        for good in [
            "https://cache.nixos.org",
            "http://10.0.0.5:5000/main?priority=30",
        ] {
            assert_eq!(substituter(good), Ok(()));
        }
        for bad in [
            "cache.nixos.org",
            "ssh://cache",
            "daemon",
            "file:///nix/cache",
            "s3://bucket",
            "https://",
            "https://a b",
            "https://a/b c",
            "https://a/#b",
            "https://a\nsandbox = false",
            "https://ä.example",
        ] {
            assert!(substituter(bad).is_err(), "{bad}");
        }
        let error = substituter("https://me:hunter2@cache").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_public_key_is_a_name_and_32_bytes() {
        assert_eq!(public_key(KEY), Ok(()));
        let short = &KEY[..KEY.len() - 4];
        for bad in [
            "",
            "cache",
            ":6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
            "a b:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
            "cache:????",
            short,
        ] {
            assert!(public_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_key_is_reported_and_not_repeated() {
        let secret = STANDARD.encode([7; SECRET_KEY_BYTES]);
        let error = public_key(&format!("mine:{secret}")).unwrap_err();
        assert!(
            error.contains("secret") && !error.contains(&secret),
            "{error}"
        );
    }
}
