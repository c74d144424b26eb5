//! Carries out a fault: thin, one arm for each kind. What must be mended is mended before it returns.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::binaries::CONTROLLER;
use crate::lab::{DAEMON, FIREWALL, Lab};
use crate::net::INTERNET;
use crate::sim::Runner;
use crate::wait::{Seen, wait_until};

use super::book::Whom;
use super::disks::{self, Disk};
use super::jobs::Draft;
use super::ledger::Ledger;
use super::plan::{Kind, Strike};
use super::prey::{self, Step};

/// How long mending may take, on a machine that is busy and half broken.
const MEND: Duration = Duration::from_mins(1);
/// How long to wait for something to hit.
const PATIENCE: Duration = Duration::from_secs(10);
/// The calls that are GitHub's REST.
const REST: &[&str] = &["mint", "list", "get", "delete", "groups"];

/// What a fault hit, in words; nothing if there was nothing to hit.
type Hit = Option<String>;

/// One fault, carried out and mended.
pub(super) fn strike(lab: &Lab, ledger: &Ledger, strike: &Strike) -> Result<Hit> {
    let Strike {
        kind, lasts, dice, ..
    } = *strike;
    let blow = Blow {
        lab,
        ledger,
        lasts,
        dice,
    };
    match kind {
        Kind::KillDaemon => blow.kill_unit(DAEMON),
        Kind::UpgradeDaemon => blow.upgrade(),
        Kind::ReloadDaemon => blow.systemctl(&["reload-or-restart", DAEMON]),
        Kind::Drain => blow.drain(),
        Kind::KillLauncher => blow.ambush(Step::Launch, 80),
        Kind::KillConnect => blow.ambush(Step::Connect, 6),
        Kind::KillSweep => blow.ambush(Step::Sweep, 12),
        Kind::KillNspawn => blow.kill_nspawn(),
        Kind::KillInit => blow.kill_init(),
        Kind::KillMachined => blow.kill_unit("systemd-machined.service"),
        Kind::KillBus => blow.kill_unit("dbus.service"),
        Kind::KillPolkit => blow.kill_unit("polkit.service"),
        Kind::Reexec => blow.systemctl(&["daemon-reexec"]),
        Kind::ReloadSystemd => blow.systemctl(&["daemon-reload"]),
        Kind::RestartJournald => blow.systemctl(&["restart", "systemd-journald.service"]),
        Kind::KillGitHub => blow.kill_github(),
        Kind::NetworkDown => blow.network_down(),
        Kind::FirewallGone => blow.firewall_gone(),
        Kind::ServerErrors => blow.server_errors(),
        Kind::LostMint => blow.answers(&["mint"], Some(1), &[json!("drop_after")]),
        Kind::NameTaken => {
            let taken =
                json!({ "status": { "code": 409, "body": { "message": "Already exists" } } });
            blow.answers(&["mint"], Some(1 + dice % 2), &[taken])
        }
        Kind::Forbidden => {
            let words = "Resource not accessible by personal access token";
            blow.answers(
                &["mint", "list"],
                Some(1 + dice % 3),
                &[json!({ "forbidden": { "message": words } })],
            )
        }
        Kind::PrimaryLimit => {
            let limit = json!({ "primary_limit": { "reset_in_s": blow.lasts_s() } });
            blow.answers(&["mint"], Some(1), &[limit])
        }
        Kind::SecondaryLimit => {
            let limit = json!({ "secondary_limit": { "retry_after_s": blow.lasts_s() } });
            blow.answers(&["mint"], Some(1), &[limit])
        }
        Kind::LyingList => blow.lying_list(),
        Kind::Nonsense => blow.nonsense(),
        Kind::SlowBody => blow.answers(
            REST,
            None,
            &[json!({ "slow_drip": { "bytes_per_s": 400 + dice % 4000 } })],
        ),
        Kind::TokenRotated => blow.token_rotated(),
        Kind::ListLag => blow.setting("list_lag_ms", &json!(2000 + dice % 6000), &json!(0)),
        Kind::PageGlitch => {
            let glitch = if dice % 2 == 0 { "skip" } else { "repeat" };
            blow.setting("page_glitch", &json!(glitch), &json!("none"))
        }
        Kind::IdleLapses => blow.setting("idle_reap_ms", &json!(1000), &Value::Null),
        Kind::Ghost => blow.ghost(),
        Kind::DeletedByHand => blow.delete_by_hand(),
        Kind::StateDiskFull => blow.fill(Disk::State),
        Kind::LayerDiskFull => blow.fill(Disk::Layers),
        Kind::PowerCut => bail!("a power cut is for who owns the lab"),
    }
}

