//! The network between the daemon's GitHub client and GitHub, with a proxy on the way: it takes time, and it fails.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::api::{AnnouncedLimits, ApiAnswer, ApiRequest, Endpoint};
use crate::event::SimEvent;
use crate::fault::TransportFailure;
use crate::random::{Random, Stream};
use crate::schedule::Scheduler;

/// Messages in a thousand that fail by themselves.
const FAILURE_RATE: u64 = 3;

/// The schedule as the network sees it.
type Schedule<'a> = dyn Scheduler<Timer> + 'a;

/// The place where the client waits for an answer. It waits for ever if this is dropped.
pub(crate) type Client = oneshot::Sender<Result<ApiAnswer, NoAnswer>>;

/// A reason why no whole answer came.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The connection broke before an answer came.
    ConnectionReset,
    /// The proxy answered `CONNECT` by this status.
    ProxyRefused(u16),
    /// The connection broke after this part of the answer.
    CutOff(ApiAnswer),
}

/// A timer of the network.
pub(crate) enum Timer {
    /// A request arrives at GitHub.
    Arrive(u64, ApiRequest),
    /// An answer arrives at the daemon.
    Deliver(Exchange, ApiAnswer),
    /// GitHub notices that the connection of a poll is gone.
    HangUp(u64),
}

/// A request under way, and the client that waits for its answer.
pub(crate) struct Exchange {
    incarnation: u64,
    client: Client,
    failure: Option<TransportFailure>,
}

/// The network.
pub(crate) struct Network {
    random: Random,
    calls: u64,
    under_way: BTreeMap<u64, Exchange>,
    /// The daemon that runs.
    incarnation: Option<u64>,
    /// A failure that lasts, and the affected messages in a thousand.
    failure: Option<(TransportFailure, u64)>,
    slow_ms: u64,
    /// Status by which the proxy refuses connections, and their rate in a thousand.
    refusals: Option<(u16, u64)>,
}

