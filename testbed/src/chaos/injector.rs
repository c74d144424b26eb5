//! Injects a fault, one arm for each kind, and repairs it before it returns.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use github_sim::{Endpoint, RunnerView, Standing};
use serde_json::{Value, json};

use crate::binaries::CONTROLLER;
use crate::lab::{DAEMON, FIREWALL, Lab};
use crate::net::INTERNET;
use crate::wait::{Seen, wait_until};

use super::disks::{self, Disk};
use super::jobs::JobDraft;
use super::log::RunLog;
use super::outcomes::Target;
use super::plan::{Fault, FaultKind};
use super::targets::{self, Step};

/// Timeout for a repair, on a machine that is busy and has other faults.
const REPAIR_TIMEOUT: Duration = Duration::from_mins(1);
/// Timeout for a target to appear.
const TARGET_TIMEOUT: Duration = Duration::from_secs(10);
/// Endpoints of GitHub's REST API that a fault may hit.
const REST: &[Endpoint] = &[
    Endpoint::Mint,
    Endpoint::List,
    Endpoint::Get,
    Endpoint::Delete,
    Endpoint::Groups,
];

/// Target of a fault, in words; `None` if it found none.
type Hit = Option<String>;

/// Injects one fault and repairs it.
pub(super) fn inject(lab: &Lab, log: &RunLog, fault: &Fault) -> Result<Hit> {
    let Fault {
        kind, lasts, draw, ..
    } = *fault;
    let injector = Injector {
        lab,
        log,
        lasts,
        draw,
    };
    match kind {
        FaultKind::KillDaemon => injector.kill_unit(DAEMON),
        FaultKind::UpgradeDaemon => injector.upgrade(),
        FaultKind::ReloadDaemon => injector.systemctl(&["reload-or-restart", DAEMON]),
        FaultKind::Drain => injector.drain(),
        FaultKind::KillLauncher => injector.kill_step(Step::Launch, 80),
        FaultKind::KillConnect => injector.kill_step(Step::Connect, 300),
        FaultKind::KillSweep => injector.kill_step(Step::Sweep, 12),
        FaultKind::KillNspawn => injector.kill_nspawn(),
        FaultKind::KillInit => injector.kill_init(),
        FaultKind::KillMachined => injector.kill_unit("systemd-machined.service"),
        FaultKind::KillBus => injector.kill_unit("dbus.service"),
        FaultKind::KillPolkit => injector.kill_unit("polkit.service"),
        FaultKind::Reexec => injector.systemctl(&["daemon-reexec"]),
        FaultKind::ReloadSystemd => injector.systemctl(&["daemon-reload"]),
        FaultKind::RestartJournald => injector.systemctl(&["restart", "systemd-journald.service"]),
        FaultKind::KillGitHub => injector.kill_github(),
        FaultKind::NetworkDown => injector.network_down(),
        FaultKind::FirewallGone => injector.firewall_gone(),
        FaultKind::ServerErrors => injector.server_errors(),
        FaultKind::LostMint => {
            injector.answers(&[Endpoint::Mint], Some(1), &[github_sim::Fault::DropAfter])
        }
        FaultKind::NameTaken => {
            let taken = github_sim::Fault::answer(409, json!({ "message": "Already exists" }));
            injector.answers(&[Endpoint::Mint], Some(1 + draw % 2), &[taken])
        }
        FaultKind::Forbidden => {
            let words = "Resource not accessible by personal access token";
            injector.answers(
                &[Endpoint::Mint, Endpoint::List],
                Some(1 + draw % 3),
                &[github_sim::Fault::Forbidden {
                    message: words.into(),
                }],
            )
        }
        FaultKind::PrimaryLimit => {
            let limit = github_sim::Fault::PrimaryLimit {
                reset_in_s: injector.lasts_s(),
            };
            injector.answers(&[Endpoint::Mint], Some(1), &[limit])
        }
        FaultKind::SecondaryLimit => {
            let limit = github_sim::Fault::SecondaryLimit {
                retry_after_s: Some(injector.lasts_s()),
            };
            injector.answers(&[Endpoint::Mint], Some(1), &[limit])
        }
        FaultKind::WrongList => injector.wrong_list(),
        FaultKind::MalformedAnswer => injector.malformed_answer(),
        FaultKind::SlowBody => injector.answers(
            REST,
            None,
            &[github_sim::Fault::SlowDrip {
                bytes_per_s: u32::try_from(400 + draw % 4000)?,
            }],
        ),
        FaultKind::TokenRotated => injector.token_rotated(),
        FaultKind::ListLag => {
            injector.setting("list_lag_ms", &json!(2000 + draw % 6000), &json!(0))
        }
        FaultKind::PageGlitch => {
            let glitch = if draw % 2 == 0 { "skip" } else { "repeat" };
            injector.setting("paging_fault", &json!(glitch), &json!("none"))
        }
        FaultKind::IdleLapse => injector.setting("idle_reap_ms", &json!(1000), &Value::Null),
        FaultKind::LostRace => injector.lost_race(),
        FaultKind::DeletedByHand => injector.delete_idle_runner(),
        FaultKind::RecordsDiskFull => injector.fill(Disk::Records),
        FaultKind::LayerDiskFull => injector.fill(Disk::Layers),
        FaultKind::PowerCut => bail!("a power cut needs exclusive access to the test host"),
    }
}

