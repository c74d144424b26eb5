//! Tables of the kernel that all containers share: a job that takes all that it gets disturbs neither the
//! host nor another pool.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use status::{PhaseKind, Status};

use super::common::{SOON, as_its_root, await_busy, in_container, leader};
use super::fixture::{Fixture, await_settled, one};
use super::suite::{Suite, suite};
use crate::bed;
use crate::config::Config;
use crate::lab::Lab;
use crate::net::GITHUB;
use crate::sim::{self, pool_job};
use crate::wait::{Seen, wait_until};

/// Three pools with one slot each. The last one has few connections.
const FIXTURE: Fixture = Fixture {
    name: "three pools with one slot each",
    config: |lab| {
        let mut config = Config::small(lab.sim().api_url());
        config.reconcile = "2s".into();
        let mut greedy = one("greedy", 0);
        // Only such a job may have keys.
        greedy.docker = true;
        let mut few = one("few", 16);
        few.connections = Some(FEW);
        // Only the root of such a container may change its network.
        few.docker = true;
        config.pools = vec![greedy, one("other", 8), few];
        Ok(Some(config))
    },
    await_ready: await_settled,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    while_one_job_takes_every_shared_table_other_jobs_and_the_host_work,
    connections_that_a_job_left_open_take_nothing_from_the_next_runner,
];

/// Smallest number of open connections that a pool can have.
const FEW: u32 = 64;
/// Opens and holds connections.
const CONNECT: &str = include_str!("tables/connect.py");

const PROGRAM: &str = include_str!("tables/exhaust.c");
/// Place of the program on the host and in the container.
const INSTALLED: &str = "/run/testbed/exhaust";

/// A table and the user of the container that takes it.
struct Table {
    name: &'static str,
    user: &'static str,
    /// Least number that the user gets.
    least: u32,
}

impl Table {
    const fn of_job(name: &'static str, least: u32) -> Self {
        Self {
            name,
            user: "runner",
            least,
        }
    }

    /// A table of which the job's user has nothing, or has taken something for another table.
    const fn of_root(name: &'static str, least: u32) -> Self {
        Self {
            name,
            user: "root",
            least,
        }
    }
}

/// Tables in the order in which they are taken. The last two also keep the runner itself from new connections and
/// new services.
const TABLES: [Table; 16] = [
    Table::of_job("inotify", 900),
    Table::of_root("inotify-watches", 500_000),
    Table::of_job("epoll-watches", EPOLL_WATCHES - 1000),
    Table::of_job("keys", 150),
    Table::of_job("pipes", 60),
    Table::of_job("files-in-flight", 60),
    Table::of_job("semaphores", 30_000),
    Table::of_job("terminals", 900),
    Table::of_job("namespaces", 900),
    Table::of_job("timers", 900),
    Table::of_job("message-queues", 2),
    Table::of_job("aio", 64),
    Table::of_root("mounts", 90_000),
    Table::of_root("fragments", 10_000),
    Table::of_job("connections", 40_000),
    Table::of_root("control-groups", 300),
];

/// The maximum of epoll watches for each user id, for the time of the claim. The kernel's default is a
/// twenty-fifth of the memory, which is too long to take.
const EPOLL_WATCHES: u32 = 100_000;
/// The file of that maximum.
const EPOLL_SETTING: &str = "/proc/sys/fs/epoll/max_user_watches";

fn while_one_job_takes_every_shared_table_other_jobs_and_the_host_work(
    lab: &mut Lab,
) -> Result<()> {
    install(lab)?;
    let forever = pool_job("greedy", "greedy", "sleep infinity");
    let id = lab.sim().queue(&forever)?;
    let machine = await_busy(lab, id)?.machine();
    let copy = format!(
        "nsenter --target {} --all -- \
         sh -c 'cat >/tmp/exhaust && chmod 755 /tmp/exhaust' <{INSTALLED}",
        leader(lab, &machine)?
    );
    lab.host().sh(&copy)?;
    // The setting is the machine's, and a test host cannot write it.
    let usual = fs::read_to_string(EPOLL_SETTING)?;
    fs::write(EPOLL_SETTING, EPOLL_WATCHES.to_string())?;
    let outcome = take_all(lab, &machine);
    fs::write(EPOLL_SETTING, usual)?;
    outcome?;
    // The next claim has an undisturbed runner.
    lab.host()
        .run(&["systemctl", "stop", "runner-greedy@1.service"])?;
    lab.await_status("greedy-1 to be idle again", SOON, |status| {
        is_idle(status, "greedy-1").then_some(())
    })
}

fn is_idle(status: &Status, machine: &str) -> bool {
    let idle = status.in_phase(PhaseKind::Idle);
    idle.iter().any(|runner| runner.machine() == machine)
}

