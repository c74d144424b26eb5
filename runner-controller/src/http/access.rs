//! Access to commands: peer credentials on the Unix socket, a token over TCP.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Body;
use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::{info, warn};

use crate::config::{API_TOKEN_CREDENTIAL, Config};

/// Minimum length of a token. A shorter one can be guessed.
const TOKEN_MIN_LENGTH: usize = 20;
/// Maximum length of a token.
const TOKEN_MAX_LENGTH: usize = 1024;

/// Access that a connection has.
#[derive(Debug, Clone)]
pub enum Access {
    /// Reading alone.
    ReadOnly,
    /// Reading, and commands that show this token.
    Token(ApiToken),
    /// Reading, and commands if the peer is root, the daemon's user or a member of its group.
    Peer(Peer),
}

/// Process at the other end of a Unix socket (unix(7), `SO_PEERCRED`).
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its primary group when it connected.
    pub gid: u32,
    /// Its process id, for the journal.
    pub pid: Option<i32>,
}

impl Peer {
    /// Returns true for root, the daemon's user and members of the daemon's group. Blocks, because it
    /// may look up the user.
    fn may_command(self) -> bool {
        let (uid, group) = (Uid::from_raw(self.uid), getegid());
        uid.is_root()
            || uid == geteuid()
            || Gid::from_raw(self.gid) == group
            || is_member(uid, group)
    }
}

/// Returns true if the group database lists the user in the group. The socket tells a peer's primary
/// group alone.
fn is_member(uid: Uid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else {
        return false;
    };
    let groups = std::ffi::CString::new(user.name)
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok());
    groups.is_some_and(|groups| groups.contains(&group))
}

/// Token of the API, as its digest. Digests have one length, so a comparison takes the same time for
/// every token that is sent.
#[derive(Clone)]
pub struct ApiToken([u8; 32]);

impl std::fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiToken(…)")
    }
}

/// Failure to load the token.
#[derive(Debug, thiserror::Error)]
pub enum ApiTokenError {
    /// The file cannot be read.
    #[error("cannot read the API token from {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The file does not hold a token.
    #[error("{} does not hold an API token: it must be one line of {TOKEN_MIN_LENGTH} to {TOKEN_MAX_LENGTH} letters, digits and punctuation; make one with `openssl rand -hex 32`", path.display())]
    Content {
        /// Path of the file.
        path: PathBuf,
    },
}

impl ApiToken {
    /// Loads the token from the credential `api-token` if systemd passed one, otherwise from the
    /// configured file. Returns none if the configuration names no file.
    pub fn load(config: &Config) -> Result<Option<Self>, ApiTokenError> {
        let Some(file) = &config.api_token_file else {
            return Ok(None);
        };
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
            .map(|dir| Path::new(&dir).join(API_TOKEN_CREDENTIAL))
            .filter(|path| path.exists());
        Self::read(&credential.unwrap_or_else(|| file.clone())).map(Some)
    }

    fn read(path: &Path) -> Result<Self, ApiTokenError> {
        let mut text = Vec::new();
        let limit = u64::try_from(TOKEN_MAX_LENGTH + 2).unwrap_or(u64::MAX);
        File::open(path)
            .and_then(|file| file.take(limit).read_to_end(&mut text))
            .map_err(|source| ApiTokenError::Read {
                path: path.to_owned(),
                source,
            })?;
        let token = text.trim_ascii();
        let good = (TOKEN_MIN_LENGTH..=TOKEN_MAX_LENGTH).contains(&token.len())
            && token.iter().all(u8::is_ascii_graphic);
        if good {
            Ok(Self::of(token))
        } else {
            Err(ApiTokenError::Content {
                path: path.to_owned(),
            })
        }
    }

    pub(super) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Returns true if exactly one header shows the token (RFC 6750 section 2.1).
    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (shown.next(), shown.next()) else {
            return false;
        };
        let Some((scheme, token)) = value.as_bytes().split_at_checked("Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ")
            && bool::from(Self::of(token.trim_ascii()).0.ct_eq(&self.0))
    }
}

