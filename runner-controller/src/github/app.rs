//! A GitHub App: the App's key signs a JWT, and GitHub exchanges the JWT for a token of the App's
//! installation, narrowed to runners or to jobs. Source: GitHub, "Authenticating as a GitHub App installation".
//!
//! The JWT is signed with ring, which TLS brings. octocrab's own signing needs a second crypto library,
//! and cannot name an App by its client id (see `authority`).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::token::Token;
use crate::config::Scope;

/// Time by which a JWT is dated back, in case this host's clock is fast.
const JWT_BACKDATED: Duration = Duration::from_mins(1);
/// Lifetime of a JWT. GitHub accepts ten minutes at most.
const JWT_LASTS: Duration = Duration::from_mins(9);

/// Time before its end at which a token is renewed, but not before half of its lifetime. A renewal
/// that fails within this time does no harm.
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// Maximum additional time before the end, chosen at random so that a fleet does not renew at once.
const RENEW_SPREAD: Duration = Duration::from_mins(1);
/// Interval between attempts to renew a token that still works.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// An App's private key.
pub struct AppKey {
    id: String,
    pair: KeyPair,
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppKey({})", self.id)
    }
}

impl AppKey {
    /// Reads the key of App `id` from PEM, as GitHub issues it (PKCS #1) or as other tools write it
    /// (PKCS #8).
    ///
    /// # Errors
    /// The rule that the text breaks. The error does not contain the text.
    pub fn new(id: &str, pem: &str) -> Result<Self, &'static str> {
        const RULE: &str = "the file is not a private RSA key in PEM; use the .pem file that GitHub issued for the App";
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| RULE)?;
        let pair = match &key {
            PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            // Elliptic curves, and kinds that are not known yet.
            PrivateKeyDer::Sec1(_) | _ => return Err(RULE),
        };
        Ok(Self {
            id: id.to_owned(),
            pair: pair.map_err(|_| RULE)?,
        })
    }

    /// Returns a JWT of the App for the next minutes.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(super) fn jwt(&self, now: SystemTime) -> Result<Token, &'static str> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = now.saturating_sub(JWT_BACKDATED);
        // GitHub knows an App by its number and by its client id.
        let issuer = self
            .id
            .parse::<u64>()
            .map_or_else(|_| json!(self.id), Value::from);
        let claims = json!({
            "iss": issuer,
            "iat": since.as_secs(),
            "exp": (since + JWT_LASTS).as_secs(),
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "RS256", "typ": "JWT"});
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| "cannot sign with the App's key: the system has no randomness")?;
        Token::new(&format!(
            "{signed}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(signature)
        ))
    }
}

/// Access that a client needs, and the only one that an App's token for it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// The runners of a scope.
    Runners,
    /// The jobs of its repositories, to read.
    Jobs,
    /// The hooks of the scope and their deliveries.
    Hooks,
    /// Settings and hook of an App, for which its JWT is the token.
    Itself,
}

impl Access {
    /// Returns advice on permissions for an answer in which GitHub names none.
    pub(super) fn permissions(self) -> &'static str {
        match self {
            Self::Runners => {
                "the token needs `Administration: write` of the repository, or `Self-hosted runners: write` of the organisation (classic tokens: `repo`, `admin:org`; for an enterprise `manage_runners:enterprise`)"
            }
            Self::Jobs => {
                "the token needs `Actions: read` of the repository (classic tokens: `repo`)"
            }
            Self::Hooks => {
                "the token needs `Webhooks: write` of the repository or organisation (classic tokens: `admin:repo_hook`, `admin:org_hook`)"
            }
            Self::Itself => "the App needs an active hook",
        }
    }

    /// Returns the request body that narrows a token of a scope.
    pub(super) fn narrowed(self, scope: &Scope) -> Value {
        let permissions = match (self, scope) {
            // The configuration refuses it, because GitHub lets no App manage these runners.
            (_, Scope::Enterprise { .. }) => json!({}),
            (Self::Jobs, _) => json!({"actions": "read"}),
            (Self::Hooks, Scope::Repository { .. }) => json!({"repository_hooks": "write"}),
            (Self::Hooks, Scope::Organization { .. }) => json!({"organization_hooks": "write"}),
            // A JWT is not narrowed.
            (Self::Itself, _) => json!({}),
            (Self::Runners, Scope::Repository { .. }) => json!({"administration": "write"}),
            (Self::Runners, Scope::Organization { .. }) => {
                json!({"organization_self_hosted_runners": "write"})
            }
        };
        match scope {
            Scope::Repository { repo, .. } => {
                json!({"repositories": [repo], "permissions": permissions})
            }
            Scope::Organization { .. } | Scope::Enterprise { .. } => {
                json!({"permissions": permissions})
            }
        }
    }
}