impl Network {
    /// Returns a network that works.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed, Stream::Network),
            calls: 0,
            under_way: BTreeMap::new(),
            incarnation: None,
            failure: None,
            slow_ms: 0,
            refusals: None,
        }
    }

    /// A daemon started.
    pub(crate) fn daemon_started(&mut self, incarnation: u64) {
        self.incarnation = Some(incarnation);
    }

    /// The daemon ended. Its requests still arrive.
    pub(crate) fn daemon_ended(&mut self) {
        self.incarnation = None;
    }

    /// Messages fail at this rate in a thousand until further notice.
    pub(crate) fn set_failure(&mut self, failure: Option<(TransportFailure, u64)>) {
        self.failure = failure;
    }

    /// Messages usually take so many milliseconds longer.
    pub(crate) fn set_slow(&mut self, slow_ms: u64) {
        self.slow_ms = slow_ms;
    }

    /// The proxy refuses connections by this status, and at this rate in a thousand, until further notice.
    pub(crate) fn set_refusals(&mut self, refusals: Option<(u16, u64)>) {
        self.refusals = refusals;
    }

    /// The daemon sends a request. Returns the number of the call.
    pub(crate) fn send(
        &mut self,
        incarnation: u64,
        request: ApiRequest,
        client: Client,
        schedule: &mut Schedule<'_>,
    ) -> u64 {
        schedule.emit(SimEvent::CallSent {
            endpoint: request.endpoint,
            scope: request.scope(),
        });
        self.calls += 1;
        let exchange = Exchange {
            incarnation,
            client,
            failure: None,
        };
        self.under_way.insert(self.calls, exchange);
        let slow = self.slow_ms;
        let wait = self.random.wait(5, 60 + slow, 3_000 + 4 * slow);
        schedule.after(wait, Timer::Arrive(self.calls, request));
        self.calls
    }

    /// The daemon closes the connection of a poll.
    pub(crate) fn hang_up(&mut self, call: u64, schedule: &mut Schedule<'_>) {
        schedule.emit(SimEvent::PollEnded { call });
        if self.under_way.contains_key(&call) {
            let wait = self.random.wait(5, 60, 3_000);
            schedule.after(wait, Timer::HangUp(call));
        }
    }

    /// The daemon sends a request that does not arrive.
    pub(crate) fn send_in_vain(&mut self, request: &ApiRequest, schedule: &mut Schedule<'_>) {
        self.calls += 1;
        schedule.emit(SimEvent::CallSent {
            endpoint: request.endpoint,
            scope: request.scope(),
        });
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, timer: Timer, schedule: &mut Schedule<'_>) {
        match timer {
            Timer::Arrive(call, request) => self.arrive(call, request, schedule),
            Timer::HangUp(call) => schedule.emit(SimEvent::PollDropped { call }),
            Timer::Deliver(exchange, answer) => {
                let runs = self.incarnation == Some(exchange.incarnation);
                if runs && !exchange.client.is_closed() {
                    schedule.emit(SimEvent::LimitsTold(answer.limits));
                }
                let received = if exchange.failure == Some(TransportFailure::TunnelCut) {
                    Err(NoAnswer::CutOff(answer))
                } else {
                    Ok(answer)
                };
                // The daemon that asked may have ended.
                let _ = exchange.client.send(received);
            }
        }
    }

    fn arrive(&mut self, call: u64, request: ApiRequest, schedule: &mut Schedule<'_>) {
        let failure = self.draw_failure();
        match failure {
            Some(TransportFailure::RequestLost) => {
                self.under_way.remove(&call);
            }
            Some(TransportFailure::ConnectionReset) => {
                self.fail(call, NoAnswer::ConnectionReset, schedule);
            }
            Some(TransportFailure::ProxyRefuses) => {
                let status = self.refusals.map_or(503, |(status, _)| status);
                self.fail(call, NoAnswer::ProxyRefused(status), schedule);
            }
            Some(
                TransportFailure::AnswerLost
                | TransportFailure::Truncated
                | TransportFailure::TunnelCut,
            )
            | None => {
                if let Some(exchange) = self.under_way.get_mut(&call) {
                    exchange.failure = failure;
                }
                schedule.emit(SimEvent::CallArrived { call, request });
            }
        }
    }

    /// Tells the client that its request did not arrive.
    fn fail(&mut self, call: u64, reason: NoAnswer, schedule: &mut Schedule<'_>) {
        if let Some(exchange) = self.under_way.remove(&call) {
            let wait = self.random.between(5, 200);
            schedule.reply(wait, exchange.client, Err(reason));
        }
    }

    fn draw_failure(&mut self) -> Option<TransportFailure> {
        if let Some((_, rate)) = self.refusals
            && self.random.chance(rate)
        {
            return Some(TransportFailure::ProxyRefuses);
        }
        if let Some((failure, rate)) = self.failure
            && self.random.chance(rate)
        {
            return Some(failure);
        }
        let fails = self.random.chance(FAILURE_RATE);
        let failure = self.random.pick(&TransportFailure::ALL).copied();
        failure.filter(|_| fails)
    }

    /// GitHub answers a call.
    pub(crate) fn answered(
        &mut self,
        call: u64,
        endpoint: Endpoint,
        mut answer: ApiAnswer,
        schedule: &mut Schedule<'_>,
    ) {
        let Some(exchange) = self.under_way.remove(&call) else {
            return;
        };
        match exchange.failure {
            Some(TransportFailure::AnswerLost) => return,
            // A deletion's answer has no body to lose.
            Some(TransportFailure::Truncated) if endpoint != Endpoint::Delete => {
                truncate(&mut answer);
            }
            Some(TransportFailure::TunnelCut) => {
                if answer.body.is_empty() {
                    // Not even its headers arrive.
                    answer.limits = AnnouncedLimits::default();
                }
                cut_off(&mut answer);
            }
            Some(
                TransportFailure::Truncated
                | TransportFailure::RequestLost
                | TransportFailure::ConnectionReset
                | TransportFailure::ProxyRefuses,
            )
            | None => {}
        }
        let slow = self.slow_ms;
        let wait = self.random.wait(5, 80 + slow, 3_000 + 4 * slow);
        schedule.after(wait, Timer::Deliver(exchange, answer));
    }
}

/// Shortens an answer to the first half of its body.
fn truncate(answer: &mut ApiAnswer) {
    answer.headers.retain(|(name, _)| *name != "etag");
    if answer.status == 304 {
        answer.status = 502;
    }
    cut_off(answer);
}

/// Removes the second half of an answer's body, and the limits of which it told.
fn cut_off(answer: &mut ApiAnswer) {
    answer.body.truncate(answer.body.len() / 2);
    let has_time = |(name, _): &(&str, String)| *name == "retry-after";
    let used_up = answer.limits.empty_until.is_some();
    if !used_up && !answer.headers.iter().any(has_time) {
        // Only the body told of the limit.
        answer.limits.refused_until = None;
    }
}
