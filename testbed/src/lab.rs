//! A test host with our daemon on it, installed as an operator would install it, and a stand-in
//! GitHub beside it. The verbs here are what tests, the demo and the benchmark are written in.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use status::{Invocation, Status};

use crate::api::{self, Answer};
use crate::bed::{Bed, Held, Lock};
use crate::binaries::{Binaries, CONTROLLER, SIM};
use crate::config::Config;
use crate::host::TestHost;
use crate::image;
use crate::net;
use crate::readings::{is_settled, summary};
use crate::sim::{PORT, Sim};
use crate::wait::{Seen, wait_until};

/// The daemon's unit.
pub const DAEMON: &str = "runner-controller.service";
/// Path of the daemon's configuration in the host.
pub const CONFIG: &str = "/etc/runner-controller/config.toml";
/// The daemon's runtime directory.
pub const RUN_DIR: &str = "/run/runner-controller";
/// Path of the daemon's API socket. From outside the host the absolute link to it leads astray.
const API: &str = "/run/runner-controller/api/api.sock";
/// Unit of the firewall, which keeps jobs off the host and its networks.
pub(crate) const FIREWALL: &str = "runner-controller-firewall.service";
/// Socket and service of the holder of mounts. `systemctl` takes both as one pattern.
const MOUNTS: &str = "runner-controller-mounts.*";
/// Drop-in of the stand-in's unit while it must remember.
const SIM_DROP_IN: &str = "/etc/systemd/system/github-sim.service.d/remember.conf";
/// The stand-in GitHub's unit.
const SIM_UNIT: &str = "github-sim.service";
/// State file of the stand-in, if the drop-in is there.
const SIM_STATE: &str = "/var/lib/github-sim/state";
/// The stand-in's copy of the token: in memory, and on no command line.
const SIM_TOKEN: &str = "/run/testbed/github-token";
const SIM_APP_KEY: &str = "/run/testbed/github-app";
/// Id of the stand-in's GitHub App. Its private key is [`github_sim::APP_KEY`].
pub const APP_ID: u64 = 123_456;
/// The token that the stand-in accepts.
pub const TOKEN: &str = "github_pat_testbed_5d1c64cbe2f04a7f8f1d";
/// Patterns of every unit that belongs to a slot.
pub const SLOT_UNITS: &str = "runner-*@*.service";

/// Everything that a test needs, running.
#[derive(Debug)]
pub struct Lab {
    host: TestHost,
    sim: Sim,
    binaries: Binaries,
    _working: Held,
}

/// Container that runs or ran for a slot of the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// Its machine name, `ci-1`.
    pub machine: String,
    /// Its unit, `runner-ci@1.service`.
    pub unit: String,
    /// systemd's id of its last start; none if it never started.
    pub invocation: Option<Invocation>,
    /// `active`, `activating`, …
    pub state: String,
}