fn take_all(lab: &Lab, machine: &str) -> Result<()> {
    for table in TABLES {
        let Table { name, .. } = table;
        take(lab, machine, &table).with_context(|| format!("take {name}"))?;
        others_work(lab).with_context(|| format!("while a job holds its part of {name}"))?;
    }
    Ok(())
}

/// Compiles the program and puts it on the host.
fn install(lab: &Lab) -> Result<()> {
    let work = tempfile::tempdir()?;
    let (source, program) = (work.path().join("exhaust.c"), work.path().join("exhaust"));
    fs::write(&source, PROGRAM)?;
    bed::run(
        Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-static", "-o"])
            .args([&program, &source]),
    )?;
    lab.host().install(&program, INSTALLED, 0o755)
}

/// Takes a table, and waits until the program holds what it got.
fn take(lab: &Lab, machine: &str, table: &Table) -> Result<()> {
    let Table { name, user, least } = table;
    let (unit, user) = (format!("--unit=exhaust-{name}"), format!("--uid={user}"));
    let said = format!("/tmp/taken-{name}");
    let start = [
        "systemd-run",
        "--quiet",
        &user,
        "--property=LimitNOFILE=65536",
        &unit,
        "/tmp/exhaust",
        name,
        &said,
        GITHUB,
    ];
    in_container(lab, machine, &start)?;
    let read = format!("cat {said} 2>/dev/null || true");
    let taken = wait_until("the program to hold its part", SOON, || {
        let text = in_container(lab, machine, &["sh", "-c", &read])?;
        Ok(match text.trim().parse::<u32>() {
            Ok(taken) => Seen::Done(taken),
            Err(_) => Seen::NotYet(text),
        })
    })?;
    ensure!(taken >= *least, "it got {taken} and not {least}");
    Ok(())
}

/// Asks a resolver in a packet of several fragments.
const FRAGMENTED: &str = include_str!("tables/fragmented.py");

/// Runs a job in the other pool, waits until a new container has booted there, and starts a service of the host
/// that has its own namespaces.
fn others_work(lab: &Lab) -> Result<()> {
    let script = format!("python3 - <<'END'\n{FRAGMENTED}END\n");
    let id = lab.sim().queue(&pool_job("other", "other", &script))?;
    let job = lab.sim().await_success(id, SOON)?;
    let name = job.runner_name.context("a job has a runner")?;
    lab.await_status("a new runner in the other pool", SOON, |status| {
        (status.ended(&name).is_some() && is_idle(status, "other-1")).then_some(())
    })?;
    let service = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--wait",
        "--property=ProtectHostname=yes",
        "--property=PrivateTmp=yes",
        "true",
    ];
    lab.host()
        .run(&service)
        .context("start a service with its own namespaces")
        .map(drop)
}

/// Opens connections from a container and holds them for a time. Returns their number.
fn connect(lab: &Lab, machine: &str, most: u32, seconds: u32) -> Result<u32> {
    let file = "/tmp/connected";
    let (most, seconds) = (most.to_string(), seconds.to_string());
    let port = sim::PORT.to_string();
    let output = format!("--property=StandardOutput=file:{file}");
    let start = [
        "systemd-run",
        "--quiet",
        "--collect",
        &output,
        "python3",
        "-c",
        CONNECT,
    ];
    let start = [&start[..], &[GITHUB, &port, &most, &seconds]].concat();
    in_container(lab, machine, &start)?;
    wait_until("the connections to be open", SOON, || {
        let text = in_container(lab, machine, &["sh", "-c", &format!("cat {file} || true")])?;
        Ok(match text.trim().parse() {
            Ok(number) => Seen::Done(number),
            Err(_) => Seen::NotYet(text),
        })
    })
}

fn connections_that_a_job_left_open_take_nothing_from_the_next_runner(lab: &mut Lab) -> Result<()> {
    let machine = "few-1";
    let runner = |status: &Status| {
        let runner = status.machine(machine)?;
        is_idle(status, machine).then(|| runner.runner.clone())
    };
    let first = lab.await_status("an idle runner", SOON, runner)?;
    let opened = connect(lab, machine, FEW * 2, 600)?;
    ensure!(opened > FEW / 2 && opened <= FEW, "{opened} are open");
    // The end of the container closes them, and the other side never learns it.
    as_its_root(lab, machine, "ip link set host0 down")?;
    lab.host()
        .run(&["systemctl", "stop", "runner-few@1.service"])?;
    lab.await_status("another runner", SOON, |status| {
        runner(status).filter(|next| *next != first)
    })?;
    let opened = connect(lab, machine, FEW / 2, 0)?;
    ensure!(
        opened == FEW / 2,
        "the next runner got {opened} connections"
    );
    Ok(())
}
