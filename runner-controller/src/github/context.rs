//! The facts that errors about one scope are made of, and the errors that have no answer behind them.

use std::error::Error;

use http::{HeaderMap, StatusCode};

use super::app::Access;
use super::budget::Withheld;
use super::operation::Operation;
use super::secrets::Secrets;
use crate::config::LoginConfig;
use crate::world::{RegistryError, RegistryErrorKind};

/// Maximum length of a message, in characters.
const MAX_MESSAGE: usize = 300;

/// The facts about one scope that errors name or must not name.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// The configured credentials.
    pub(super) login: LoginConfig,
    /// Name of the scope's table in the configuration, for advice.
    pub(super) table: String,
    /// `owner/repo` or the organisation.
    pub(super) scope: String,
    /// Access that its requests need.
    pub(super) access: Access,
    /// The tokens that no message may contain.
    pub(super) secrets: Secrets,
}

impl Context {
    /// Returns the text as one bounded line without control characters and without a secret.
    pub(super) fn clean(&self, text: &str) -> String {
        let text = self.secrets.hide(text);
        let mut clean = String::new();
        for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
            if !word.is_empty() {
                if !clean.is_empty() {
                    clean.push(' ');
                }
                clean.push_str(word);
            }
        }
        if let Some((end, _)) = clean.char_indices().nth(MAX_MESSAGE) {
            clean.truncate(end);
            clean.push('…');
        }
        clean
    }

    /// Returns an advice in which `{table}` stands for the scope's table in the configuration.
    pub(super) fn advise(&self, advice: &str) -> String {
        advice.replace("{table}", &self.table)
    }

    /// Returns an error without an answer behind it.
    pub(super) fn error(
        &self,
        operation: Operation,
        kind: RegistryErrorKind,
        message: &str,
    ) -> RegistryError {
        RegistryError {
            operation: operation.name(),
            kind,
            status: None,
            message: self.clean(message),
            advice: None,
            request_id: None,
            retry_after: None,
        }
    }

    /// Returns the error for an answer that came whole and is not what GitHub documents. `problem`
    /// must not quote the answer, because a JIT config or a token may be in it.
    pub(super) fn misshapen(
        &self,
        operation: Operation,
        status: StatusCode,
        headers: &HeaderMap,
        problem: &str,
    ) -> RegistryError {
        RegistryError {
            status: Some(status.as_u16()),
            advice: Some(
                self.advise("check that {table}.api_url is the base of GitHub's REST API"),
            ),
            request_id: request_id(headers),
            ..self.error(operation, RegistryErrorKind::Server, problem)
        }
    }

    /// Returns the error for a request that was not sent because of a limit.
    pub(super) fn withheld(&self, operation: Operation, withheld: &Withheld) -> RegistryError {
        RegistryError {
            retry_after: Some(withheld.wait),
            ..self.error(
                operation,
                RegistryErrorKind::Limited,
                &format!("not sent: {}", withheld.why),
            )
        }
    }

    /// Returns the error for a request that got no whole answer.
    pub(super) fn unreachable(&self, operation: Operation, message: &str) -> RegistryError {
        let advice = if message.contains("proxy authorization") {
            Some("check {table}.proxy.credentials_file")
        } else if message.contains("tunnel") {
            Some("check {table}.proxy, and whether the proxy allows connections to GitHub")
        } else if message.contains("lookup") {
            Some("check {table}.api_url and this host's DNS")
        } else if message.contains("not valid for name") {
            Some("check {table}.api_url, because the server has a certificate for other names")
        } else if message.contains("certificate expired") || message.contains("not valid yet") {
            Some("check this host's clock, and whether the server's certificate is up to date")
        } else if message.contains("certificate") {
            Some(
                "install the certificate authority of the server on this host, or name its file in {table}.ca_file",
            )
        } else {
            None
        };
        RegistryError {
            advice: advice.map(|advice| self.advise(advice)),
            ..self.error(operation, RegistryErrorKind::Unreachable, message)
        }
    }
}

/// Returns `X-GitHub-Request-Id`, if its value looks like an id.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-github-request-id")?.to_str().ok()?.trim();
    let good = !id.is_empty() && id.len() <= 100 && id.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| id.to_owned())
}

/// Returns an error and its causes in one line, outermost first, none said twice.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}
