//! Traffic between containers and the network that plays the internet.
//!
//! The programs are this machine's. They only join the network namespaces. Other processes of the machine only slow
//! them down. So a figure is the upper quartile of short intervals, of which most are undisturbed.

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::host::TestHost;
use crate::net::{GITHUB, INTERNET};
use crate::wait::{Seen, wait_until};

/// Port of the first iperf3 server. Each server serves one client at a time.
const FIRST_PORT: u16 = 5201;
/// Error of a server that has not ended the test before.
const BUSY: &str = "the server is busy";
/// Seconds for which a client of iperf3 sends.
const SECONDS: &str = "2";
/// Seconds of an interval, of which each has a rate.
const INTERVAL: &str = "0.1";
/// Connections of an interval, which take some milliseconds.
const CONNECTIONS: u32 = 100;
/// Intervals of a measurement of connections. A slot's burst of new connections is 16,384.
const INTERVALS: u32 = 60;
/// Timeout for a server that starts.
const SOON: Duration = Duration::from_secs(20);

/// Direction of the payload, seen from the container. Each has its servers, which rest while the other one is
/// measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Direction {
    const ALL: [Self; 2] = [Self::Up, Self::Down];

    /// Returns the ports of the servers for so many containers.
    fn ports(self, servers: u16) -> RangeInclusive<u16> {
        let first = match self {
            Self::Up => FIRST_PORT,
            Self::Down => FIRST_PORT + servers,
        };
        first..=first + servers - 1
    }
}

/// Servers of iperf3 in the network that plays the internet.
#[derive(Debug)]
pub(super) struct Servers {
    children: Vec<Child>,
    namespace: PathBuf,
    /// Number of servers for each direction.
    each: u16,
}

