//! The runners' network: firewall, forwarding, and a real packet from a throw-away network namespace.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use super::dns;
use super::finding::{Finding, Fix, Level};
use crate::config::{Config, Egress, GitHubConfig, PoolConfig};
use crate::firewall::{self, FirewallError};
use crate::privileged::ProbeNamespace;
use crate::world::chain;

/// Time limit for one answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Number of questions to a resolver within that time.
const QUESTIONS: u32 = 3;

/// Checks the loaded table and the rules of other programs.
pub(super) fn check_firewall(config: &Config) -> Finding {
    let is_off = firewall::switched_off().is_some();
    judge_firewall(firewall::inspect(config).err(), is_off)
}

fn judge_firewall(found: Option<FirewallError>, is_forwarding_off: bool) -> Finding {
    let area = "firewall";
    match found {
        None => Finding::good(area, "as configured, and the host forwards packets"),
        Some(FirewallError::Forwarding(obstacle)) => {
            let found = Finding::problem(area, obstacle.wrong, obstacle.remedy);
            if is_forwarding_off {
                found.fixed_by(Fix::KernelSettings)
            } else {
                found
            }
        }
        Some(FirewallError::Table(text)) => {
            let (wrong, hint) = text
                .rsplit_once("; ")
                .unwrap_or((&text, "run `runner-controller docs firewall`"));
            Finding::problem(area, wrong, hint).fixed_by(Fix::Firewall)
        }
        Some(error @ (FirewallError::Refused { .. } | FirewallError::Io { .. })) => {
            Finding::problem(
                area,
                chain(&error),
                "install nftables; `runner-controller docs firewall` tells what it does",
            )
        }
    }
}

/// A destination that runners need.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// A name server.
    Resolver(Ipv4Addr),
    /// An API of GitHub.
    Api { name: String, at: SocketAddrV4 },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolver(address) => write!(f, "resolver {address}"),
            Self::Api { name, at } => write!(f, "{name} ({at})"),
        }
    }
}

/// Sends packets as each pool's runners would, to their resolvers and to GitHub. Needs root.
///
/// If the firewall has a problem, that is the first thing to solve, so the findings about lost packets name it.
pub(super) fn probe_networks(config: &Config, is_firewall_wrong: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pool in &config.pools {
        let targets = targets(config, pool, resolve);
        match ProbeNamespace::open(config, pool) {
            Err(error) => findings.push(Finding::skipped("network", chain(&error))),
            Ok(probe) => findings.extend(probe_network(&probe, pool, &targets)),
        }
    }
    if is_firewall_wrong {
        for found in &mut findings {
            if found.level == Level::Problem {
                found.hint =
                    Some("solve the problem of the firewall first, which may be the cause".into());
            }
        }
    }
    findings
}

/// Returns the destinations of a pool's runners, as far as its rules let them through.
fn targets(
    config: &Config,
    pool: &PoolConfig,
    resolve: impl Fn(&GitHubConfig) -> Option<Target>,
) -> Vec<Target> {
    let resolvers = config.network.resolvers.iter().copied();
    let mut targets: Vec<Target> = match pool.egress {
        Egress::Internet | Egress::Listed => resolvers.map(Target::Resolver).collect(),
        Egress::None => Vec::new(),
    };
    let scope = config.scope(&pool.scope);
    // Runners of a host behind a proxy reach GitHub by a proxy, of which the configuration may not tell.
    targets.extend(
        scope
            .filter(|scope| scope.proxy.is_none())
            .and_then(resolve),
    );
    targets
}

/// Returns the address of a scope's API, by this host's resolver.
fn resolve(scope: &GitHubConfig) -> Option<Target> {
    let name = scope.api_url.host_str()?.to_owned();
    let port = scope.api_url.port_or_known_default()?;
    let mut found = (name.as_str(), port).to_socket_addrs().ok()?;
    found.find_map(|address| match address {
        SocketAddr::V4(at) => Some(Target::Api {
            name: name.clone(),
            at,
        }),
        SocketAddr::V6(_) => None,
    })
}

