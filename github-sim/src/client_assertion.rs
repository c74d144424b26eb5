//! Client assertions: JWTs by which a listener proves to the token endpoint which runner it is (RFC 7523).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    runner_key::{self, RunnerKeyError, SignatureAlgorithm},
    wire::RsaParametersFile,
};

/// Lifetime of a client assertion in seconds.
const ASSERTION_LIFE_S: u64 = 300;

/// Returns a JWT that proves to the token endpoint `audience` that the caller is `client_id`. `now` is unix
/// time in seconds.
pub fn sign(
    client_id: &str,
    audience: &str,
    key: &RsaParametersFile,
    algorithm: SignatureAlgorithm,
    now: u64,
) -> Result<String, RunnerKeyError> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&json!({"alg": algorithm.name(), "typ": "JWT"})),
        part(&json!({
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "nbf": now,
            "exp": now + ASSERTION_LIFE_S,
            "jti": crate::random::uuid(),
        }))
    );
    let signature = runner_key::sign(key, algorithm, signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Returns the client that an assertion names. The caller verifies it with that client's key.
pub(crate) fn claimed_client(assertion: &str) -> Option<String> {
    Some(part(assertion, 1)?["iss"].as_str()?.to_owned())
}

/// Tells whether an assertion is signed with the key of this modulus, meant for `audience`, and in its time.
pub(crate) fn holds(assertion: &str, audience: &str, modulus: &str, now: u64) -> bool {
    let Some((signed, signature)) = assertion.rsplit_once('.') else {
        return false;
    };
    let (Some(header), Some(claims), Ok(signature)) = (
        part(signed, 0),
        part(signed, 1),
        URL_SAFE_NO_PAD.decode(signature),
    ) else {
        return false;
    };
    let algorithm = header["alg"].as_str();
    let Some(algorithm) = algorithm.and_then(SignatureAlgorithm::from_name) else {
        return false;
    };
    // The clocks of client and server may differ.
    let in_time = claims["exp"]
        .as_u64()
        .is_some_and(|exp| now < exp && exp <= now + 2 * ASSERTION_LIFE_S);
    in_time
        && signed.matches('.').count() == 1
        && claims["aud"] == audience
        && claims["sub"] == claims["iss"]
        && runner_key::verifies(modulus, algorithm, signed.as_bytes(), &signature)
}

/// Returns a part of a JWT as JSON: 0 is the header, 1 the claims.
fn part(jwt: &str, number: usize) -> Option<Value> {
    let text = jwt.split('.').nth(number)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_binds_client_audience_and_time() {
        let (key, other) = (runner_key::key_of(7), runner_key::key_of(8));
        for algorithm in [SignatureAlgorithm::Rs256, SignatureAlgorithm::Ps256] {
            let jwt = sign("me", "http://t", &key, algorithm, 1000).unwrap();
            assert_eq!(claimed_client(&jwt).as_deref(), Some("me"));
            assert!(holds(&jwt, "http://t", &key.modulus, 1000));
            assert!(!holds(&jwt, "http://t", &other.modulus, 1000));
            assert!(!holds(&jwt, "http://t", "", 1000));
            assert!(!holds(&jwt, "http://u", &key.modulus, 1000));
            assert!(!holds(&jwt, "http://t", &key.modulus, 1300));
            assert!(!holds(&jwt, "http://t", &key.modulus, 600));
            assert!(!holds(
                &jwt[..jwt.len() - 2],
                "http://t",
                &key.modulus,
                1000
            ));
        }
    }

    #[test]
    fn an_assertion_with_another_algorithm_is_refused() {
        let key = runner_key::key_of(7);
        let jwt = sign("me", "http://t", &key, SignatureAlgorithm::Rs256, 1000).unwrap();
        let (_, rest) = jwt.split_once('.').unwrap();
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, "{}"] {
            let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
            assert!(!holds(&forged, "http://t", &key.modulus, 1000), "{header}");
        }
    }
}
