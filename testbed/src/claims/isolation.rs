//! Addresses, sockets and files that a job reaches or does not reach.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::common::{
    SOON, daemon_pid, ensure_says, finish_held, in_container, machine_of, run, spare, start_held,
};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::config::IMAGE;
use crate::lab::Lab;
use crate::net::{GITHUB, INTERNET, METADATA, NEIGHBOUR, RESOLVER, UPLINK};
use crate::readings::summary;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    a_job_reaches_the_internet_and_nothing_else,
    a_spoofed_source_is_dropped,
    a_job_that_asks_for_a_config_gets_none,
    a_container_gets_one_config_and_no_second,
    a_hook_ends_well_without_a_daemon_and_with_a_full_pipe,
    an_image_is_never_written,
];

/// Service that answers on the host itself. Without it, a missing answer would prove nothing.
const HOST_ANSWERS: &str = "testbed-host-answers.service";

/// Adds a line to a job's script that prints `NAME open` or `NAME closed`. All lines run at the
/// same time.
pub(super) fn probe(script: &mut String, name: &str, address: &str, port: u16) {
    // Writing to a String cannot fail.
    writeln!(
        script,
        "(timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>/dev/null && echo {name} open || echo {name} closed) &"
    )
    .ok();
}

fn a_job_reaches_the_internet_and_nothing_else(lab: &mut Lab) -> Result<()> {
    with_host_answers(lab, reach)
}

/// Runs a claim while the host answers on port 80 of all its addresses.
pub(super) fn with_host_answers(lab: &Lab, claim: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let host = lab.host();
    host.output(&["systemctl", "stop", HOST_ANSWERS])?;
    host.run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        &format!("--unit={HOST_ANSWERS}"),
        "/usr/local/bin/testbed",
        "inner",
        "answer",
        "--http",
        "0.0.0.0:80",
    ])?;
    wait_until("the host's answers", SOON, || {
        let asked = host.output(&["nc", "-z", "-w", "1", "127.0.0.1", "80"])?;
        Ok(if asked.status.success() {
            Seen::Done(())
        } else {
            Seen::NotYet(asked.status.to_string())
        })
    })?;
    let outcome = claim(lab);
    lab.host().run(&["systemctl", "stop", HOST_ANSWERS])?;
    outcome
}

fn reach(lab: &Lab) -> Result<()> {
    // A program listens in another slot, and the host reaches it.
    let (id, other) = start_held(lab, "neighbour")?;
    let address = in_container(
        lab,
        &other.machine(),
        &["ip", "-4", "-brief", "address", "show", "host0"],
    )?;
    let address = address
        .split_whitespace()
        .nth(2)
        .and_then(|address| address.split('/').next())
        .context("the container has no address")?
        .to_owned();
    in_container(
        lab,
        &other.machine(),
        &["sh", "-c", "nc -lk 8000 >/dev/null 2>&1 </dev/null &"],
    )?;
    let host = lab.host();
    let open = |address: &str, port: &str| {
        host.output(&["nc", "-z", "-w", "1", address, port])
            .is_ok_and(|output| output.status.success())
    };
    ensure!(open(&address, "8000"), "{address} does not answer the host");
    for address in [NEIGHBOUR, METADATA, UPLINK] {
        ensure!(open(address, "80"), "{address} does not answer the host");
    }
    let from_outside = host.output(&[
        "ip", "netns", "exec", INTERNET, "nc", "-z", "-w", "1", UPLINK, "80",
    ])?;
    ensure!(from_outside.status.success(), "the host does not answer");

    let other_gateway = address
        .rsplit_once('.')
        .and_then(|(net, host)| Some(format!("{net}.{}", host.parse::<u8>().ok()? - 1)))
        .context("the container's address is none")?;
    ensure!(
        open(&other_gateway, "80"),
        "{other_gateway} does not answer the host"
    );
    let closed = [
        ("other_gateway", other_gateway.as_str(), 80),
        ("gateway", "$gateway", 80),
        ("uplink", UPLINK, 80),
        ("lan_side", "192.168.77.1", 80),
        ("neighbour", NEIGHBOUR, 80),
        ("metadata", METADATA, 80),
        ("other_slot", address.as_str(), 8000),
        ("other_resolver", GITHUB, 53),
    ];
    let mut script =
        String::from("gateway=$(ip route show default | cut -d' ' -f3); export gateway\n");
    for (name, address, port) in closed {
        probe(&mut script, name, address, port);
    }
    probe(&mut script, "internet", GITHUB, 80);
    script.push_str("wait\n");
    // The address that the internet sees, at a name that only the resolver knows.
    script.push_str(
        "exec 3<>/dev/tcp/anything.example/80; printf GET >&3; cat <&3\n\
         cat /proc/sys/net/ipv6/conf/host0/disable_ipv6 /etc/resolv.conf\n",
    );
    let said = run(lab, &script)?;
    for (name, ..) in closed {
        ensure_says(&said, &[&format!("{name} closed")])?;
    }
    ensure_says(
        &said,
        &[
            "internet open",
            &format!("you are {UPLINK}"),
            &format!("nameserver {RESOLVER}"),
        ],
    )?;
    finish_held(lab, id, &other).map(drop)
}

