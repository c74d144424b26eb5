//! The operations at GitHub, and the count of requests for each.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::status::{Histogram, Measure};
use crate::world::{RegistryError, RegistryErrorKind};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Operation {
    Mint,
    List,
    Find,
    Delete,
    Groups,
    GroupCheck,
    Version,
    Job,
    Runs,
    RunJobs,
    Deliveries,
    Redeliver,
    AppDeliveries,
    AppRedeliver,
    Installation,
    AccessToken,
    RegistrationToken,
    SetAccess,
    SetFind,
    SetSession,
    SetPoll,
    SetAcquire,
    SetAcknowledge,
}

/// Subject of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Runners of the scope, their groups and their registration.
    Runners,
    /// A version of the runner.
    Version,
    /// Runs and jobs.
    Jobs,
    /// Deliveries of hooks.
    Deliveries,
    /// The App's installation and its tokens.
    Installation,
    /// Scale sets.
    ScaleSets,
}

impl Operation {
    /// Returns the operation that a request is for, which [`exchange`](super::exchange) attaches. A
    /// request without one counts as the operation that is withheld first.
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        let attached = request.extensions().get().copied();
        attached.unwrap_or(Self::List)
    }

    /// Returns the name in errors, logs and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mint => "generate-jitconfig",
            Self::List => "list runners",
            Self::Find => "get runner",
            Self::Delete => "delete runner",
            Self::Groups => "list runner groups",
            Self::GroupCheck => "check runner groups",
            Self::Version => "get runner version",
            Self::Job => "get job",
            Self::Runs => "list runs",
            Self::RunJobs => "list jobs",
            Self::Deliveries => "list deliveries",
            Self::Redeliver => "redeliver",
            Self::AppDeliveries => "list deliveries of the App",
            Self::AppRedeliver => "redeliver for the App",
            Self::Installation => "get installation",
            Self::AccessToken => "create installation token",
            Self::RegistrationToken => "create registration token",
            Self::SetAccess => "get access to scale sets",
            Self::SetFind => "find scale set",
            Self::SetSession => "open or close session of scale set",
            Self::SetPoll => "poll scale set",
            Self::SetAcquire => "acquire jobs",
            Self::SetAcknowledge => "delete message of scale set",
        }
    }

    /// Returns the subject, which decides about access and urgency.
    pub(super) fn subject(self) -> Subject {
        match self {
            Self::Mint
            | Self::List
            | Self::Find
            | Self::Delete
            | Self::Groups
            | Self::GroupCheck
            | Self::RegistrationToken => Subject::Runners,
            Self::Version => Subject::Version,
            Self::Job | Self::Runs | Self::RunJobs => Subject::Jobs,
            Self::Deliveries | Self::Redeliver | Self::AppDeliveries | Self::AppRedeliver => {
                Subject::Deliveries
            }
            Self::Installation | Self::AccessToken => Subject::Installation,
            Self::SetAccess
            | Self::SetFind
            | Self::SetSession
            | Self::SetPoll
            | Self::SetAcquire
            | Self::SetAcknowledge => Subject::ScaleSets,
        }
    }

    /// Returns true for operations that leave the rest of the budget to others.
    pub(super) fn is_background(self) -> bool {
        match self.subject() {
            Subject::Version | Subject::Jobs | Subject::Deliveries => true,
            // A mint needs a group, and every request needs a token.
            Subject::Runners | Subject::Installation | Subject::ScaleSets => {
                matches!(self, Self::List | Self::GroupCheck)
            }
        }
    }

    /// Returns true for requests of the App itself, which has other limits than its installation.
    pub(super) fn is_of_app(self) -> bool {
        self.subject() == Subject::Installation
            || matches!(self, Self::AppDeliveries | Self::AppRedeliver)
    }
}

/// Requests by operation and outcome, and the times of their answers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<(Operation, &'static str), u64>,
    times: BTreeMap<Operation, Histogram>,
}

impl Tally {
    /// Counts one request. The outcome is `ok`, `not_modified`, `redirected`, `withheld` (not sent
    /// because of a limit) or the kind of the error.
    pub(super) fn count(&mut self, operation: Operation, outcome: &'static str) {
        *self.counts.entry((operation, outcome)).or_default() += 1;
    }

    /// Counts the time from a request until its whole answer.
    pub(super) fn time(&mut self, operation: Operation, elapsed: Duration) {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let times = self.times.entry(operation).or_default();
        times.add(Measure::GitHubRequest, elapsed_ms);
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.counts
            .iter()
            .map(|((operation, outcome), count)| (operation.name(), *outcome, *count))
            .collect()
    }

    pub(super) fn times(&self) -> Vec<(&'static str, Histogram)> {
        let times = self.times.iter();
        times
            .map(|(operation, times)| (operation.name(), times.clone()))
            .collect()
    }
}

/// Returns the outcome for a failed request.
pub(super) fn outcome_of(error: &RegistryError) -> &'static str {
    match error.kind {
        RegistryErrorKind::Unauthorized => "unauthorized",
        RegistryErrorKind::Forbidden => "forbidden",
        RegistryErrorKind::NotFound => "not_found",
        RegistryErrorKind::NameTaken => "name_taken",
        RegistryErrorKind::Invalid => "invalid",
        RegistryErrorKind::Limited => "limited",
        RegistryErrorKind::Server => "server",
        RegistryErrorKind::Unreachable => "unreachable",
    }
}
