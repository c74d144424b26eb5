//! The RSA key of a runner: `.credentials_rsaparams` of its JIT config.
//!
//! A new RSA key takes seconds in an unoptimised build, and a test mints hundreds of runners. So each key is
//! one of the 2,016 products of two primes from a list of 64. A client that uses another runner's key is
//! refused, as at GitHub. The keys protect nothing outside of tests, because the list is public.

use base64::{Engine, engine::general_purpose::STANDARD};
use num_bigint::BigUint;
use ring::{
    rand::SystemRandom,
    rsa::{KeyPairComponents, PublicKeyComponents},
    signature::{
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256,
        RsaKeyPair, RsaPublicKeyComponents,
    },
};

use crate::wire::RsaParametersFile;

/// Primes of 1024 bits in hexadecimal digits, largest first. The two highest bits of each are set, so each
/// product has 2048 bits. None is 1 modulo [`EXPONENT`].
const PRIMES: &str = include_str!("primes.txt");

const EXPONENT: u32 = 65_537;
/// Exponent as a key file has it: `AQAB`.
const EXPONENT_BYTES: [u8; 3] = [1, 0, 1];
const MODULUS_BYTES: usize = 256;
const PRIME_BYTES: usize = 128;

/// Signature algorithm of a client assertion, by its JWT name (RFC 7518, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256. A listener uses it if its credentials require FIPS cryptography.
    Ps256,
}

impl SignatureAlgorithm {
    /// Returns the JWT name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    /// Returns the algorithm of a JWT name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Rs256, Self::Ps256]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }
}

/// Failure to use a key file. The error does not contain the key.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum RunnerKeyError {
    /// A number of the key is not base64.
    #[error("a number of the key is not base64")]
    Base64,
    /// The numbers are not those of an RSA key.
    #[error("the numbers are not those of an RSA key")]
    Key,
    /// The signature failed.
    #[error("cannot sign with the key")]
    Sign,
}

/// Returns the key of a runner. Runners with successive ids have different keys.
///
/// # Panics
/// Never, because the primes are a part of the program.
#[expect(clippy::expect_used, reason = "tests read this constant list")]
pub(crate) fn key_of(runner: u64) -> RsaParametersFile {
    let prime = |at: usize| {
        let digits = PRIMES.lines().nth(at).expect("a prime");
        BigUint::parse_bytes(digits.as_bytes(), 16).expect("hexadecimal digits")
    };
    let (first, second) = pair(runner, PRIMES.lines().count());
    let (p, q) = (prime(first), prime(second));
    let one = BigUint::from(1_u8);
    let (p_less, q_less) = (&p - &one, &q - &one);
    let exponent = BigUint::from(EXPONENT);
    let d = exponent
        .modinv(&(&p_less * &q_less))
        .expect("no factor in common");
    let inverse = q.modinv(&p).expect("two different primes");
    RsaParametersFile {
        dp: number(&(&d % &p_less), PRIME_BYTES),
        dq: number(&(&d % &q_less), PRIME_BYTES),
        exponent: STANDARD.encode(EXPONENT_BYTES),
        inverse_q: number(&inverse, PRIME_BYTES),
        modulus: number(&(&p * &q), MODULUS_BYTES),
        d: number(&d, MODULUS_BYTES),
        p: number(&p, PRIME_BYTES),
        q: number(&q, PRIME_BYTES),
    }
}

/// Returns the positions of two different primes, the larger prime first.
fn pair(runner: u64, primes: usize) -> (usize, usize) {
    let pairs = primes * (primes - 1) / 2;
    let mut left = usize::try_from(runner).unwrap_or(0) % pairs;
    for first in 0..primes {
        let with_first = primes - 1 - first;
        if left < with_first {
            return (first, first + 1 + left);
        }
        left -= with_first;
    }
    (0, 1)
}

/// Returns a number at its full length, because .NET refuses shorter ones.
fn number(value: &BigUint, length: usize) -> String {
    let bytes = value.to_bytes_be();
    let mut padded = vec![0; length.saturating_sub(bytes.len())];
    padded.extend(bytes);
    STANDARD.encode(padded)
}

