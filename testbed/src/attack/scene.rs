//! Targets of the attacks: pools, a neighbour in the next slot, and listeners and secrets on
//! the host that would answer if an attack reached them.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use status::{PhaseKind, RunnerStatus};

use super::agent::{self, Agent, Ran};
use super::bare;
use super::program::Who;
use crate::claims::{SOON, await_busy, leader};
use crate::config::{Config, Image, Pool};
use crate::image;
use crate::lab::{CONFIG, Lab, RUN_DIR};
use crate::net::{GITHUB, INTERNET, METADATA, NEIGHBOUR, RESOLVER, UPLINK};
use crate::sim::pool_job;

/// Size of every layer: enough to boot, and quickly full.
const LAYER: &str = "96 MiB";
/// Offsets of the pools, far apart, so that their slots are not neighbours.
const OFFSETS: [(&str, u16); 5] = [
    ("ci", 0),
    ("one", 20),
    ("early", 40),
    ("bare", 60),
    ("docker", 80),
];
/// Service that waits for its config, changed in one image so that it does not.
const RUNNER_UNIT: &str = "usr/lib/systemd/system/github-runner.service";
/// Services of the host that exist only as targets.
const FIXTURES: [&str; 6] = [
    "attack-answers",
    "attack-dns",
    "attack-listens",
    "attack-abstract",
    "attack-loopback",
    "attack-canary",
];

/// A container with a job and a service that take commands.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) machine: String,
    pub(super) leader: String,
    job: Agent,
    root: Agent,
}

impl Target {
    /// Finds the loop of a job, and starts the loop of the container's root.
    pub(super) fn with_job(lab: &Lab, runner: &RunnerStatus) -> Result<Self> {
        let leader = leader(lab, &runner.machine())?;
        let job = Agent::find(lab.host(), &leader, Who::Job)?;
        agent::start_service(lab, &runner.machine(), Who::Root)?;
        let root = Agent::find(lab.host(), &leader, Who::Root)?;
        Ok(Self {
            machine: runner.machine(),
            leader,
            job,
            root,
        })
    }

    /// Starts both loops in a container that has no job.
    pub(super) fn without_job(lab: &Lab, machine: &str) -> Result<Self> {
        let leader = leader(lab, machine)?;
        for who in [Who::Job, Who::Root] {
            agent::start_service(lab, machine, who)?;
        }
        Ok(Self {
            machine: machine.to_owned(),
            job: Agent::find(lab.host(), &leader, Who::Job)?,
            root: Agent::find(lab.host(), &leader, Who::Root)?,
            leader,
        })
    }

