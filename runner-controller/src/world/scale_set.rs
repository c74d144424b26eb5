//! Scale sets at GitHub: a queue of jobs for the runners of one pool.

use std::future::Future;
use std::time::Duration;

use super::RegistryError;
use crate::pool::{KnownJob, PoolName, ScopeId, SetTrouble};

/// Scale set that a pool wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSet {
    /// Its name, which is unique in its runner group.
    pub name: String,
    /// Name of the runner group.
    pub runner_group: String,
    /// Its labels.
    pub labels: Vec<String>,
}

/// Scale set as GitHub has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSet {
    /// Its id.
    pub id: u64,
    /// Its labels. GitHub does not change those of a set that exists.
    pub labels: Vec<String>,
}

/// An open session.
#[derive(Debug, Clone)]
pub struct OpenSession<S> {
    /// The session.
    pub session: S,
    /// Life of its token; `None` if that is not known.
    pub token_life: Option<Duration>,
    /// Number of jobs that GitHub counts as assigned to the set, those that run included.
    pub assigned: Option<u64>,
}

/// Message of a set's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMessage {
    /// Its id.
    pub id: u64,
    /// Number of jobs that GitHub counts as assigned to the set, those that run included.
    pub assigned: Option<u64>,
    /// Jobs that it tells of, in its order.
    pub jobs: Vec<KnownJob>,
    /// Jobs that the set may acquire, by their request ids.
    pub available: Vec<i64>,
    /// Problem of its body, or of the first part that cannot be read.
    pub unreadable: Option<String>,
}

/// A failed call for a scale set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct SetError {
    /// Meaning of the failure for set and session.
    pub trouble: SetTrouble,
    /// The failure.
    pub error: Box<RegistryError>,
}

/// Scale sets of one scope at GitHub. A retry of each call is safe.
pub trait ScaleSets: Send + Sync + 'static {
    /// A session, with its token.
    type Session: Send + Sync + 'static;

    /// Returns the scope.
    fn scope(&self) -> &ScopeId;

    /// Returns the set with this name. Creates it if GitHub does not have it.
    fn find(&self, wanted: &WantedSet) -> impl Future<Output = Result<FoundSet, SetError>> + Send;

    /// Opens the only session of a set. `owner` is its name for other programs that want one.
    fn open(
        &self,
        set: u64,
        owner: &str,
    ) -> impl Future<Output = Result<OpenSession<Self::Session>, SetError>> + Send;

    /// Replaces the token of a session.
    fn refresh(
        &self,
        session: &Self::Session,
    ) -> impl Future<Output = Result<OpenSession<Self::Session>, SetError>> + Send;

    /// Waits for the first message after `after`, for a minute or more. `capacity` is the number of jobs that the pool
    /// can have altogether. The jobs of the message are for `pool`, and `unix_ms` is the time of the call. Cancelling
    /// loses no message.
    fn poll(
        &self,
        session: &Self::Session,
        after: u64,
        capacity: u32,
        pool: &PoolName,
        unix_ms: u64,
    ) -> impl Future<Output = Result<Option<SetMessage>, SetError>> + Send;

    /// Acquires jobs. A service that assigns jobs by itself has no such call, and that counts as done.
    fn acquire(
        &self,
        session: &Self::Session,
        requests: &[i64],
    ) -> impl Future<Output = Result<(), SetError>> + Send;

    /// Deletes a message. One that is gone counts as deleted.
    fn acknowledge(
        &self,
        session: &Self::Session,
        message: u64,
    ) -> impl Future<Output = Result<(), SetError>> + Send;

    /// Closes a session, so that the next daemon gets one at once. The set stays, because its runners need it.
    fn close(&self, session: &Self::Session) -> impl Future<Output = Result<(), SetError>> + Send;
}
