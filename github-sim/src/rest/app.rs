//! GitHub Apps: who shows a JWT may ask for its installation, and for a token that works for an hour.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hyper::StatusCode;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors;
use crate::{
    http::{Call, Reply},
    random,
    scope::Scope,
    settings::Settings,
    state::State,
};

/// GitHub takes no JWT that lasts longer.
const LONGEST_JWT_S: u64 = 600;
const FIRST_INSTALLATION: u64 = 50_000_000;
const SLUG: &str = "stand-in";

/// An App that exists, installed in the account of every scope.
#[derive(Clone, Debug)]
pub struct App {
    id: u64,
    client_id: String,
    /// `RSAPublicKey` in DER.
    public_key: Vec<u8>,
}

/// Why a key is no App's.
#[derive(Debug, thiserror::Error)]
#[error(
    "not an RSA key of 2048 bits or more in PEM, as GitHub gives to Apps (BEGIN RSA PRIVATE KEY)"
)]
pub struct AppKeyError;

impl App {
    /// An App by its id, its client id, and the private key that GitHub gave it.
    ///
    /// # Errors
    /// The text is no such key. It is not in the error.
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

    /// App 123456, client id `Iv23liSTANDIN`, with the key [`APP_KEY`](crate::APP_KEY).
    ///
    /// # Panics
    /// Never: the key is a part of the program.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a constant, and a test looks at it")]
    pub fn example() -> Self {
        Self::new(123_456, "Iv23liSTANDIN", crate::APP_KEY).expect("the key is one")
    }

    /// Whether GitHub would take this JWT; the error is GitHub's.
    fn check(&self, jwt: &str, now_s: u64) -> Result<(), &'static str> {
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

/// A token that an installation was given.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    installation: u64,
    expires_ms: u64,
    permissions: BTreeMap<String, String>,
    /// All of the account's, if none are named.
    repositories: Option<Vec<String>>,
}

impl Issued {
    pub(crate) fn is_valid(&self, now: u64) -> bool {
        now < self.expires_ms
    }

    /// Limits are an installation's, however many tokens it has.
    pub(crate) fn account(&self) -> String {
        format!("installation {}", self.installation)
    }

    /// Whether it may manage the runners of a scope; the error is GitHub's.
    pub(crate) fn may_use(&self, state: &State, scope: &Scope) -> Result<(), Reply> {
        if state.settings.app_suspended {
            return Err(suspended());
        }
        if installation_of(state, scope) != Some(self.installation) {
            return Err(errors::not_found());
        }
        let permission = match scope {
            Scope::Organization(_) => "organization_self_hosted_runners",
            Scope::Repository { name, .. } => {
                if let Some(named) = &self.repositories
                    && !named.iter().any(|one| one.eq_ignore_ascii_case(name))
                {
                    return Err(errors::not_found());
                }
                "administration"
            }
        };
        if self
            .permissions
            .get(permission)
            .is_some_and(|level| level == "write")
        {
            Ok(())
        } else {
            Err(errors::plain(
                StatusCode::FORBIDDEN,
                "Resource not accessible by integration",
            ))
        }
    }
}

/// True for a JWT of ours; the error is GitHub's.
pub(crate) fn check_jwt(state: &State, call: &Call, now: u64) -> Result<(), Reply> {
    let refuse = |message: &str| errors::plain(StatusCode::UNAUTHORIZED, message);
    let jwt = call
        .bearer()
        .ok_or_else(|| refuse("A JSON web token could not be decoded"))?;
    match &state.app {
        None => Err(refuse("Integration not found")),
        Some(app) => app.check(jwt, now / 1000).map_err(refuse),
    }
}

