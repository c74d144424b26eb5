//! A running job through the changes that an operator makes to the host.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use github_sim::{Conclusion, Endpoint, Fault, JobState};
use serde_json::json;
use status::{RunnerStatus, Verdict};

use super::common::{SOON, await_busy, await_verdict, finish_held, in_container};
use super::fixture::{SMALL, small};
use super::suite::{Suite, suite};
use crate::config::{Config, Image};
use crate::image;
use crate::lab::{DAEMON, FIREWALL, Lab};
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    a_running_job_keeps_its_connection_and_its_lock_through_changes_of_the_host,
    a_job_whose_renewals_fail_for_long_is_cancelled,
];

/// Name of the image whose listener has quick clocks: a renewal each second.
const IMAGE: &str = "quick";
const SPEED: &str = "STANDIN_SPEED=60\n";

/// A job that asks over one connection until it is released, and counts the answers. It fails if the
/// connection ends.
const BEATS: &str = r#"
ask() {
  printf 'GET /nothing HTTP/1.1\r\nHost: HOST\r\n\r\n' >&3 || return 1
  local length=0 line body
  while :; do
    read -r -t 5 line <&3 || return 1
    line=${line%$'\r'}
    [ -n "$line" ] || break
    case $line in [Cc]ontent-[Ll]ength:*) length=${line#*: } ;; esac
  done
  [ "$length" = 0 ] || read -r -t 5 -N "$length" body <&3
}
exec 3<>/dev/tcp/HOST/PORT
count=0
until [ -e /tmp/go ]; do
  ask || { echo "the connection ended after $count answers"; exit 3; }
  count=$((count + 1))
  echo "$count" >/tmp/beats.new
  mv /tmp/beats.new /tmp/beats
  sleep 0.1
done
"#;

/// File of an operator for all links, which systemd-networkd reads with a reload.
const CATCH_ALL: &str = "/etc/systemd/network/10-all.network";
const NETWORKD: &str = "systemd-networkd.service";
/// Directory with the size of the host's connection tracking table and its number of entries.
const TABLE: &str = "/proc/sys/net/netfilter";

/// Commands in perl that fill the table: a datagram to each of many ports is a connection for 30 s.
const FILL: &str = r#"
use Socket;
open(my $file, "<", "TABLE/nf_conntrack_max") or die "$!";
my $left = 1.25 * <$file>;
socket(my $socket, AF_INET, SOCK_DGRAM, 0) or die "$!";
for my $host (1 .. 250) {
  for my $port (1 .. 65535) {
    exit if $left-- <= 0;
    send($socket, "", 0, sockaddr_in($port, inet_aton("127.1.0.$host")));
  }
}
"#;

fn quick_image(lab: &Lab) -> Result<Config> {
    let path = image::variant(lab.host(), IMAGE, |root| {
        fs::write(root.join("opt/actions-runner/.env"), SPEED).context("write .env")
    })?;
    Ok(small(lab.sim().api_url()).with("ci", |pool| {
        pool.image = Image::Directory(path.clone());
    }))
}

/// Runs claims with quick clocks, and leaves the host as it was.
fn with_quick_clocks(lab: &mut Lab, claim: fn(&Lab, &Config) -> Result<()>) -> Result<()> {
    lab.await_settled(SOON)?;
    let config = quick_image(lab)?;
    lab.install(&config)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON)?;
    lab.sim().set(&json!({ "lock_ms": 4000 }))?;
    let outcome = claim(lab, &config);
    lab.sim().clear_faults()?;
    lab.sim().set(&json!({ "lock_ms": 600_000 }))?;
    lab.install(&small(lab.sim().api_url()))?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}

fn beats(lab: &Lab, runner: &RunnerStatus) -> Result<u64> {
    let text = in_container(lab, &runner.machine(), &["cat", "/tmp/beats"])?;
    Ok(text.trim().parse().unwrap_or_default())
}

/// Waits until the job has had more answers over its connection.
fn await_beats(lab: &Lab, runner: &RunnerStatus, change: &str) -> Result<()> {
    let before = beats(lab, runner).with_context(|| change.to_owned())?;
    wait_until(&format!("answers after: {change}"), SOON, || {
        let now = beats(lab, runner)?;
        Ok(if now >= before + 15 {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{before}, then {now}"))
        })
    })
}

fn a_running_job_keeps_its_connection_and_its_lock_through_changes_of_the_host(
    lab: &mut Lab,
) -> Result<()> {
    // The links of the test host's own networks are left to it.
    let text = "[Match]\nName=rc-* eth*\n\n[Network]\nDHCP=no\nLinkLocalAddressing=no\n";
    lab.host().write(CATCH_ALL, text.as_bytes(), 0o644)?;
    let outcome = with_quick_clocks(lab, through_changes);
    lab.host().sh(&format!(
        "rm -f {CATCH_ALL}; systemctl stop {NETWORKD} systemd-networkd.socket"
    ))?;
    outcome
}

