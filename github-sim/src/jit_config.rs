//! The JIT config: three files of the runner root in one string.
//!
//! It has GitHub's shape: base64 of a JSON object that maps file names to base64 of the files. At
//! GitHub, `.credentials_rsaparams` is an RSA private key that signs the listener's JWT (RS256). Here it
//! holds a random key in `d`, and the JWT is signed with HMAC-SHA256. That is as secret and as bound
//! to one runner, and saves the seconds that it takes to generate an RSA key.

use std::collections::BTreeMap;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    state::RegisteredRunner,
    wire::{CredentialsData, CredentialsFile, RunnerFile},
};

/// Names of the files in a JIT config.
pub const FILES: [&str; 3] = [".runner", ".credentials", ".credentials_rsaparams"];

/// Lifetime of a client assertion in seconds.
const ASSERTION_LIFE_S: u64 = 300;

/// Failure to read a JIT config.
#[derive(Debug, thiserror::Error)]
pub enum JitConfigError {
    /// The config or a file in it is not base64.
    #[error("not base64")]
    Base64(#[from] base64::DecodeError),
    /// The config is not a JSON object of strings.
    #[error("not a JSON object of files")]
    Json(#[from] serde_json::Error),
    /// A file is missing, or there is a further one.
    #[error("the files are not .runner, .credentials and .credentials_rsaparams")]
    Files,
}

pub(crate) fn encode(
    runner: &RegisteredRunner,
    group: &str,
    work_folder: &str,
    public_url: &str,
) -> String {
    let broker = format!("{public_url}/broker/");
    let settings = RunnerFile {
        agent_id: runner.id.to_string(),
        agent_name: runner.name.clone(),
        pool_id: "1".into(),
        pool_name: group.into(),
        disable_update: "True".into(),
        ephemeral: "True".into(),
        server_url: broker.clone(),
        github_url: String::new(),
        work_folder: work_folder.into(),
        use_v2_flow: "True".into(),
        server_url_v2: broker,
    };
    let credentials = CredentialsFile {
        scheme: "OAuth".into(),
        data: CredentialsData {
            client_id: runner.client_id.clone(),
            authorization_url: format!("{public_url}/oauth2/token"),
        },
    };
    // Sizes of a 2048-bit key, because the config must have its real length.
    let filler = |bytes: usize| STANDARD.encode(crate::random::bytes(bytes));
    let key = json!({
        "d": STANDARD.encode(&runner.secret),
        "dp": filler(128),
        "dq": filler(128),
        "exponent": "AQAB",
        "inverseQ": filler(128),
        "modulus": filler(256),
        "p": filler(128),
        "q": filler(128),
    });
    let files = json!({
        FILES[0]: file(&settings),
        FILES[1]: file(&credentials),
        FILES[2]: file(&key),
    });
    file(&files)
}

/// Returns the files of a JIT config by name.
pub fn decode(config: &str) -> Result<BTreeMap<String, Vec<u8>>, JitConfigError> {
    let files: BTreeMap<String, String> = serde_json::from_slice(&STANDARD.decode(config.trim())?)?;
    if files.len() != FILES.len() || FILES.iter().any(|name| !files.contains_key(*name)) {
        return Err(JitConfigError::Files);
    }
    files
        .into_iter()
        .map(|(name, content)| Ok((name, STANDARD.decode(content)?)))
        .collect()
}

/// Returns a JWT that proves to the token endpoint `audience` that the caller is `client_id`. `now` is unix
/// time in seconds.
#[must_use]
pub fn client_assertion(client_id: &str, audience: &str, key: &[u8], now: u64) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&json!({"alg": "HS256", "typ": "JWT"})),
        part(&json!({
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "nbf": now,
            "exp": now + ASSERTION_LIFE_S,
            "jti": crate::random::uuid(),
        }))
    );
    let signature = URL_SAFE_NO_PAD.encode(mac(key, &signed).finalize().into_bytes());
    format!("{signed}.{signature}")
}

/// Returns the client that an assertion names. The caller verifies it with that client's key.
pub(crate) fn claimed_client(assertion: &str) -> Option<String> {
    Some(claims(assertion)?["iss"].as_str()?.to_owned())
}

/// Tells whether an assertion is signed with `key`, meant for `audience`, and in its time.
pub(crate) fn assertion_holds(assertion: &str, audience: &str, key: &[u8], now: u64) -> bool {
    let Some((signed, signature)) = assertion.rsplit_once('.') else {
        return false;
    };
    let (Some(claims), Ok(signature)) = (claims(assertion), URL_SAFE_NO_PAD.decode(signature))
    else {
        return false;
    };
    // The clocks of client and server may differ.
    let in_time = claims["exp"]
        .as_u64()
        .is_some_and(|exp| now < exp && exp <= now + 2 * ASSERTION_LIFE_S);
    in_time
        && !key.is_empty()
        && claims["aud"] == audience
        && claims["sub"] == claims["iss"]
        && mac(key, signed).verify_slice(&signature).is_ok()
}

fn claims(assertion: &str) -> Option<Value> {
    let payload = assertion.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[expect(
    clippy::expect_used,
    reason = "HMAC takes a key of any length (RFC 2104)"
)]
fn mac(key: &[u8], signed: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(signed.as_bytes());
    mac
}

fn file(content: &impl serde::Serialize) -> String {
    // A value of strings and numbers always serializes.
    STANDARD.encode(serde_json::to_vec(content).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_binds_client_audience_and_time() {
        let jwt = client_assertion("me", "http://t", b"key", 1000);
        assert_eq!(claimed_client(&jwt).as_deref(), Some("me"));
        assert!(assertion_holds(&jwt, "http://t", b"key", 1000));
        assert!(!assertion_holds(&jwt, "http://t", b"other", 1000));
        assert!(!assertion_holds(&jwt, "http://u", b"key", 1000));
        assert!(!assertion_holds(&jwt, "http://t", b"key", 1300));
        assert!(!assertion_holds(
            &jwt[..jwt.len() - 1],
            "http://t",
            b"key",
            1000
        ));
    }

    #[test]
    fn text_that_is_not_a_config_is_refused() {
        assert!(matches!(decode("%"), Err(JitConfigError::Base64(_))));
        assert!(matches!(decode("aGk="), Err(JitConfigError::Json(_))));
        assert!(matches!(decode("e30="), Err(JitConfigError::Files)));
    }
}
