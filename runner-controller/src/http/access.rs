//! Who may change something: over the Unix socket by who they are, over TCP by a token.

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

use crate::config::Config;

/// The credential that systemd passes, if a token is configured.
pub const CREDENTIAL: &str = "api-token";

/// Fewer characters can be guessed.
const TOKEN_MIN: usize = 20;
const TOKEN_MAX: usize = 1024;

/// What a connection may do besides looking.
#[derive(Debug, Clone)]
pub enum Access {
    /// Nothing.
    ReadOnly,
    /// Everything, for who shows this token.
    Token(ApiToken),
    /// Everything, for root, the daemon's user and members of its group.
    Peer(Peer),
}

/// Who is on the other end of a Unix socket (unix(7), `SO_PEERCRED`).
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// Its group when it connected.
    pub gid: u32,
    /// The process, for the journal.
    pub pid: Option<i32>,
}

impl Peer {
    /// True if it is root, ourselves, or in our group. Blocks to look it up.
    fn may_change(self) -> bool {
        let (uid, group) = (Uid::from_raw(self.uid), getegid());
        uid.is_root()
            || uid == geteuid()
            || Gid::from_raw(self.gid) == group
            || is_member(uid, group)
    }
}

/// A process may have joined with that group beside its own: then its user is a member.
fn is_member(uid: Uid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else {
        return false;
    };
    let groups = std::ffi::CString::new(user.name)
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok());
    groups.is_some_and(|groups| groups.contains(&group))
}

/// The token for TCP, as its digest: two digests are of one length, so that comparing takes as long
/// whatever was sent.
#[derive(Clone)]
pub struct ApiToken([u8; 32]);

impl std::fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiToken(…)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum ApiTokenError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{} holds no token: {TOKEN_MIN} to {TOKEN_MAX} letters, digits and signs, on one line; `openssl rand -hex 32` makes one", path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

impl ApiToken {
    /// Reads the credential `api-token` if systemd passed one, else the configured file; none if
    /// none is configured.
    pub fn load(config: &Config) -> Result<Option<Self>, ApiTokenError> {
        let Some(file) = &config.api_token_file else {
            return Ok(None);
        };
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
            .map(|dir| Path::new(&dir).join(CREDENTIAL))
            .filter(|path| path.exists());
        Self::read(&credential.unwrap_or_else(|| file.clone())).map(Some)
    }

    fn read(path: &Path) -> Result<Self, ApiTokenError> {
        let mut text = Vec::new();
        let limit = u64::try_from(TOKEN_MAX + 2).unwrap_or(u64::MAX);
        File::open(path)
            .and_then(|file| file.take(limit).read_to_end(&mut text))
            .map_err(|source| ApiTokenError::Read {
                path: path.to_owned(),
                source,
            })?;
        let token = text.trim_ascii();
        let good = (TOKEN_MIN..=TOKEN_MAX).contains(&token.len())
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

    /// True if exactly one header shows it (RFC 6750 section 2.1).
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

/// Lets a request for a change through to the controller, if who sent it may.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let refuse = |status: StatusCode, why: &'static str| (status, why).into_response();
    // No command has one, so none is waited for.
    if !request.body().is_end_stream() {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "send no body");
    }
    match request.extensions().get::<Access>() {
        Some(Access::Token(token)) if token.is_shown(request.headers()) => {
            info!(command = path, "{path} asked for with the token");
        }
        Some(Access::Token(_)) => {
            warn!(command = path, "{path} refused: no token, or a wrong one");
            let mut answer = refuse(StatusCode::UNAUTHORIZED, "show the token of api_token_file");
            let how = header::HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, how);
            return answer;
        }
        Some(Access::Peer(peer)) => {
            let peer = *peer;
            let (uid, pid) = (peer.uid, peer.pid);
            let may = tokio::task::spawn_blocking(move || peer.may_change()).await;
            if !may.unwrap_or(false) {
                warn!(command = path, uid, pid, "{path} refused to uid {uid}");
                return refuse(
                    StatusCode::FORBIDDEN,
                    "be root or join the group runner-controller",
                );
            }
            info!(command = path, uid, pid, "{path} asked for by uid {uid}");
        }
        Some(Access::ReadOnly) | None => {
            return refuse(
                StatusCode::FORBIDDEN,
                "this address only shows; use the Unix socket, or configure api_token_file",
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
    fn only_the_very_token_is_taken() {
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
        assert!(!shown(&["Bearer x", &good]), "which of two was meant?");
    }

    #[test]
    fn a_file_without_a_token_is_refused_and_not_shown() {
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
        let long = "x".repeat(TOKEN_MAX + 1);
        for bad in [
            "",
            "short-secret",
            "two words that are long enough",
            "secret\nsecret\nsecret\nsecret",
            &long,
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("holds no token"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(matches!(
            ApiToken::read(Path::new("/nonexistent/token")),
            Err(ApiTokenError::Read { .. })
        ));
    }

    #[test]
    fn a_stranger_is_not_a_peer() {
        let peer = |uid, gid| Peer {
            uid,
            gid,
            pid: None,
        };
        assert!(peer(0, 0).may_change());
        assert!(peer(geteuid().as_raw(), 65_533).may_change());
        assert!(peer(65_534, getegid().as_raw()).may_change());
        // Root of a container, and nobody.
        assert!(!peer(0x1000_0000, 0x1000_0000).may_change());
        assert!(!peer(65_534, 65_534).may_change());
    }
}