/// A fault that is being injected.
struct Injector<'a> {
    lab: &'a Lab,
    log: &'a RunLog,
    lasts: Duration,
    draw: u64,
}

impl Injector<'_> {
    fn wait(&self) {
        std::thread::sleep(self.lasts);
    }

    fn lasts_s(&self) -> u64 {
        self.lasts.as_secs().max(1)
    }

    fn lasting(&self, state: &str) -> String {
        format!("{state} for {:.1} s", self.lasts.as_secs_f64())
    }

    fn choose<T>(&self, mut among: Vec<T>) -> Option<T> {
        let count = u64::try_from(among.len()).ok().filter(|count| *count > 0)?;
        let place = usize::try_from(self.draw % count).ok()?;
        Some(among.swap_remove(place))
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<Hit> {
        let mut command = vec!["systemctl"];
        command.extend(arguments);
        retry(&command.join(" "), || {
            self.lab.host().run(&command).map(drop)
        })?;
        Ok(Some(String::new()))
    }

    /// Kills a service. It restarts by itself, or when it is next used.
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
        self.request("/drain")?;
        self.wait();
        self.request("/undrain")?;
        Ok(Some(self.lasting("drained")))
    }

    /// Repeats a request to the daemon until the daemon accepts it.
    fn request(&self, path: &str) -> Result<()> {
        retry(&format!("POST {path}"), || {
            let answer = self.lab.api("POST", path)?;
            ensure!(answer.status < 300, "{answer:?}");
            Ok(())
        })
    }

    fn kill_step(&self, step: Step, max_ms: u64) -> Result<Hit> {
        let after = Duration::from_millis(self.draw % max_ms);
        let from = RunLog::now_ms();
        let hit = targets::kill_step(self.lab.host(), step, after)?;
        Ok(hit.map(|machine| {
            // A sweep runs after the end of the container, and so of its job.
            if step != Step::Sweep {
                self.log.killed(from, Target::Container(machine.clone()));
            }
            format!("{machine}, {} ms into it", after.as_millis())
        }))
    }

    fn kill_nspawn(&self) -> Result<Hit> {
        let Some(unit) = self.choose(targets::units(self.lab.host())) else {
            return Ok(None);
        };
        let from = RunLog::now_ms();
        let kill = [
            "systemctl",
            "kill",
            "--signal=KILL",
            "--kill-whom=main",
            &unit.name,
        ];
        let killed = self.lab.host().output(&kill)?.status.success();
        self.log
            .killed(from, Target::Container(unit.machine.clone()));
        Ok(killed.then_some(unit.machine))
    }

    fn kill_init(&self) -> Result<Hit> {
        let Some((unit, pid)) = self.choose(targets::inits(self.lab.host())) else {
            return Ok(None);
        };
        let from = RunLog::now_ms();
        let killed = targets::sigkill(pid)?;
        self.log
            .killed(from, Target::Container(unit.machine.clone()));
        Ok(killed.then_some(unit.machine))
    }

    fn kill_github(&self) -> Result<Hit> {
        self.lab.kill_sim()?;
        self.wait();
        retry("restart GitHub", || self.lab.restart_sim())?;
        Ok(Some(self.lasting("away")))
    }

    fn network_down(&self) -> Result<Hit> {
        let link = |state: &str| {
            let command = ["ip", "-n", INTERNET, "link", "set", "eth0", state];
            retry("set the link", || self.lab.host().run(&command).map(drop))
        };
        link("down")?;
        self.wait();
        link("up")?;
        Ok(Some(self.lasting("down")))
    }

    fn firewall_gone(&self) -> Result<Hit> {
        // The kernel lets nothing delete a table that has an owner.
        self.systemctl(&["stop", FIREWALL])?;
        self.lab
            .host()
            .run(&["nft", "delete", "table", "inet", "runner_controller"])?;
        self.wait();
        self.systemctl(&["start", FIREWALL])?;
        Ok(Some(self.lasting("gone")))
    }

    /// Injects `faults` into these calls at the stand-in until the fault is over.
    fn answers(
        &self,
        endpoints: &[Endpoint],
        times: Option<u64>,
        faults: &[github_sim::Fault],
    ) -> Result<Hit> {
        for endpoint in endpoints {
            for fault in faults {
                retry("inject a fault at the stand-in", || {
                    self.lab.sim().fault(*endpoint, times, fault)
                })?;
            }
        }
        self.wait();
        retry("clear the faults", || self.lab.sim().clear_faults())?;
        let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.name()).collect();
        Ok(Some(self.lasting(&names.join(" "))))
    }

    fn server_errors(&self) -> Result<Hit> {
        let every = match self.draw % 4 {
            0 => github_sim::Fault::status(500),
            1 => github_sim::Fault::status(503),
            2 => github_sim::Fault::Html502,
            _ => github_sim::Fault::DropBefore,
        };
        self.answers(REST, None, &[every])
    }

    fn wrong_list(&self) -> Result<Hit> {
        let faults = [
            github_sim::Fault::Truncate { bytes: 20 },
            github_sim::Fault::WrongTypes,
            github_sim::Fault::answer(200, json!({ "total_count": 0, "runners": [] })),
        ];
        self.answers(&[Endpoint::List], Some(1 + self.draw % 3), &faults)
    }

    fn malformed_answer(&self) -> Result<Hit> {
        let every = match self.draw % 4 {
            0 => github_sim::Fault::Redirect {
                to: "http://198.51.100.7:8080/elsewhere".into(),
                code: 307,
            },
            1 => github_sim::Fault::Giant { bytes: 20_000_000 },
            2 => github_sim::Fault::WrongTypes,
            _ => github_sim::Fault::Truncate { bytes: 40 },
        };
        self.answers(&[Endpoint::Mint, Endpoint::List], Some(2), &[every])
    }

    fn token_rotated(&self) -> Result<Hit> {
        let token = format!("github_pat_testbed_{:016x}", self.draw);
        retry("rotate the token", || self.lab.sim().rotate_token(&token))?;
        self.wait();
        self.lab.write_token(&token)?;
        self.systemctl(&["restart", DAEMON])?;
        Ok(Some(self.lasting("wrong")))
    }

    fn setting(&self, key: &str, faulty: &Value, normal: &Value) -> Result<Hit> {
        let set = |value: &Value| {
            retry(&format!("set {key}"), || {
                self.lab.sim().set(&json!({ key: value }))
            })
        };
        set(faulty)?;
        self.wait();
        set(normal)?;
        Ok(Some(self.lasting(&format!("{key} {faulty}"))))
    }

    fn lost_race(&self) -> Result<Hit> {
        let draft = JobDraft::raced(format!("raced-{}", self.draw), 1);
        retry("queue a job", || self.log.queue(self.lab, &draft))?;
        Ok(Some(draft.name))
    }

    /// Deletes the registration of an idle runner. GitHub may send it a job just before, which then fails
    /// through the deletion.
    fn delete_idle_runner(&self) -> Result<Hit> {
        let Some(runner) = self.idle_runner()? else {
            return Ok(None);
        };
        let from = RunLog::now_ms();
        self.lab.sim().delete_runner(runner.id)?;
        self.log.killed(from, Target::Runner(runner.name.clone()));
        Ok(Some(runner.name))
    }

    /// Waits for an idle runner. After another fault there may be none for a while.
    fn idle_runner(&self) -> Result<Option<RunnerView>> {
        let idle = |runner: &RunnerView| {
            let listens = runner.standing == Standing::Registered && runner.online;
            listens && !runner.planted && runner.job.is_none()
        };
        let start = Instant::now();
        loop {
            let runners = self.lab.sim().runners()?.into_iter();
            let found = self.choose(runners.filter(idle).collect());
            if found.is_some() || start.elapsed() > TARGET_TIMEOUT {
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

/// Repeats an action until it succeeds, because another fault may prevent it for a while.
pub(super) fn retry(action: &str, mut act: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    wait_until(
        &format!("`{action}` to succeed"),
        REPAIR_TIMEOUT,
        || match act() {
            Ok(()) => Ok(Seen::Done(())),
            Err(error) => {
                std::thread::sleep(Duration::from_millis(200));
                Ok(Seen::NotYet(format!("{error:#}")))
            }
        },
    )
    .with_context(|| format!("tried for {:.1} s", start.elapsed().as_secs_f64()))
}