/// Tries all destinations at once.
fn probe_network(probe: &ProbeNamespace, pool: &PoolConfig, targets: &[Target]) -> Vec<Finding> {
    std::thread::scope(|scope| {
        let tries = targets.iter().map(|target| {
            let tried = scope.spawn(move || probe.within(|| reach(target)));
            (target, tried)
        });
        let tries: Vec<_> = tries.collect();
        let judged = tries.into_iter().map(|(target, tried)| {
            let result = tried
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the try panicked")));
            judge_try(pool.name.as_str(), target, &result)
        });
        judged.collect()
    })
}

fn reach(target: &Target) -> io::Result<()> {
    match target {
        Target::Api { at, .. } => match TcpStream::connect_timeout(&(*at).into(), PATIENCE) {
            // A refusal is an answer, too.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            result => result.map(drop),
        },
        Target::Resolver(address) => {
            // A packet may be lost, so a resolver is asked again, as every program does.
            let mut result = ask(*address);
            for _ in 1..QUESTIONS {
                if !matches!(&result, Err(error) if is_silence(error)) {
                    break;
                }
                result = ask(*address);
            }
            result
        }
    }
}

/// Asks a resolver once.
fn ask(address: Ipv4Addr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE / QUESTIONS))?;
    socket.connect((address, 53))?;
    let id = rand::random();
    socket.send(&dns::query(id, "github.com"))?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    dns::check(id, answer.get(..length).unwrap_or_default()).map_err(io::Error::other)
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn judge_try(pool: &str, target: &Target, result: &io::Result<()>) -> Finding {
    let area = match target {
        Target::Resolver(_) => "resolvers",
        Target::Api { .. } => "network",
    };
    let reason = match result {
        Ok(()) => return Finding::good(area, format!("runners of pool {pool} reach {target}")),
        Err(error) if is_silence(error) => {
            format!("no answer within {} s", PATIENCE.as_secs())
        }
        Err(error) => error.to_string(),
    };
    let hint = match target {
        Target::Resolver(_) => {
            "set network.resolvers to servers that answer this host, and let other firewalls on the way pass port 53"
        }
        Target::Api { .. } => {
            "a rule of this host or of a router drops it, or pools.*.allow must list an address in a private range: `runner-controller docs firewall`"
        }
    };
    Finding::problem(
        area,
        format!("runners of pool {pool} do not reach {target}: {reason}"),
        hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;
    use crate::firewall::Obstacle;

    #[test]
    fn a_table_and_a_switch_can_be_repaired_and_another_programs_rules_cannot() {
        let obstacle = || {
            FirewallError::Forwarding(Obstacle {
                wrong: "no".into(),
                remedy: "do".into(),
            })
        };
        assert_eq!(judge_firewall(None, false).level, Level::Good);
        assert_eq!(
            judge_firewall(Some(obstacle()), true).fix,
            Some(Fix::KernelSettings)
        );
        assert_eq!(judge_firewall(Some(obstacle()), false).fix, None);
        let gone = FirewallError::Table("it is not loaded; run `x`".into());
        let gone = judge_firewall(Some(gone), false);
        assert_eq!(
            (gone.text.as_str(), gone.fix),
            ("it is not loaded", Some(Fix::Firewall))
        );
        assert_eq!(gone.hint.as_deref(), Some("run `x`"));
    }

    #[test]
    fn only_destinations_that_the_rules_allow_are_tried() {
        let config = testing::config();
        let mut pool = config.pools[0].clone();
        let api = Target::Api {
            name: "api.github.com".into(),
            at: "192.0.2.1:443".parse().unwrap(),
        };
        let names = |pool: &PoolConfig| targets(&config, pool, |_| Some(api.clone())).len();
        let resolvers = config.network.resolvers.len();
        assert_eq!(names(&pool), resolvers + 1);
        pool.egress = Egress::None;
        assert_eq!(names(&pool), 1);
    }

    #[test]
    fn silence_is_told_as_such() {
        let target = Target::Resolver(Ipv4Addr::new(9, 9, 9, 9));
        let silent = judge_try("ci", &target, &Err(ErrorKind::WouldBlock.into()));
        assert_eq!(
            silent.text,
            "runners of pool ci do not reach resolver 9.9.9.9: no answer within 3 s"
        );
        assert_eq!(judge_try("ci", &target, &Ok(())).level, Level::Good);
    }
}