fn a_spoofed_source_is_dropped(lab: &mut Lab) -> Result<()> {
    let dropped = || -> Result<u64> {
        let rules = lab.host().run(&[
            "nft",
            "list",
            "chain",
            "inet",
            "runner_controller",
            "arriving",
        ])?;
        let line = rules
            .lines()
            .find(|line| line.contains("fib"))
            .context("no rule against spoofed sources")?;
        let count = line
            .split_whitespace()
            .skip_while(|word| *word != "packets")
            .nth(1)
            .context("the rule does not count")?;
        Ok(count.parse()?)
    };
    let (id, busy) = start_held(lab, "spoofs")?;
    let before = dropped()?;
    in_container(
        lab,
        &busy.machine(),
        &[
            "sh",
            "-c",
            "ip address add 10.200.250.1/32 dev host0; ! ping -c 1 -W 1 -I 10.200.250.1 198.51.100.7",
        ],
    )?;
    let after = dropped()?;
    ensure!(after > before, "{before} packets before and {after} after");
    finish_held(lab, id, &busy).map(drop)
}

fn a_job_that_asks_for_a_config_gets_none(lab: &mut Lab) -> Result<()> {
    // As the job's user: the connection is closed at once and returns nothing.
    let said = run(
        lab,
        "set +e; ls -l /run/runner; for i in 1 2 3; do timeout 5 nc -U /run/runner/jit.sock </dev/null >/tmp/got; \
         echo \"ended with $?, $(stat -c %s /tmp/got) bytes\"; done\n\
         touch /run/runner/mine 2>&1; rm -f /run/runner/jit.sock 2>&1; ls /run/runner; true",
    )?;
    ensure!(
        said.matches(", 0 bytes").count() == 3 && !said.contains("ended with 124"),
        "{said}"
    );
    ensure_says(&said, &["jit.sock", "started"])?;
    ensure!(
        !said.lines().any(|line| line == "mine"),
        "it made a file there: {said}"
    );
    lab.await_settled(SOON).map(drop)
}

fn a_container_gets_one_config_and_no_second(lab: &mut Lab) -> Result<()> {
    let waiting = spare(&lab.await_settled(SOON)?)?;
    let ask = [
        "sh",
        "-c",
        "timeout 2 nc -U /run/runner/jit.sock </dev/null | wc -c",
    ];
    // As root of a spare, and as root of a container that has its config.
    let got = in_container(lab, &waiting.machine(), &ask)?;
    ensure!(
        got.trim() == "0",
        "a spare's second connection got {got} bytes"
    );
    let (id, busy) = start_held(lab, "asks again")?;
    let got = in_container(lab, &busy.machine(), &ask)?;
    ensure!(got.trim() == "0", "a second config of {got} bytes");
    let status = lab.look()?;
    ensure!(
        status
            .machine(&waiting.machine())
            .is_some_and(|now| now.invocation == waiting.invocation),
        "the spare did not outlive it: {}",
        summary(&status)
    );
    finish_held(lab, id, &busy).map(drop)
}

fn a_hook_ends_well_without_a_daemon_and_with_a_full_pipe(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let script = "set +e; until [ -e /tmp/go ]; do sleep 0.05; done\n\
         tell() { s=$(date +%s%N); \
         bash -e /usr/lib/github-runner/job-started.sh; echo \"$1: ended with $? after $((($(date +%s%N) - s) / 1000000)) ms\"; }\n\
         tell alone\n\
         timeout 2 bash -c 'cat /dev/zero >/run/runner/started'\n\
         tell full\n\
         tell full";
    let id = lab.sim().queue(&pool_job("hooked", "ci", script))?;
    let busy = super::common::await_busy(lab, id)?;
    let pid = daemon_pid(lab)?;
    lab.stop()?;
    super::common::release(lab, &busy.machine())?;
    let job = lab.sim().await_success(id, SOON)?;
    lab.start()?;
    ensure!(daemon_pid(lab)? != pid, "the daemon did not stop");
    let said = &job.facts.log_tail;
    let times: Vec<u64> = said
        .lines()
        .filter_map(|line| {
            line.split_once(": ended with 0 after ")?
                .1
                .strip_suffix(" ms")?
                .parse()
                .ok()
        })
        .collect();
    ensure!(
        times.len() == 3 && times[0] < 1000 && times.iter().all(|ms| *ms < 5000),
        "{times:?} ms: {said}"
    );
    // The same hook, before a job's first step, without a reader.
    lab.stop()?;
    let unheard = lab.sim().queue(&pool_job("unheard", "ci", "true"))?;
    let job = lab.sim().await_success(unheard, SOON)?;
    let machine = machine_of(job.runner_name.as_deref().unwrap_or_default()).to_owned();
    lab.start()?;
    lab.await_settled(SOON)?;
    ensure!(!machine.is_empty(), "{}", job.summary());
    Ok(())
}

fn an_image_is_never_written(lab: &mut Lab) -> Result<()> {
    // Root in a container cannot change the image.
    let (id, busy) = start_held(lab, "writes")?;
    in_container(
        lab,
        &busy.machine(),
        &[
            "sh",
            "-c",
            "echo mine >/etc/mine; echo mine >>/etc/passwd; rm -f /usr/bin/nc; chmod 777 /usr; mkdir /usr/mine",
        ],
    )?;
    let host = lab.host();
    host.sh(&format!(
        "! [ -e {IMAGE}/etc/mine ] && ! grep -q mine {IMAGE}/etc/passwd && [ -e {IMAGE}/usr/bin/nc ] && ! [ -e {IMAGE}/usr/mine ] && \
         [ \"$(stat -c %a {IMAGE}/usr)\" = 755 ]"
    ))?;
    finish_held(lab, id, &busy)?;
    let said = run(lab, "ls /etc/mine /usr/mine || command -v nc")?;
    ensure_says(&said, &["/usr/bin/nc"])?;
    ensure!(!said.lines().any(|line| line == "/etc/mine"), "{said}");
    Ok(())
}