/// Signs `message`.
pub(crate) fn sign(
    key: &RsaParametersFile,
    algorithm: SignatureAlgorithm,
    message: &[u8],
) -> Result<Vec<u8>, RunnerKeyError> {
    let part = |text: &str| STANDARD.decode(text).map_err(|_| RunnerKeyError::Base64);
    let (modulus, exponent, secret) = (part(&key.modulus)?, part(&key.exponent)?, part(&key.d)?);
    let (larger, smaller) = (part(&key.p)?, part(&key.q)?);
    let (dp, dq, inverse) = (part(&key.dp)?, part(&key.dq)?, part(&key.inverse_q)?);
    // A file has `d` at its full length. ring refuses a zero at its beginning, and at none of the others.
    let zeros = secret.iter().take_while(|byte| **byte == 0).count();
    let pair = RsaKeyPair::from_components(&KeyPairComponents {
        public_key: PublicKeyComponents {
            n: &modulus,
            e: &exponent,
        },
        d: &secret[zeros..],
        p: &larger,
        q: &smaller,
        dP: &dp,
        dQ: &dq,
        qInv: &inverse,
    })
    .map_err(|_| RunnerKeyError::Key)?;
    let mut signature = vec![0; pair.public().modulus_len()];
    let random = SystemRandom::new();
    match algorithm {
        SignatureAlgorithm::Rs256 => pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature),
        SignatureAlgorithm::Ps256 => pair.sign(&RSA_PSS_SHA256, &random, message, &mut signature),
    }
    .map_err(|_| RunnerKeyError::Sign)?;
    Ok(signature)
}

/// Tells whether `signature` belongs to `message` and to the public key with this modulus in base64.
pub(crate) fn verifies(
    modulus: &str,
    algorithm: SignatureAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Ok(n) = STANDARD.decode(modulus) else {
        return false;
    };
    let key = RsaPublicKeyComponents {
        n: &n[..],
        e: &EXPONENT_BYTES[..],
    };
    match algorithm {
        SignatureAlgorithm::Rs256 => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
        SignatureAlgorithm::Ps256 => key.verify(&RSA_PSS_2048_8192_SHA256, message, signature),
    }
    .is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_sign_with_both_algorithms_and_for_no_other_key() {
        for runner in [0, 62, 63, 2_015] {
            let (key, other) = (key_of(runner), key_of(runner + 1));
            for algorithm in [SignatureAlgorithm::Rs256, SignatureAlgorithm::Ps256] {
                let signature = sign(&key, algorithm, b"text").unwrap();
                let holds = |key: &RsaParametersFile, algorithm, text: &[u8]| {
                    verifies(&key.modulus, algorithm, text, &signature)
                };
                assert!(holds(&key, algorithm, b"text"));
                assert!(!holds(&key, algorithm, b"other"));
                assert!(!holds(&other, algorithm, b"text"));
                let not = match algorithm {
                    SignatureAlgorithm::Rs256 => SignatureAlgorithm::Ps256,
                    SignatureAlgorithm::Ps256 => SignatureAlgorithm::Rs256,
                };
                assert!(!holds(&key, not, b"text"));
            }
        }
    }

    #[test]
    fn each_pair_of_primes_is_a_key() {
        let pairs: BTreeSet<_> = (0..2_016).map(|runner| pair(runner, 64)).collect();
        assert_eq!(pairs.len(), 2_016);
        assert!(
            pairs
                .iter()
                .all(|(first, second)| first < second && *second < 64)
        );
        assert_eq!(pair(2_016, 64), pair(0, 64));
    }

    #[test]
    fn each_key_signs() {
        let refused: Vec<u64> = (0..2_016)
            .filter(|runner| sign(&key_of(*runner), SignatureAlgorithm::Rs256, b"text").is_err())
            .collect();
        assert_eq!(refused, [0; 0]);
    }
}