/// What all arms need.
struct Blow<'a> {
    lab: &'a Lab,
    ledger: &'a Ledger,
    lasts: Duration,
    dice: u64,
}

impl Blow<'_> {
    fn wait(&self) {
        std::thread::sleep(self.lasts);
    }

    fn lasts_s(&self) -> u64 {
        self.lasts.as_secs().max(1)
    }

    fn lasting(&self, what: &str) -> String {
        format!("{what} for {:.1} s", self.lasts.as_secs_f64())
    }

    fn choose<T>(&self, mut among: Vec<T>) -> Option<T> {
        let count = u64::try_from(among.len()).ok().filter(|count| *count > 0)?;
        let place = usize::try_from(self.dice % count).ok()?;
        Some(among.swap_remove(place))
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<Hit> {
        let mut command = vec!["systemctl"];
        command.extend(arguments);
        mend(&command.join(" "), || {
            self.lab.host().run(&command).map(drop)
        })?;
        Ok(Some(String::new()))
    }

    /// SIGKILL for a service, which comes back by itself or when it is asked for.
    fn kill_unit(&self, unit: &str) -> Result<Hit> {
        let pid = self.lab.show(unit, "MainPID")?;
        if pid == "0" {
            return Ok(None);
        }
        self.lab.host().run(&["kill", "-KILL", &pid])?;
        Ok(Some(format!("process {pid}")))
    }

    fn upgrade(&self) -> Result<Hit> {
        let program = format!("/usr/local/bin/{CONTROLLER}");
        self.lab
            .host()
            .install(self.lab.binary(CONTROLLER)?, &program, 0o755)?;
        self.systemctl(&["restart", DAEMON])
    }

    fn drain(&self) -> Result<Hit> {
        self.ask("/drain")?;
        self.wait();
        self.ask("/undrain")?;
        Ok(Some(self.lasting("drained")))
    }

    /// Asks the daemon until it is there and agrees.
    fn ask(&self, path: &str) -> Result<()> {
        mend(path, || {
            let answer = self.lab.api("POST", path)?;
            ensure!(answer.status < 300, "{answer:?}");
            Ok(())
        })
    }

    fn ambush(&self, step: Step, most_ms: u64) -> Result<Hit> {
        let after = Duration::from_millis(self.dice % most_ms);
        let from = Ledger::now_ms();
        let hit = prey::ambush(self.lab.host(), step, after)?;
        Ok(hit.map(|machine| {
            // A sweep comes when the container is gone.
            if step != Step::Sweep {
                self.ledger.cut(from, Whom::Machine(machine.clone()));
            }
            format!("{machine}, {} ms into it", after.as_millis())
        }))
    }

    fn kill_nspawn(&self) -> Result<Hit> {
        let Some(unit) = self.choose(prey::units(self.lab.host())) else {
            return Ok(None);
        };
        let from = Ledger::now_ms();
        let kill = [
            "systemctl",
            "kill",
            "--signal=KILL",
            "--kill-whom=main",
            &unit.name,
        ];
        let killed = self.lab.host().output(&kill)?.status.success();
        self.ledger.cut(from, Whom::Machine(unit.machine.clone()));
        Ok(killed.then_some(unit.machine))
    }

    fn kill_init(&self) -> Result<Hit> {
        let Some((unit, pid)) = self.choose(prey::inits(self.lab.host())) else {
            return Ok(None);
        };
        let from = Ledger::now_ms();
        let killed = prey::slay(pid)?;
        self.ledger.cut(from, Whom::Machine(unit.machine.clone()));
        Ok(killed.then_some(unit.machine))
    }

    fn kill_github(&self) -> Result<Hit> {
        self.lab.kill_sim()?;
        self.wait();
        mend("GitHub's return", || self.lab.restart_sim())?;
        Ok(Some(self.lasting("away")))
    }

    fn network_down(&self) -> Result<Hit> {
        let link = |state: &str| {
            let command = ["ip", "-n", INTERNET, "link", "set", "eth0", state];
            mend("the cable", || self.lab.host().run(&command).map(drop))
        };
        link("down")?;
        self.wait();
        link("up")?;
        Ok(Some(self.lasting("down")))
    }

    fn firewall_gone(&self) -> Result<Hit> {
        self.lab
            .host()
            .run(&["nft", "delete", "table", "inet", "runner_controller"])?;
        self.wait();
        self.systemctl(&["reload-or-restart", FIREWALL])?;
        Ok(Some(self.lasting("gone")))
    }

    /// Lets these calls be answered so, until the fault is over.
    fn answers(&self, endpoints: &[&str], times: Option<u64>, actions: &[Value]) -> Result<Hit> {
        for endpoint in endpoints {
            for action in actions {
                mend("/_sim/faults", || {
                    self.lab.sim().fault(endpoint, times, action)
                })?;
            }
        }
        self.wait();
        mend("no more faults", || self.lab.sim().clear_faults())?;
        Ok(Some(self.lasting(&endpoints.join(" "))))
    }

    fn server_errors(&self) -> Result<Hit> {
        let every = match self.dice % 4 {
            0 => json!({ "status": { "code": 500 } }),
            1 => json!({ "status": { "code": 503 } }),
            2 => json!("html_502"),
            _ => json!("drop_before"),
        };
        self.answers(REST, None, &[every])
    }

    fn lying_list(&self) -> Result<Hit> {
        let empty =
            json!({ "status": { "code": 200, "body": { "total_count": 0, "runners": [] } } });
        let lies = [
            json!({ "truncate": { "bytes": 20 } }),
            json!("wrong_types"),
            empty,
        ];
        self.answers(&["list"], Some(1 + self.dice % 3), &lies)
    }

    fn nonsense(&self) -> Result<Hit> {
        let every = match self.dice % 4 {
            0 => json!({ "redirect": { "to": "http://198.51.100.7:8080/elsewhere" } }),
            1 => json!({ "giant": { "bytes": 20_000_000 } }),
            2 => json!("wrong_types"),
            _ => json!({ "truncate": { "bytes": 40 } }),
        };
        self.answers(&["mint", "list"], Some(2), &[every])
    }

    fn token_rotated(&self) -> Result<Hit> {
        let token = format!("github_pat_testbed_{:016x}", self.dice);
        mend("another token", || self.lab.sim().rotate_token(&token))?;
        self.wait();
        self.lab.write_token(&token)?;
        self.systemctl(&["restart", DAEMON])?;
        Ok(Some(self.lasting("wrong")))
    }

    fn setting(&self, key: &str, bad: &Value, good: &Value) -> Result<Hit> {
        let set = |value: &Value| mend(key, || self.lab.sim().set(&json!({ key: value })));
        set(bad)?;
        self.wait();
        set(good)?;
        Ok(Some(self.lasting(&format!("{key} {bad}"))))
    }

    fn ghost(&self) -> Result<Hit> {
        let draft = Draft::raced(format!("raced-{}", self.dice), 1);
        mend("a job", || self.ledger.send(self.lab, &draft))?;
        Ok(Some(draft.name))
    }

    /// A runner that has no job when it is looked at. It may get one in between, and then that is
    /// the person's doing.
    fn delete_by_hand(&self) -> Result<Hit> {
        let Some(runner) = self.idle_runner()? else {
            return Ok(None);
        };
        let from = Ledger::now_ms();
        self.lab.sim().delete_runner(runner.id)?;
        self.ledger.cut(from, Whom::Runner(runner.name.clone()));
        Ok(Some(runner.name))
    }

    /// After another fault there may be none for a while.
    fn idle_runner(&self) -> Result<Option<Runner>> {
        let idle = |runner: &Runner| {
            let listens = runner.standing == "registered" && runner.online;
            listens && !runner.planted && runner.job.is_none()
        };
        let start = Instant::now();
        loop {
            let runners = self.lab.sim().runners()?.into_iter();
            let found = self.choose(runners.filter(idle).collect());
            if found.is_some() || start.elapsed() > PATIENCE {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn fill(&self, disk: Disk) -> Result<Hit> {
        disks::fill(self.lab, disk)?;
        self.wait();
        disks::release(self.lab, disk)?;
        Ok(Some(self.lasting("full")))
    }
}

/// Tries until it works: whatever is mended may be hit by another fault meanwhile.
pub(super) fn mend(what: &str, mut act: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    wait_until(what, MEND, || match act() {
        Ok(()) => Ok(Seen::Done(())),
        Err(error) => {
            std::thread::sleep(Duration::from_millis(200));
            Ok(Seen::NotYet(format!("{error:#}")))
        }
    })
    .with_context(|| format!("tried for {:.1} s", start.elapsed().as_secs_f64()))
}
