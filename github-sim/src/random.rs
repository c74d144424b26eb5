//! Identifiers and secrets.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// A random UUID of version 4.
pub(crate) fn uuid() -> String {
    let bits = rand::random::<u128>();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// 32 random bytes.
pub(crate) fn key() -> [u8; 32] {
    rand::random()
}

/// A bearer secret that says what it is for.
pub(crate) fn secret(purpose: &str) -> String {
    format!("{purpose}_{}", URL_SAFE_NO_PAD.encode(key()))
}

/// Random text that begins no word; four characters for three bytes.
pub(crate) fn text<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes[..]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A value for `X-GitHub-Request-Id`.
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

#[cfg(test)]
mod tests {
    #[test]
    fn a_uuid_says_its_version_and_variant() {
        let uuid = super::uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
    }
}