impl Lab {
    /// Boots the host if none runs, and brings programs, networks, stand-in and image up to date.
    /// The daemon is not installed yet: see [`Lab::install`].
    pub fn up(bed: &Bed, binaries: Binaries) -> Result<Self> {
        let working = bed.lock(Lock::Work)?;
        let fresh = TestHost::running(bed).is_none();
        let host = TestHost::up(bed)?;
        let lab = Self {
            sim: Sim::of(&host),
            host,
            binaries,
            _working: working,
        };
        if fresh {
            image::remove_old(&lab.host)?;
        }
        // An interrupted run may have left them.
        lab.host.run(&["rm", "--force", SIM_DROP_IN, SIM_STATE])?;
        lab.furnish()?;
        Ok(lab)
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &TestHost {
        &self.host
    }

    /// One of our programs, as it was built.
    pub fn binary(&self, name: &str) -> Result<&Path> {
        self.binaries.path(name)
    }

    /// The programs that are tested.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The stand-in GitHub.
    #[must_use]
    pub fn sim(&self) -> &Sim {
        &self.sim
    }

    /// Brings in all but the daemon. Safe to repeat; also after a power cycle.
    fn furnish(&self) -> Result<()> {
        let host = &self.host;
        for name in [CONTROLLER, SIM] {
            host.install(
                self.binaries.path(name)?,
                &format!("/usr/local/bin/{name}"),
                0o755,
            )?;
        }
        net::bring_up(host)?;
        host.write(
            &format!("/etc/systemd/system/{SIM_UNIT}"),
            sim_unit().as_bytes(),
            0o644,
        )?;
        host.write(SIM_TOKEN, TOKEN.as_bytes(), 0o600)?;
        host.write(SIM_APP_KEY, github_sim::APP_KEY.as_bytes(), 0o600)?;
        host.run(&["systemctl", "daemon-reload"])?;
        self.restart_sim()?;
        image::refresh(host, &self.binaries)
    }

    /// Starts the stand-in anew: no jobs, no runners, no faults, no counts.
    pub fn restart_sim(&self) -> Result<()> {
        self.host.run(&["systemctl", "restart", SIM_UNIT])?;
        wait_until("the stand-in GitHub", Duration::from_secs(10), || {
            Ok(match self.sim.request("GET", "/_sim/health", None) {
                Ok((200, _)) => Seen::Done(()),
                Ok((status, answer)) => Seen::NotYet(format!("{status} {answer}")),
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })
    }

    /// From now on what the stand-in knows outlives it, however it ends, until [`Lab::let_sim_forget`].
    pub fn let_sim_remember(&self) -> Result<()> {
        let drop_in = format!(
            "[Service]\nStateDirectory=github-sim\nEnvironment=MORE_OPTIONS=--state={SIM_STATE}\n"
        );
        self.host.write(SIM_DROP_IN, drop_in.as_bytes(), 0o644)?;
        self.host.run(&["systemctl", "daemon-reload"])?;
        self.restart_sim()
    }

    /// From now on a restart makes it forget everything, as before.
    pub fn let_sim_forget(&self) -> Result<()> {
        self.host.run(&["rm", "--force", SIM_DROP_IN, SIM_STATE])?;
        self.host.run(&["systemctl", "daemon-reload"])?;
        self.restart_sim()
    }

    /// Kills the stand-in with SIGKILL.
    pub fn kill_sim(&self) -> Result<()> {
        self.host
            .run(&["systemctl", "kill", "--signal=KILL", SIM_UNIT])
            .map(drop)
    }

    /// Writes the configuration and the token, and lets our own command make and install all that
    /// a host needs for it. Starts nothing. Also the way to a changed configuration.
    pub fn install(&self, config: &Config) -> Result<()> {
        let mut config = config.clone();
        if config.layer_dir.is_empty() {
            config.layer_dir = self.host.layer_dir();
        }
        self.install_text(&config.render())
    }

    /// The same for a configuration that is written already.
    pub fn install_text(&self, config: &str) -> Result<()> {
        self.write_config(config)?;
        let host = &self.host;
        host.run(&[CONTROLLER, "check-config", CONFIG])?;
        host.run(&[
            CONTROLLER,
            "units",
            "--config",
            CONFIG,
            "--install-root",
            "/",
        ])?;
        host.run(&["systemd-sysusers"])?;
        host.run(&["systemd-tmpfiles", "--create"])?;
        host.run(&["systemctl", "daemon-reload"])?;
        // Another configuration may be another table.
        host.run(&["systemctl", "restart", FIREWALL]).map(drop)
    }

    /// Writes the configuration as it is given, and the token.
    pub fn write_config(&self, text: &str) -> Result<()> {
        self.host.write(CONFIG, text.as_bytes(), 0o644)?;
        self.write_token(TOKEN)
    }

    /// Writes another token, a wrong one perhaps.
    pub fn write_token(&self, token: &str) -> Result<()> {
        self.host
            .write("/etc/runner-controller/token", token.as_bytes(), 0o600)
    }

    /// Starts the daemon; returns when it says that it is ready.
    pub fn start(&self) -> Result<()> {
        self.host.run(&["systemctl", "start", DAEMON]).map(drop)
    }

    /// Stops the daemon in order. Its containers run on.
    pub fn stop(&self) -> Result<()> {
        self.host.run(&["systemctl", "stop", DAEMON]).map(drop)
    }

    /// Reloads the daemon with a valid configuration, and waits until the next daemon runs with it.
    pub fn reload(&self) -> Result<()> {
        let before = self.show(DAEMON, "MainPID")?;
        self.host.run(&["systemctl", "reload", DAEMON])?;
        wait_until("the next daemon", Duration::from_secs(20), || {
            let state = self.show(DAEMON, "ActiveState")?;
            let pid = self.show(DAEMON, "MainPID")?;
            Ok(if state == "active" && pid != before {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{state}, process {pid}"))
            })
        })
    }

    /// Kills the daemon with SIGKILL, and waits until that process is gone.
    pub fn kill(&self) -> Result<()> {
        let pid = self.show(DAEMON, "MainPID")?;
        self.host.run(&[
            "systemctl",
            "kill",
            "--signal=KILL",
            "--kill-whom=main",
            DAEMON,
        ])?;
        wait_until(
            "the killed daemon to be gone",
            Duration::from_secs(10),
            || {
                let now = self.show(DAEMON, "MainPID")?;
                Ok(if now == pid && pid != "0" {
                    Seen::NotYet(format!("still process {now}"))
                } else {
                    Seen::Done(())
                })
            },
        )
    }

    /// Returns the output of `runner-controller status --json`.
    pub fn status(&self) -> Result<Value> {
        let text = self.host.run(&[CONTROLLER, "status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("status is not JSON: {text}"))
    }

    /// Asks the daemon's API on its socket. An error means that no answer came.
    pub fn api(&self, method: &str, path: &str) -> Result<Answer> {
        api::call(&self.host.path(API), method, path)
    }

    /// The daemon's status, read as by one of its readers.
    pub fn look(&self) -> Result<Status> {
        let answer = self.api("GET", "/status")?;
        serde_json::from_str(&answer.body)
            .with_context(|| format!("status is not what was expected: {}", answer.body))
    }

    /// Waits until `find` finds something in the daemon's status. A daemon that is away is waited
    /// for as well.
    pub fn await_status<T>(
        &self,
        what: &str,
        limit: Duration,
        mut find: impl FnMut(&Status) -> Option<T>,
    ) -> Result<T> {
        wait_until(what, limit, || {
            Ok(match self.look() {
                Ok(status) => match find(&status) {
                    Some(found) => Seen::Done(found),
                    None => Seen::NotYet(summary(&status)),
                },
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })
    }

    /// Waits until every pool has what is wanted of it and nothing else is under way.
    pub fn await_settled(&self, limit: Duration) -> Result<Status> {
        self.await_status("the pools to be as they are wanted", limit, |status| {
            is_settled(status).then(|| status.clone())
        })
    }

    /// One property of one unit.
    pub fn show(&self, unit: &str, property: &str) -> Result<String> {
        let text =
            self.host
                .run(&["systemctl", "show", "--value", "--property", property, unit])?;
        Ok(text.trim().to_owned())
    }

    /// Every slot's unit that systemd has loaded, dead ones included.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let names = self.host.run(&[
            "systemctl",
            "list-units",
            "--all",
            "--plain",
            "--no-legend",
            SLOT_UNITS,
        ])?;
        let units: Vec<&str> = names
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = vec![
            "systemctl",
            "show",
            "--property=Id,ActiveState,InvocationID",
        ];
        command.extend(&units);
        let mut found: Vec<Container> = self
            .host
            .run(&command)?
            .split("\n\n")
            .filter_map(Container::parse)
            .collect();
        found.sort();
        Ok(found)
    }

    /// Waits until exactly so many slots' units are active, and no other is on its way.
    pub fn await_active(&self, count: usize, limit: Duration) -> Result<Vec<Container>> {
        wait_until(&format!("{count} active containers"), limit, || {
            let containers = self.containers()?;
            let good = containers.len() == count
                && containers
                    .iter()
                    .all(|container| container.state == "active");
            Ok(if good {
                Seen::Done(containers)
            } else {
                Seen::NotYet(format!("{containers:?}"))
            })
        })
    }

    /// The machines of which a systemd-nspawn runs.
    pub fn machines(&self) -> Result<BTreeSet<String>> {
        let list = self.host.sh(
            "{ cat /proc/[0-9]*/cmdline 2>/dev/null || true; } | tr '\\0' '\\n' | sed -n 's/^--machine=//p'",
        )?;
        Ok(list.lines().map(str::to_owned).collect())
    }

    /// The end of the journal of one unit of the host.
    #[must_use]
    pub fn journal(&self, unit: &str, lines: u16) -> String {
        self.journalctl(&[
            "--output=short-precise",
            "--unit",
            unit,
            "--lines",
            &lines.to_string(),
        ])
        .unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Reads the host's journal with everything in it that was written before. A program does not wait for journald, so
    /// the next one may look too early.
    pub fn journalctl(&self, arguments: &[&str]) -> Result<String> {
        self.host.run(&["journalctl", "--sync"])?;
        self.host
            .run(&[&["journalctl", "--quiet", "--no-pager"], arguments].concat())
    }

    /// Returns the facts to look at first after a failure: the units and their last lines of the journal.
    #[must_use]
    pub fn account(&self) -> String {
        let units = match self.containers() {
            Ok(containers) => containers,
            Err(error) => return format!("the host does not answer: {error:#}"),
        };
        let mut text = format!("--- {DAEMON}\n{}", self.journal(DAEMON, 40));
        for container in units {
            let Container { unit, state, .. } = container;
            // Writing to a String cannot fail.
            write!(text, "--- {unit}, {state}\n{}", self.journal(&unit, 15)).ok();
        }
        text
    }

    /// Back to an empty host: daemon and containers ended, its state gone, the stand-in new.
    pub fn reset(&self) -> Result<()> {
        let host = &self.host;
        host.output(&["systemctl", "stop", DAEMON])?;
        // The next daemon makes the socket, which is removed with everything else.
        host.output(&["systemctl", "stop", MOUNTS])?;
        host.output(&["systemctl", "clean", "--what=fdstore", DAEMON])?;
        for container in self.containers()? {
            // Not the whole cgroup: some kernels kill whatever is started in a cgroup that was
            // killed as a whole, the unit's ExecStopPost= for one.
            host.output(&[
                "systemctl",
                "kill",
                "--signal=KILL",
                "--kill-whom=main",
                &container.unit,
            ])?;
            host.output(&["systemctl", "stop", &container.unit])?;
        }
        host.output(&["systemctl", "reset-failed"])?;
        self.restart_sim()?;
        self.await_nothing_left(Duration::from_secs(20))
            .context("reset")?;
        for name in ["/var/lib/runner-controller", RUN_DIR] {
            for entry in fs::read_dir(host.path(name)).into_iter().flatten() {
                let entry = entry?;
                // The firewall's owner runs on, and reports there.
                if entry.file_name() != "firewall" {
                    crate::bed::remove_tree(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Pulls the plug and boots again, with the disks and /etc as they were. The stand-in, which
    /// runs in the same host, forgets everything too.
    pub fn power_cycle(&mut self) -> Result<()> {
        self.host.power_cycle()?;
        self.sim = Sim::of(&self.host);
        self.furnish()
    }
}

impl Container {
    fn parse(block: &str) -> Option<Self> {
        let value = |key: &str| {
            block
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(str::to_owned)
        };
        let unit = value("Id")?;
        let machine = unit
            .strip_prefix("runner-")?
            .strip_suffix(".service")?
            .replace('@', "-");
        Some(Self {
            machine,
            unit,
            invocation: Invocation::parse(&value("InvocationID")?),
            state: value("ActiveState")?,
        })
    }
}

fn sim_unit() -> String {
    format!(
        "[Unit]\nDescription=A stand-in for GitHub\nRequires=testbed-internet.service\n\
         After=testbed-internet.service\n\n[Service]\nDynamicUser=yes\n\
         NetworkNamespacePath=/run/netns/{}\nLoadCredential=token:{SIM_TOKEN}\nLoadCredential=app:{SIM_APP_KEY}\n\
         ExecStart=/usr/local/bin/{SIM} --listen {}:{PORT} --token-file %d/token \
         --app-id {APP_ID} --app-key-file %d/app \
         --scope acme/widgets --scope acme --scope umbrella $MORE_OPTIONS\n",
        net::INTERNET,
        net::GITHUB
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_read_from_what_systemctl_shows() {
        let block = "Id=runner-ci@12.service\nActiveState=active\nInvocationID=000102030405060708090a0b0c0d0eff\n";
        let container = Container::parse(block).unwrap();
        assert_eq!(container.machine, "ci-12");
        assert_eq!(
            container.invocation,
            Invocation::parse("000102030405060708090a0b0c0d0eff")
        );
        assert_eq!(Container::parse(""), None);
    }
}
