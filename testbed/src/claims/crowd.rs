//! Many idle containers on one host.

use anyhow::{Context, Result, ensure};
use status::PhaseKind;

use super::common::{SOON, in_container, leader};
use super::fixture::Fixture;
use super::suite::{Suite, suite};
use crate::bed::note;
use crate::config::Config;
use crate::lab::Lab;
use crate::net::RESOLVER;

/// Number of containers. Debian's default of 128 inotify instances ends at 15 to 30 of them.
const CROWD: u16 = 32;

/// One pool whose slots are all taken by idle containers.
const FIXTURE: Fixture = Fixture {
    name: "a crowd of idle containers",
    config: |lab| {
        let config = Config::small(lab.sim().api_url()).with("ci", |pool| {
            (pool.min_idle, pool.min_spare, pool.max_runners) = (1, CROWD - 1, CROWD);
            pool.layer_size = "64 MiB".into();
            pool.memory = "256 MiB".into();
        });
        Ok(Some(config))
    },
    // The daemon starts two at a time.
    await_ready: |lab| lab.await_settled(SOON * 4).map(drop),
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    a_crowd_of_idle_containers_takes_no_more_of_shared_tables_than_documented,
    a_runner_takes_its_range_of_ports_toward_a_destination_and_no_more,
    both_ends_of_a_link_need_no_entry_of_the_shared_neighbour_table,
];

/// Prints what the processes of a container hold of each table: a name and a number in each line.
const COUNT: &str = "
    echo instances $(find /proc/[0-9]*/fd -lname anon_inode:inotify 2>/dev/null | wc -l)
    echo watches $(cat /proc/[0-9]*/fdinfo/* 2>/dev/null | grep -c ^inotify)
    for kind in user pid uts ipc net mnt cgroup time; do
      echo $kind $(readlink /proc/[0-9]*/ns/$kind 2>/dev/null | sort -u | wc -l)
    done
    echo terminals $(ls /dev/pts | grep -c '^[0-9]')
    echo tasks $(cat /proc/[0-9]*/status 2>/dev/null | sed -n 's/^Threads:[[:space:]]*//p' | awk '{ sum += $1 } END { print sum }')
    echo groups $(find /sys/fs/cgroup -mindepth 1 -type d | wc -l)";

/// Most that an idle container may take, as the threat model has it. The processes that count are in it.
const MOST: [(&str, u32); 13] = [
    ("instances", 8),
    ("watches", 64),
    ("user", 32),
    ("pid", 32),
    ("uts", 32),
    ("ipc", 32),
    ("net", 32),
    ("mnt", 32),
    ("cgroup", 32),
    ("time", 32),
    ("terminals", 1),
    ("tasks", 32),
    ("groups", 64),
];

fn a_crowd_of_idle_containers_takes_no_more_of_shared_tables_than_documented(
    lab: &mut Lab,
) -> Result<()> {
    let status = lab.look()?;
    let ready = status.in_phase(PhaseKind::Idle).len() + status.in_phase(PhaseKind::Spare).len();
    ensure!(ready == usize::from(CROWD), "{ready} are ready");
    let mut most = Vec::new();
    for runner in status.runners() {
        let machine = runner.machine();
        let said = in_container(lab, &machine, &["sh", "-c", COUNT])?;
        for (at, (name, maximum)) in MOST.into_iter().enumerate() {
            let line = said.lines().nth(at).and_then(|line| line.split_once(' '));
            let (found, number) = line.with_context(|| said.clone())?;
            let number: u32 = number.parse().with_context(|| said.clone())?;
            ensure!(found == name, "{said}");
            ensure!(
                number <= maximum,
                "{machine} takes {number} {name} and not at most {maximum}"
            );
            match most.get_mut(at) {
                None => most.push(number),
                Some(most) => *most = number.max(*most),
            }
        }
    }
    let figures = MOST.iter().zip(most);
    let figures: Vec<String> = figures
        .map(|((name, _), most)| format!("{most} {name}"))
        .collect();
    note(&format!(
        "an idle container takes at most {}",
        figures.join(", ")
    ));
    let service = ["systemd-run", "--quiet", "--collect", "--wait"];
    let sandbox = ["--property=ProtectHostname=yes", "true"];
    lab.host().run(&[&service[..], &sandbox].concat()).map(drop)
}

/// Asks from many ports.
const PORTS: &str = include_str!("crowd/ports.py");
/// Ports of all slots, as docs/firewall.md has them.
const ALL_PORTS: u16 = 59_976;

/// Asks the resolver from so many ports of a container, and returns the number of answers.
fn ask(lab: &Lab, machine: &str, ports: u16) -> Result<u16> {
    let run = "ulimit -n 4096; exec python3 -c \"$@\"";
    let ports = ports.to_string();
    let said = in_container(
        lab,
        machine,
        &["sh", "-c", run, "sh", PORTS, RESOLVER, &ports],
    )?;
    said.trim().parse().with_context(|| said.clone())
}

fn a_runner_takes_its_range_of_ports_toward_a_destination_and_no_more(lab: &mut Lab) -> Result<()> {
    let range = ALL_PORTS / CROWD;
    // The kernel tries a few hundred ports of the range, so it does not find the last free ones.
    let answers = ask(lab, "ci-1", range + 1000)?;
    note(&format!("{answers} of {range} ports"));
    ensure!(
        (range - range / 20..=range).contains(&answers),
        "{answers} answers, from a range of {range} ports"
    );
    let others = ask(lab, "ci-2", 100)?;
    ensure!(others == 100, "another runner got {others} of 100 answers");
    Ok(())
}

fn both_ends_of_a_link_need_no_entry_of_the_shared_neighbour_table(lab: &mut Lab) -> Result<()> {
    let leader = leader(lab, "ci-3")?;
    let host = lab.host().run(&["ip", "neigh", "show", "dev", "rc-ci-3"])?;
    let guest = [
        "nsenter", "--target", &leader, "--net", "ip", "neigh", "show", "dev", "host0",
    ];
    let guest = lab.host().run(&guest)?;
    for entries in [host, guest] {
        ensure!(
            entries.lines().count() == 1 && entries.contains("PERMANENT"),
            "{entries}"
        );
    }
    // A wrong entry would leave the container without a network. Another container asks than the one whose ports
    // toward the resolver are taken.
    ensure!(ask(lab, "ci-3", 1)? == 1, "the resolver does not answer");
    Ok(())
}