fn through_changes(lab: &Lab, config: &Config) -> Result<()> {
    let url = lab.sim().api_url().trim_start_matches("http://");
    let Some((host, port)) = url.split('/').next().and_then(|url| url.split_once(':')) else {
        bail!("{url} has no port");
    };
    let script = BEATS.replace("HOST", host).replace("PORT", port);
    let id = lab.sim().queue(&pool_job("beats", "ci", &script))?;
    let busy = await_busy(lab, id)?;
    await_beats(lab, &busy, "nothing")?;
    let mut other = config.clone();
    other.layer_dir = lab.host().layer_dir();
    let other: String = other
        .render()
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some(("resolvers", _)) => "resolvers = [\"9.9.9.9\"]\n".to_owned(),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let changes: [(&str, &dyn Fn() -> Result<()>); 10] = [
        ("a reloaded firewall", &|| {
            lab.host().run(&["systemctl", "reload", FIREWALL]).map(drop)
        }),
        ("a restarted firewall", &|| {
            lab.host()
                .run(&["systemctl", "restart", FIREWALL])
                .map(drop)
        }),
        ("a restarted daemon", &|| {
            lab.host().run(&["systemctl", "restart", DAEMON]).map(drop)
        }),
        ("a reloaded daemon", &|| {
            lab.host().run(&["systemctl", "reload", DAEMON]).map(drop)
        }),
        ("another resolver, applied", &|| {
            lab.install_text(&other)?;
            lab.host().run(&["systemctl", "restart", FIREWALL])?;
            lab.host().run(&["systemctl", "restart", DAEMON]).map(drop)
        }),
        ("a re-executed systemd", &|| {
            lab.host().run(&["systemctl", "daemon-reexec"]).map(drop)
        }),
        ("an applied configuration", &|| {
            lab.host().run(&["runner-controller", "apply"]).map(drop)
        }),
        ("a reloaded network service", &|| {
            lab.host()
                .run(&["systemctl", "start", NETWORKD])
                .and_then(|_| lab.host().run(&["networkctl", "reload"]))
                .map(drop)
        }),
        ("a restarted network service", &|| {
            lab.host()
                .run(&["systemctl", "restart", NETWORKD])
                .map(drop)
        }),
        ("a full connection tracking table", &|| {
            fill_connection_table(lab)
        }),
    ];
    for (name, change) in changes {
        change().with_context(|| name.to_owned())?;
        await_beats(lab, &busy, name)?;
    }
    finish_held(lab, id, &busy)?;
    // An entry lasts for 30 s, and the kernel's collector passes once a minute (nf_conntrack_core.c).
    wait_until("room in the connection tracking table", SOON * 6, || {
        let (entries, most) = connections(lab)?;
        Ok(if entries * 2 < most {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{entries} of {most}"))
        })
    })
}

/// Fills the host's table of connections. The kernel puts new connections in the place of those without an
/// answer, and keeps those that have one.
fn fill_connection_table(lab: &Lab) -> Result<()> {
    lab.host()
        .run(&["perl", "-e", &FILL.replace("TABLE", TABLE)])?;
    let (entries, most) = connections(lab)?;
    ensure!(entries * 10 >= most * 9, "{entries} of {most} connections");
    Ok(())
}

/// Returns the number of entries of the host's connection tracking table, and its size.
fn connections(lab: &Lab) -> Result<(u64, u64)> {
    let read = |file: &str| -> Result<u64> {
        let text = lab.host().run(&["cat", &format!("{TABLE}/{file}")])?;
        text.trim().parse().with_context(|| file.to_owned())
    };
    Ok((read("nf_conntrack_count")?, read("nf_conntrack_max")?))
}

fn a_job_whose_renewals_fail_for_long_is_cancelled(lab: &mut Lab) -> Result<()> {
    with_quick_clocks(lab, without_renewals)
}

fn without_renewals(lab: &Lab, _: &Config) -> Result<()> {
    lab.sim().set(&json!({ "lock_ms": 60_000 }))?;
    let id = lab.sim().queue(&super::common::held("unrenewed"))?;
    let busy = await_busy(lab, id)?;
    lab.sim().fault(Endpoint::Renew, None, &Fault::DropBefore)?;
    let job = lab.sim().await_job(id, JobState::Completed, SOON)?;
    ensure!(
        job.conclusion == Some(Conclusion::Cancelled),
        "{}",
        job.summary()
    );
    await_verdict(lab, &busy.runner.unwrap_or_default(), Verdict::JobDone).map(drop)
}
