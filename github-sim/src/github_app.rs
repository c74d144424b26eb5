//! GitHub Apps: the check of a JWT, and installation tokens with their grants.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

use crate::scope::Scope;

/// Private key of [`GitHubApp::example`]. It was made for this purpose and gives access to nothing.
pub const APP_KEY: &str = include_str!("app-key.pem");

/// Maximum lifetime of a JWT in seconds. GitHub refuses longer ones.
const LONGEST_JWT_S: u64 = 600;

/// A GitHub App that is installed in the account of every scope.
#[derive(Clone, Debug)]
pub struct GitHubApp {
    pub(crate) id: u64,
    pub(crate) client_id: String,
    /// `RSAPublicKey` in DER.
    public_key: Vec<u8>,
}

/// Failure to read the private key of a GitHub App. The error does not contain the key.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read the GitHub App's private key: it is not an RSA key of 2048 bits or more in PEM; use the file that GitHub gave (BEGIN RSA PRIVATE KEY)"
)]
pub struct AppKeyError;

impl GitHubApp {
    /// Returns an App with its id, its client id, and its private key in PEM.
    pub fn new(id: u64, client_id: &str, private_key: &str) -> Result<Self, AppKeyError> {
        let body: String = private_key
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .map(str::trim)
            .collect();
        let der = BASE64_STANDARD.decode(body).map_err(|_| AppKeyError)?;
        let pair = RsaKeyPair::from_der(&der).map_err(|_| AppKeyError)?;
        Ok(Self {
            id,
            client_id: client_id.into(),
            public_key: pair.public_key().as_ref().to_vec(),
        })
    }

    /// Returns App 123456 with client id `Iv23liSTANDIN` and the key [`APP_KEY`].
    ///
    /// # Panics
    /// Never, because the key is a part of the program.
    #[must_use]
    #[expect(clippy::expect_used, reason = "tests read this constant key")]
    pub fn example() -> Self {
        Self::new(123_456, "Iv23liSTANDIN", APP_KEY).expect("a valid key")
    }

    /// Checks a JWT as GitHub does. The error is GitHub's.
    pub(crate) fn check(&self, jwt: &str, now_s: u64) -> Result<(), &'static str> {
        const UNREADABLE: &str = "A JSON web token could not be decoded";
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| UNREADABLE);
        let (signed, signature) = jwt.rsplit_once('.').ok_or(UNREADABLE)?;
        let (header, claims) = signed.split_once('.').ok_or(UNREADABLE)?;
        let header: Header = serde_json::from_slice(&part(header)?).map_err(|_| UNREADABLE)?;
        if header.alg != "RS256" {
            return Err(UNREADABLE);
        }
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key)
            .verify(signed.as_bytes(), &part(signature)?)
            .map_err(|_| UNREADABLE)?;
        let claims: Claims = serde_json::from_slice(&part(claims)?).map_err(|_| UNREADABLE)?;
        let by = claims
            .iss
            .as_str()
            .map_or_else(|| claims.iss.to_string(), str::to_owned);
        if by != self.client_id && by != self.id.to_string() {
            return Err(
                "'Issuer' claim ('iss') must be an Integer or the client ID of the GitHub App",
            );
        }
        let since = claims.iat.as_u64().filter(|at| *at <= now_s).ok_or(
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was since",
        )?;
        let expires = claims.exp.as_u64().filter(|at| *at > now_s).ok_or(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        )?;
        if expires > now_s + LONGEST_JWT_S || expires > since + LONGEST_JWT_S {
            return Err("'Expiration time' claim ('exp') is too far in the future");
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    iat: Value,
    #[serde(default)]
    exp: Value,
}

/// A token that an installation of the App was given.
#[derive(Clone, Debug)]
pub(crate) struct InstallationToken {
    pub(crate) token: String,
    pub(crate) installation: u64,
    pub(crate) expires_ms: u64,
    pub(crate) permissions: BTreeMap<String, String>,
    /// Names of repositories; absent for all of the account.
    pub(crate) repositories: Option<Vec<String>>,
}

impl InstallationToken {
    /// Tells whether the token has not expired.
    pub(crate) fn is_valid(&self, now: u64) -> bool {
        now < self.expires_ms
    }

    /// Returns the account whose limits the token spends: the installation, whatever its tokens.
    pub(crate) fn account(&self) -> String {
        format!("installation {}", self.installation)
    }

    /// Tells whether the token has a permission of at least this level in `scope`.
    pub(crate) fn grant(&self, scope: &Scope, (name, least): (&str, &str)) -> Grant {
        if let Scope::Repository { name, .. } = scope
            && let Some(named) = &self.repositories
            && !named.iter().any(|one| one.eq_ignore_ascii_case(name))
        {
            return Grant::Hidden;
        }
        // A level includes those below it.
        let holds = |level: &String| level == least || level == "write";
        if self.permissions.get(name).is_some_and(holds) {
            Grant::Given
        } else {
            Grant::Forbidden
        }
    }
}

/// Access of an installation token to a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The token has the permission.
    Given,
    /// The token lacks a permission.
    Forbidden,
    /// The token does not see the repository.
    Hidden,
}

/// Id of the first account's installation.
const FIRST_INSTALLATION: u64 = 50_000_000;

/// Returns the App's installation in an account. An account has one, for itself and for its repositories.
pub(crate) fn installation_of(scopes: &[Scope], owner: &str) -> Option<u64> {
    let first = scopes
        .iter()
        .position(|scope| scope.owner().eq_ignore_ascii_case(owner))?;
    Some(FIRST_INSTALLATION + first as u64)
}