    pub(super) fn run(
        &mut self,
        who: Who,
        program: &[u8],
        argument: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<Ran> {
        match who {
            Who::Job => self.job.run(program, argument, env),
            Who::Root => self.root.run(program, argument, env),
        }
    }

    /// Ends the job, and so the container.
    pub(super) fn end_job(&self) -> Result<()> {
        self.job.quit()
    }
}

/// Installs the pools and starts the daemon. The second slot of pool `early` sees the sockets of the
/// first, and the host's API.
pub(super) fn set(lab: &Lab) -> Result<()> {
    lab.reset().context("empty the host")?;
    lab.install(&config(lab)?)?;
    bare::install(lab)?;
    let api = format!("+--bind={RUN_DIR}/api/api.sock:/run/host-api.sock");
    let first = format!("+--bind-ro={RUN_DIR}/slots/early-1:/run/first");
    // The daemon makes its socket when it starts, and this container starts later.
    bare::edit(lab, "early-2", "runner-early@2.service", &[&first, &api])?;
    fixtures(lab)?;
    lab.start()
}

fn config(lab: &Lab) -> Result<Config> {
    let waiting = image::variant(lab.host(), "early", |root| {
        // The image shares its files with the good one, so a file is replaced and not written
        // to.
        let unit = root.join(RUNNER_UNIT);
        let text = fs::read_to_string(&unit)?;
        fs::remove_file(&unit)?;
        let silent: String = text
            .lines()
            .filter(|line| !line.starts_with("LoadCredential="))
            .map(|line| match line.strip_prefix("ExecStart=") {
                Some(_) => "ExecStart=sleep infinity\n".to_owned(),
                None => format!("{line}\n"),
            })
            .collect();
        fs::write(&unit, silent)?;
        Ok(())
    })?;
    let mut config = Config::small(lab.sim().api_url());
    config.reconcile = "2s".into();
    config.pools = OFFSETS
        .iter()
        .map(|(name, offset)| {
            let mut pool = Pool::new(name, *offset);
            pool.layer_size = LAYER.into();
            pool.timeouts = vec![("boot", "30m".into())];
            (pool.min_idle, pool.min_spare, pool.max_runners) = match *name {
                "one" | "bare" | "docker" => (1, 0, 1),
                "early" => (2, 0, 2),
                _ => (1, 0, 2),
            };
            pool.docker = *name == "docker";
            if *name == "early" {
                pool.image = Image::Directory(waiting.clone());
            }
            pool
        })
        .collect();
    Ok(config)
}

/// Starts a job in a pool that takes commands.
pub(super) fn start_job(lab: &Lab, pool: &str, name: &str) -> Result<(u64, RunnerStatus)> {
    let id = lab
        .sim()
        .queue(&pool_job(name, pool, &agent::job_script()))?;
    Ok((id, await_busy(lab, id)?))
}

fn fixtures(lab: &Lab) -> Result<()> {
    let host = lab.host();
    remove_fixtures(lab)?;
    let start = |name: &str, properties: &[&str], command: &[&str]| -> Result<()> {
        let unit = format!("--unit={name}");
        let mut argv = vec!["systemd-run", "--quiet", "--collect", &unit];
        argv.extend(properties);
        argv.extend(command);
        host.run(&argv).map(drop)
    };
    let answer = ["/usr/local/bin/testbed", "inner", "answer"];
    let internet = format!("--property=NetworkNamespacePath=/run/netns/{INTERNET}");
    let with = |more: &[&'static str]| [answer.as_slice(), more].concat();
    start("attack-answers", &[], &with(&["--http", "0.0.0.0:80"]))?;
    let dns = format!("{GITHUB}:53");
    let dot = format!("{GITHUB}:853");
    start(
        "attack-dns",
        &[&internet],
        &[&answer[..], &["--dns", &dns, "--http", &dot]].concat(),
    )?;
    // Records each packet to port 9999 of the internet with its source address.
    start(
        "attack-listens",
        &[&internet],
        &[
            "socat",
            "UDP4-RECVFROM:9999,fork",
            "SYSTEM:echo $SOCAT_PEERADDR $(cat) >>/run/testbed/heard",
        ],
    )?;
    start(
        "attack-abstract",
        &[],
        &[
            "socat",
            "ABSTRACT-LISTEN:attack-host,fork",
            "SYSTEM:echo host-secret",
        ],
    )?;
    start(
        "attack-loopback",
        &[],
        &[
            "socat",
            "TCP4-LISTEN:7777,bind=127.0.0.1,fork,reuseaddr",
            "SYSTEM:echo host-secret",
        ],
    )?;
    start(
        "attack-canary",
        &["--setenv=CANARY=host-secret"],
        &["sleep", "infinity"],
    )?;
    host.write("/srv/host-canary", b"host-secret\n", 0o644)?;
    host.sh("mkdir -p /srv/kept /srv/kept-shm; chmod 1777 /srv/kept /srv/kept-shm; rm -f /run/testbed/heard")
        .map(drop)
}

/// Stops the services that exist only as targets.
pub(super) fn remove_fixtures(lab: &Lab) -> Result<()> {
    let host = lab.host();
    let mut stop = vec!["systemctl", "stop"];
    let units = FIXTURES.map(|name| format!("{name}.service"));
    stop.extend(units.iter().map(String::as_str));
    host.output(&stop)?;
    host.run(&[
        "rm",
        "-rf",
        "/srv/host-canary",
        "/srv/kept",
        "/srv/kept-shm",
    ])
    .map(drop)
}

/// Puts a secret in every place of the next slot's container, and lets it answer on port 8000.
pub(super) fn furnish_sibling(sibling: &mut Target) -> Result<()> {
    let script = "#!/bin/bash\n\
        echo sibling-secret >/home/runner/canary; chmod 600 /home/runner/canary\n\
        (CANARY=sibling-secret exec -a sibling-secret sleep 3600) </dev/null >/dev/null 2>&1 &\n\
        (while :; do echo sibling-secret | nc -N -l 8000; done) </dev/null >/dev/null 2>&1 &\n";
    let ran = sibling.run(Who::Job, script.as_bytes(), "", &BTreeMap::new())?;
    anyhow::ensure!(ran.status == 0, "the sibling: {}", ran.said);
    Ok(())
}

/// Returns the variables of programs and witnesses.
pub(super) fn surroundings(
    machine: &str,
    leader: &str,
    sibling: Option<&Target>,
) -> Result<BTreeMap<String, String>> {
    let own = Numbers::of(machine)?;
    let mut env: BTreeMap<String, String> = [
        ("MACHINE", machine.to_owned()),
        (
            "UNIT",
            format!("runner-{}.service", machine.replace('-', "@")),
        ),
        ("LINK", format!("rc-{machine}")),
        ("LEADER", leader.to_owned()),
        ("GATEWAY", own.gateway),
        ("ADDRESS", own.address),
        ("UID_FIRST", own.uid.to_string()),
        ("UPLINK", UPLINK.into()),
        ("LAN_SIDE", "192.168.77.1".into()),
        ("NEIGHBOUR", NEIGHBOUR.into()),
        ("METADATA", METADATA.into()),
        ("INTERNET", GITHUB.into()),
        ("RESOLVER", RESOLVER.into()),
        ("GITHUB", format!("http://{GITHUB}:{}", crate::sim::PORT)),
        ("CONFIG", CONFIG.into()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if let Some(sibling) = sibling {
        let other = Numbers::of(&sibling.machine)?;
        env.extend(
            [
                ("SIBLING_MACHINE", sibling.machine.clone()),
                ("SIBLING_LEADER", sibling.leader.clone()),
                ("SIBLING_LINK", format!("rc-{}", sibling.machine)),
                ("SIBLING_GATEWAY", other.gateway),
                ("SIBLING", other.address),
                ("SIBLING_UID", other.uid.to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
    }
    Ok(env)
}

/// Numbers that follow from a slot's place (`network.block` and `network.uid_base`).
struct Numbers {
    gateway: String,
    address: String,
    uid: u32,
}

impl Numbers {
    fn of(machine: &str) -> Result<Self> {
        let (pool, slot) = machine.split_once('-').context("a machine has a slot")?;
        let (_, offset) = OFFSETS
            .iter()
            .find(|(name, _)| *name == pool)
            .with_context(|| format!("no pool {pool}"))?;
        let number = u32::from(*offset) + slot.parse::<u32>()? - 1;
        let address = |host: u32| {
            let at = number * 4 + host;
            format!("10.200.{}.{}", at / 256, at % 256)
        };
        Ok(Self {
            gateway: address(1),
            address: address(2),
            uid: (1 << 28) + number * (1 << 16),
        })
    }
}

/// Waits until the pools have their runners.
pub(super) fn await_ready(lab: &Lab) -> Result<()> {
    lab.await_status("runners of ci and one", SOON, |status| {
        let idle = |name: &str| {
            status
                .pool(name)
                .and_then(|pool| pool.phases.get(&PhaseKind::Idle).copied())
                .unwrap_or(0)
        };
        (idle("ci") >= 1 && idle("one") >= 1).then_some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_numbers_follow_from_its_place() {
        let numbers = Numbers::of("one-1").unwrap();
        assert_eq!(numbers.gateway, "10.200.0.81");
        assert_eq!(numbers.address, "10.200.0.82");
        assert_eq!(numbers.uid, 268_435_456 + 20 * 65_536);
        assert!(Numbers::of("other-1").is_err());
    }
}