/// Middleware of the commands: passes a request on if its connection's access permits commands, and
/// logs who sent it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let refuse = |status: StatusCode, reason: &'static str| (status, reason).into_response();
    // Commands have no body, so the server never waits for one.
    if !request.body().is_end_stream() {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a command has no body");
    }
    // A browser sends this line with every POST. It has pages of strangers, and may reach this API by a tunnel.
    if request.headers().contains_key(header::ORIGIN) {
        return refuse(
            StatusCode::FORBIDDEN,
            "a browser may not send commands; run the command on the host",
        );
    }
    match request.extensions().get::<Access>() {
        Some(Access::Token(token)) if token.is_shown(request.headers()) => {
            info!(command = path, "API command {path} accepted by token");
        }
        Some(Access::Token(_)) => {
            warn!(
                command = path,
                "API command {path} refused: token is missing or wrong"
            );
            let mut answer = refuse(
                StatusCode::UNAUTHORIZED,
                "the token of api_token_file is missing or wrong; send it as `Authorization: Bearer TOKEN`",
            );
            let scheme = header::HeaderValue::from_static("Bearer");
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
            return answer;
        }
        Some(Access::Peer(peer)) => {
            let peer = *peer;
            let (uid, pid) = (peer.uid, peer.pid);
            let allowed = tokio::task::spawn_blocking(move || peer.may_command()).await;
            if !allowed.unwrap_or(false) {
                warn!(
                    command = path,
                    uid, pid, "API command {path} refused to uid {uid}"
                );
                return refuse(
                    StatusCode::FORBIDDEN,
                    "permission denied; be root or join the group runner-controller",
                );
            }
            info!(
                command = path,
                uid, pid, "API command {path} accepted from uid {uid}"
            );
        }
        Some(Access::ReadOnly) | None => {
            return refuse(
                StatusCode::FORBIDDEN,
                "this address is read-only; use the Unix socket or set api_token_file",
            );
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn shown(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        ApiToken::of(TOKEN.as_bytes()).is_shown(&headers)
    }

    #[test]
    fn only_the_exact_token_is_accepted() {
        let good = format!("Bearer {TOKEN}");
        assert!(shown(&[&good]));
        assert!(shown(&[&format!("bearer {TOKEN}")]));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            &format!("Basic {TOKEN}"),
            &format!("Bearer {TOKEN}0"),
            &format!("Bearer {}", &TOKEN[1..]),
            &format!("Bearer {}", TOKEN.to_uppercase()),
            &format!("Bearer Bearer {TOKEN}"),
        ] {
            assert!(!shown(&[bad]), "{bad:?}");
        }
        assert!(!shown(&[]));
        assert!(!shown(&["Bearer x", &good]), "two tokens are ambiguous");
    }

    #[test]
    fn a_file_without_a_token_is_refused_and_its_content_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            ApiToken::read(&file)
        };
        assert!(
            read(&format!("{TOKEN}\n"))
                .is_ok_and(|token| token.0 == ApiToken::of(TOKEN.as_bytes()).0)
        );
        let long = "x".repeat(TOKEN_MAX_LENGTH + 1);
        for bad in [
            "",
            "short-secret",
            "two words that are long enough",
            "secret\nsecret\nsecret\nsecret",
            &long,
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("does not hold an API token"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(matches!(
            ApiToken::read(Path::new("/nonexistent/token")),
            Err(ApiTokenError::Read { .. })
        ));
    }

    #[test]
    fn commands_are_for_root_the_daemons_user_and_its_group() {
        let peer = |uid, gid| Peer {
            uid,
            gid,
            pid: None,
        };
        assert!(peer(0, 0).may_command());
        assert!(peer(geteuid().as_raw(), 65_533).may_command());
        assert!(peer(65_534, getegid().as_raw()).may_command());
        // Root of a container, and the overflow user.
        assert!(!peer(0x1000_0000, 0x1000_0000).may_command());
        assert!(!peer(65_534, 65_534).may_command());
    }
}