impl Servers {
    /// Starts the servers for so many containers and waits until each one has served a client.
    pub(super) fn start(host: &TestHost, each: u16) -> Result<Self> {
        let namespace = host.path(&format!("/run/netns/{INTERNET}"));
        let mut servers = Self {
            children: Vec::new(),
            namespace,
            each,
        };
        let ports = Direction::ALL.into_iter().flat_map(|way| way.ports(each));
        for port in ports.clone() {
            let child = Command::new("setpriv")
                .args(["--pdeathsig=KILL", "nsenter"])
                .arg(net(&servers.namespace))
                .args(["iperf3", "--server", "--port", &port.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("start iperf3")?;
            servers.children.push(child);
        }
        for port in ports {
            wait_until("an iperf3 server", SOON, || {
                Ok(match client(&servers.namespace, port, &["--bytes=1M"]) {
                    Ok(_) => Seen::Done(()),
                    Err(error) => Seen::NotYet(format!("{error:#}")),
                })
            })?;
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // A child that has ended already cannot be killed.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Returns what all the containers send or receive at once, each over one connection to its own server.
pub(super) fn gigabits_per_second(
    servers: &Servers,
    namespaces: &[PathBuf],
    direction: Direction,
) -> Result<f64> {
    let mut options = vec!["--time", SECONDS, "--interval", INTERVAL];
    if direction == Direction::Down {
        options.push("--reverse");
    }
    let options = &options;
    let rates: Vec<Vec<f64>> = thread::scope(|scope| {
        let clients: Vec<_> = namespaces
            .iter()
            .zip(direction.ports(servers.each))
            .map(|(namespace, port)| scope.spawn(move || client(namespace, port, options)))
            .collect();
        clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .map_err(|_| anyhow!("the thread of a client panicked"))?
            })
            .collect::<Result<_>>()
    })?;
    Ok(upper_quartile(sums(&rates)))
}

/// Returns the sum of all clients in each interval that all of them have.
fn sums(rates: &[Vec<f64>]) -> Vec<f64> {
    let intervals = rates.iter().map(Vec::len).min().unwrap_or_default();
    (0..intervals)
        .map(|at| rates.iter().map(|of_client| of_client[at]).sum())
        .collect()
}

/// Returns the rate that a quarter of the intervals reach; NaN without intervals.
fn upper_quartile(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() * 3 / 4).copied().unwrap_or(f64::NAN)
}

/// Runs iperf3 in a network namespace, and returns its rate in each interval.
fn client(namespace: &Path, port: u16, options: &[&str]) -> Result<Vec<f64>> {
    wait_until("an iperf3 server that is free", SOON, || {
        let output = Command::new("nsenter")
            .arg(net(namespace))
            .args(["iperf3", "--client", GITHUB, "--json"])
            .args(["--port", &port.to_string()])
            .args(options)
            .output()
            .context("run iperf3")?;
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains(BUSY) {
            return Ok(Seen::NotYet(BUSY.into()));
        }
        rates(&said).map(Seen::Done)
    })
}

fn rates(said: &str) -> Result<Vec<f64>> {
    let report: Value = serde_json::from_str(said)
        .with_context(|| format!("iperf3's report is not JSON: {said}"))?;
    let intervals = report.pointer("/intervals").and_then(Value::as_array);
    let rates: Vec<f64> = intervals
        .into_iter()
        .flatten()
        .filter_map(|interval| interval.pointer("/sum/bits_per_second")?.as_f64())
        .map(|bits| bits / 1e9)
        .collect();
    ensure!(!rates.is_empty(), "iperf3 reports no rate: {said}");
    Ok(rates)
}

fn net(namespace: &Path) -> String {
    format!("--net={}", namespace.display())
}

/// Opens and closes connections from a container, one after the other, and returns their number in each second.
///
/// The server has a new port each time, so that earlier connections, which the connection tracking still has, do
/// not take a port of the host's address.
pub(super) fn connections_per_second(servers: &Servers, namespace: &Path) -> Result<f64> {
    let bind = || Ok(TcpListener::bind((GITHUB, 0))?);
    let listener: TcpListener = within(&servers.namespace, bind)?;
    let address = listener.local_addr()?;
    let count = (CONNECTIONS * INTERVALS) as usize;
    // This thread does not keep a failed measurement from its end.
    thread::spawn(move || {
        for stream in listener.incoming().take(count).flatten() {
            // The client closes first, so that the server keeps no closed connections.
            drain(stream);
        }
    });
    within(namespace, move || connect(address))
}

fn drain(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|length| length > 0) {}
}

fn connect(address: SocketAddr) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..INTERVALS {
        let began = Instant::now();
        for _ in 0..CONNECTIONS {
            TcpStream::connect_timeout(&address, SOON).context("connect from a container")?;
        }
        rates.push(f64::from(CONNECTIONS) / began.elapsed().as_secs_f64());
    }
    Ok(upper_quartile(rates))
}

/// Does work in a network namespace. The thread that joins it ends with the work.
fn within<T: Send>(namespace: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(namespace)
        .with_context(|| format!("open the network namespace {}", namespace.display()))?;
    let joined = || {
        setns(file, CloneFlags::CLONE_NEWNET).context("join a network namespace")?;
        work()
    };
    thread::scope(|scope| scope.spawn(joined).join())
        .map_err(|_| anyhow!("the thread in a network namespace panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_an_interval_is_that_of_all_clients() {
        let interval = |bits: f64| format!(r#"{{"sum": {{"bits_per_second": {bits}}}}}"#);
        let said = format!(r#"{{"intervals": [{}, {}]}}"#, interval(2e9), interval(3e9));
        let one = rates(&said).unwrap();
        assert_eq!(sums(&[one.clone(), one]), [4.0, 6.0]);
        assert!(rates(r#"{"intervals": [], "error": "unable to connect"}"#).is_err());
    }

    #[test]
    fn slow_intervals_do_not_count() {
        let rates = vec![1.0, 9.0, 10.0, 10.5, 11.0, 1.5, 2.0, 9.5];
        assert!((upper_quartile(rates) - 10.5).abs() < 1e-9);
        assert!(upper_quartile(Vec::new()).is_nan());
    }
}