/// `GET …/installation`
pub(crate) fn installation(state: &State, scope: &Scope) -> Result<Reply, Reply> {
    let app = state.app.as_ref().ok_or_else(errors::not_found)?;
    let id = installation_of(state, scope).ok_or_else(errors::not_found)?;
    let account = scope.owner();
    let url = &state.public_url;
    let at = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH).to_string();
    let suspended_at = state.settings.app_suspended.then(|| at.clone());
    Ok(Reply::json(
        StatusCode::OK,
        &json!({
            "id": id,
            "account": null,
            "repository_selection": "all",
            "access_tokens_url": format!("{url}/app/installations/{id}/access_tokens"),
            "repositories_url": format!("{url}/installation/repositories"),
            "html_url": format!("{url}/{account}/settings/installations/{id}"),
            "app_id": app.id,
            "client_id": app.client_id,
            "app_slug": SLUG,
            "target_id": id,
            "target_type": "Organization",
            "permissions": state.settings.app_permissions,
            "events": [],
            "created_at": at,
            "updated_at": at,
            "single_file_name": null,
            "suspended_by": null,
            "suspended_at": suspended_at,
        }),
    ))
}

/// `POST /app/installations/{id}/access_tokens`
pub(crate) fn access_token(
    state: &mut State,
    now: u64,
    id: &str,
    body: &Value,
) -> Result<Reply, Reply> {
    let id: u64 = id.parse().map_err(|_| errors::not_found())?;
    let app = state.app.as_ref().ok_or_else(errors::not_found)?;
    let here: Vec<&Scope> = state
        .scopes
        .iter()
        .filter(|scope| installation_of(state, scope) == Some(id))
        .collect();
    if here.is_empty() {
        return Err(errors::not_found());
    }
    if state.settings.app_suspended {
        return Err(suspended());
    }
    let repositories: Option<Vec<String>> = body["repositories"].as_array().map(|names| {
        names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    });
    let exists = |wanted: &String| {
        here.iter()
            .any(|scope| matches!(scope, Scope::Repository { name, .. } if name.eq_ignore_ascii_case(wanted)))
    };
    if !repositories.iter().flatten().all(exists) {
        return Err(errors::unprocessable(
            "There is at least one repository that does not exist or is not accessible to the parent installation.",
            &[],
        ));
    }
    let permissions = granted(&state.settings, &body["permissions"])?;
    let issued = Issued {
        token: format!("ghs_{}_{}", app.id, random::text::<360>()),
        installation: id,
        expires_ms: now + state.settings.app_token_ms,
        permissions,
        repositories,
    };
    let expires = std::time::UNIX_EPOCH + std::time::Duration::from_millis(issued.expires_ms);
    let reply = Reply::json(
        StatusCode::CREATED,
        &json!({
            "token": issued.token,
            "expires_at": humantime::format_rfc3339_seconds(expires).to_string(),
            "permissions": issued.permissions,
            "repository_selection": if issued.repositories.is_some() { "selected" } else { "all" },
        }),
    );
    state.issued.retain(|other| other.is_valid(now));
    state.issued.push(issued);
    Ok(reply)
}

/// What is asked for, if the installation has it; all that it has, if nothing is.
fn granted(settings: &Settings, asked: &Value) -> Result<BTreeMap<String, String>, Reply> {
    let Some(asked) = asked.as_object() else {
        return Ok(settings.app_permissions.clone());
    };
    let has = |(name, level): (&String, &Value)| match settings.app_permissions.get(name) {
        Some(held) => level == held || level == "read",
        None => false,
    };
    if !asked.iter().all(has) {
        return Err(errors::unprocessable(
            "The permissions requested are not granted to this installation.",
            &[],
        ));
    }
    let text = |level: &Value| level.as_str().unwrap_or_default().to_owned();
    Ok(asked
        .iter()
        .map(|(name, level)| (name.clone(), text(level)))
        .collect())
}

fn suspended() -> Reply {
    errors::plain(
        StatusCode::FORBIDDEN,
        "This installation has been suspended",
    )
}

/// An account has one installation, for itself and for its repositories.
fn installation_of(state: &State, scope: &Scope) -> Option<u64> {
    let known = state.scopes.contains(scope);
    let first = state
        .scopes
        .iter()
        .position(|other| other.owner().eq_ignore_ascii_case(scope.owner()))?;
    known.then(|| FIRST_INSTALLATION + first as u64)
}
