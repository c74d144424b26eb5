//! Identifiers and secrets. No seed promises their values.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use uuid::Uuid;

/// Returns a random UUID of version 4.
pub(crate) fn uuid() -> String {
    Uuid::new_v4().to_string()
}

/// Returns random bytes.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    rand::fill(&mut bytes[..]);
    bytes
}

/// Returns random text of letters, digits, `-` and `_`: four characters for three bytes.
pub(crate) fn text(count: usize) -> String {
    URL_SAFE_NO_PAD.encode(bytes(count))
}

/// Returns a bearer token that starts with its purpose.
pub(crate) fn secret(purpose: &str) -> String {
    format!("{purpose}_{}", text(32))
}

/// Returns a bearer token in the form of a JWT with these claims. Listeners read them. The signature is
/// random, because only the server itself could check it, and the server compares the whole token.
pub(crate) fn jwt(claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"RS256"}"#);
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("{header}.{claims}.{}", text(256))
}

/// Returns a value for `X-GitHub-Request-Id`.
pub(crate) fn request_id() -> String {
    let bits = rand::random::<u128>();
    format!(
        "{:04X}:{:06X}:{:07X}:{:07X}:{:08X}",
        bits & 0xffff,
        bits >> 16 & 0xff_ffff,
        bits >> 40 & 0xfff_ffff,
        bits >> 68 & 0xfff_ffff,
        bits >> 96
    )
}