/// The answer to `GET …/installation`, as far as it is used. octocrab's `Installation` requires an
/// account with more fields than GitHub promises (octocrab 0.54.9, src/models.rs:1377).
#[derive(Deserialize)]
pub(super) struct Installation {
    pub(super) id: u64,
}

/// The answer to `POST /app/installations/{id}/access_tokens`, as far as it is used.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    token: String,
    /// RFC 3339.
    expires_at: String,
}

impl TokenAnswer {
    /// Returns the token that an answer of `answered_at`, by GitHub's clock, brings.
    ///
    /// # Errors
    /// The rule that the answer breaks.
    pub(super) fn read(
        &self,
        answered_at: SystemTime,
        now: Instant,
        random: f64,
    ) -> Result<InstallationToken, &'static str> {
        let ends = humantime::parse_rfc3339_weak(&self.expires_at);
        let lasts = ends
            .ok()
            .and_then(|end| end.duration_since(answered_at).ok());
        let lasts =
            lasts.ok_or("the token has expired already, or its expires_at is not a time")?;
        let token = Token::new(&self.token).map_err(|_| "the answer contains no token")?;
        Ok(InstallationToken::new(token, lasts, now, random))
    }
}

/// A token of an installation.
#[derive(Debug, Clone)]
pub(super) struct InstallationToken {
    pub(super) token: Token,
    renew_at: Instant,
    ends_at: Instant,
}

impl InstallationToken {
    /// `random`, from 0 to 1, spreads the renewals of a fleet.
    fn new(token: Token, lasts: Duration, now: Instant, random: f64) -> Self {
        let early = RENEW_BEFORE + RENEW_SPREAD.mul_f64(random.clamp(0.0, 1.0));
        Self {
            token,
            renew_at: now + lasts.saturating_sub(early).max(lasts / 2),
            ends_at: now + lasts,
        }
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now < self.renew_at
    }

    /// Puts the renewal off. Returns false if the token has ended.
    pub(super) fn postpone_renewal(&mut self, now: Instant) -> bool {
        self.renew_at = (now + RENEW_AGAIN).min(self.ends_at);
        now < self.ends_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_names_its_app_and_its_lifetime() {
        let key = AppKey::new("123456", github_sim::APP_KEY).unwrap();
        let jwt = key
            .jwt(UNIX_EPOCH + Duration::from_secs(1_000_000))
            .unwrap();
        let claims = jwt.expose().split('.').nth(1).unwrap();
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(
            claims,
            json!({"iss": 123_456, "iat": 999_940, "exp": 1_000_480})
        );
    }

    #[test]
    fn text_that_is_not_a_key_is_refused_and_not_shown() {
        for text in [
            "",
            "secret",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ] {
            let error = AppKey::new("1", text).unwrap_err();
            assert!(error.contains("PEM") && !error.contains("secret"));
        }
        let shown = format!("{:?}", AppKey::new("7", github_sim::APP_KEY).unwrap());
        assert_eq!(shown, "AppKey(7)");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_early_and_used_to_its_end() {
        let now = Instant::now();
        let token = Token::new("ghs_one").unwrap();
        let mut held = InstallationToken::new(token.clone(), Duration::from_hours(1), now, 0.5);
        let minute = Duration::from_mins(1);
        assert!(held.is_fresh(now + 54 * minute) && !held.is_fresh(now + 55 * minute));
        assert!(held.postpone_renewal(now + 55 * minute));
        assert!(held.is_fresh(now + 55 * minute + Duration::from_secs(29)));
        assert!(!held.postpone_renewal(now + 60 * minute));
        // A token that lasts only minutes is not renewed all the time.
        let short = InstallationToken::new(token, 4 * minute, now, 1.0);
        assert!(short.is_fresh(now + minute) && !short.is_fresh(now + 2 * minute));
    }
}
