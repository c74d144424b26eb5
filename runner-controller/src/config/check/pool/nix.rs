//! What a pool says about Nix.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use super::super::super::section::{Report, Section};
use super::super::super::{Image, Nix, PoolConfig};

/// Where a store is in a container, wherever it is on the host.
const STORE: &str = "/nix/store";
/// Nix signs with Ed25519: a public key has 32 bytes, and a secret one is followed by its public one.
const PUBLIC_KEY_BYTES: usize = 32;
const SECRET_KEY_BYTES: usize = 64;

/// What pulls the daemon into an image's boot; the image is no root here, so its links lead astray.
const ENABLED: &str = "etc/systemd/system/sockets.target.wants/nix-daemon.socket";

const SUBSTITUTERS: &str = "[\"https://cache.example.org\"]";
const KEYS: &str = "[\"cache.example.org-1:BASE64\"]";

/// Reads the pool's keys; whether there is a Nix at all was read before.
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
            "this pool's jobs have no Nix to use it",
            format!("nix = true, or leave {key} out"),
        );
    }
    for item in &list {
        if let Err(wrong) = check(item) {
            section.wrong(key, wrong, format!("{key} = {example}"));
        }
    }
    list
}

/// A binary cache over HTTP. Other kinds of store are files or sockets of the container itself, or
/// need a secret, and none is in there.
fn substituter(text: &str) -> Result<(), String> {
    let url: Url = text
        .parse()
        .map_err(|why| format!("{text:?} is not a URL: {why}"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err(format!("{text:?} does not begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated: it would be in the journal too.
        return Err("one has a password in it, which every job could read".into());
    }
    // nix.conf splits at white space, and takes what follows a # for a comment.
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

/// `name:base64`, as `nix key convert-secret-to-public` prints it.
fn public_key(text: &str) -> Result<(), String> {
    let Some((name, key)) = text.split_once(':') else {
        return Err(format!("{text:?} has no name and colon before the key"));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!(
            "{name:?} is not a key's name: letters, digits, dots, dashes, underscores"
        ));
    }
    match STANDARD.decode(key).map(|bytes| bytes.len()) {
        Ok(PUBLIC_KEY_BYTES) => Ok(()),
        Ok(SECRET_KEY_BYTES) => Err(format!(
            "what follows {name:?} is a secret key; whoever can read this file can sign with it by now"
        )),
        Ok(bytes) => Err(format!(
            "what follows {name:?} has {bytes} bytes and not {PUBLIC_KEY_BYTES}"
        )),
        Err(why) => Err(format!("what follows {name:?} is not base64: {why}")),
    }
}

/// Reads an image's `registration`, and turns it into a path in the container.
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
                "without it the container's Nix knows no path of the store, and the pool has nix = true",
                format!("registration = {example}, which is pkgs.closureInfo's of the system"),
            );
        }
        return None;
    };
    let Ok(within) = given.strip_prefix(store) else {
        section.wrong(
            "registration",
            format!("{} does not lie below {}", given.display(), store.display()),
            format!("registration = {example}"),
        );
        return None;
    };
    Some(Path::new(STORE).join(within))
}

/// Checks what only the host can tell: that the image has the Nix its pool promises.
pub(in super::super) fn check_host(report: &Report, pool: &PoolConfig) {
    let Some(nix) = &pool.nix else { return };
    let key = format!("pools.{}", pool.name);
    if let Image::Directory { path, .. } = &pool.image
        && path.join(ENABLED).symlink_metadata().is_err()
    {
        report.add(
            format!("{key}.nix"),
            format!("{} has no nix-daemon.socket", path.display()),
            format!(
                "nix = false, or install Nix in the image and run `runner-controller prepare-image --nix {}`",
                path.display()
            ),
        );
    }
    let Some(registration) = &nix.registration else {
        return;
    };
    let file = match &pool.image {
        Image::Directory { path, .. } => {
            path.join(registration.strip_prefix("/").unwrap_or(registration))
        }
        Image::Nixos { store, .. } => {
            store.join(registration.strip_prefix(STORE).unwrap_or(registration))
        }
    };
    if file.symlink_metadata().is_err() {
        report.add(
            format!("{key}.image.registration"),
            format!("{} is not there", file.display()),
            "what `nix-store --dump-db` prints, or pkgs.closureInfo's registration",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

    #[test]
    fn a_substituter_is_a_plain_web_address() {
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
    fn a_secret_key_is_named_and_not_repeated() {
        let secret = STANDARD.encode([7; SECRET_KEY_BYTES]);
        let error = public_key(&format!("mine:{secret}")).unwrap_err();
        assert!(
            error.contains("secret") && !error.contains(&secret),
            "{error}"
        );
    }
}
