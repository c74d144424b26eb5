//! `doctor` names cause and fix of a broken host, and repairs what is safe to repair. A support bundle has its report
//! and no secret.

use anyhow::{Context, Result, ensure};
use github_sim::{Endpoint, Fault};
use serde_json::{Value, json};

use super::common::{SOON, ensure_says};
use super::suite::{Suite, suite};
use super::webhook::HOOKED;
use crate::binaries::CONTROLLER;
use crate::lab::{CONFIG, DAEMON, Lab, TOKEN};
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![HOOKED;
    doctor_finds_no_problem_on_a_good_host,
    doctor_names_each_break_of_a_host_with_its_fix,
    doctor_names_the_permission_that_a_token_lacks,
    doctor_carries_out_safe_repairs_without_a_question,
    doctor_examines_a_host_without_a_daemon,
    doctor_is_in_a_support_bundle_without_secrets,
];

/// Area that a test host in a container cannot have in order: its kernel counts elsewhere.
const OF_TEST_HOST: &str = "control groups";

/// Runs the command and returns its exit status and its report.
fn examine(lab: &Lab) -> Result<(Option<i32>, Value)> {
    let output = lab.host().output(&[CONTROLLER, "doctor", "--json"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
    Ok((output.status.code(), report))
}

/// Returns the problems with their hints, a line for each.
fn problems(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().into_iter().flatten();
    let problems = findings
        .filter(|found| found["level"] == "problem" && found["area"] != OF_TEST_HOST)
        .map(|found| {
            let part = |key: &str| found[key].as_str().unwrap_or_default();
            format!("{}: {}; {}", part("area"), part("text"), part("hint"))
        });
    problems.collect()
}

/// Waits until every problem is gone. The firewall's owner looks at other programs' rules every 15 seconds, and
/// the daemon starts no runner until then.
fn await_good(lab: &Lab) -> Result<()> {
    wait_until("a host without a problem", SOON, || {
        let (_, report) = examine(lab)?;
        let found = problems(&report);
        Ok(if found.is_empty() {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{found:#?}"))
        })
    })
}

fn doctor_finds_no_problem_on_a_good_host(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let (code, report) = examine(lab)?;
    let found = problems(&report);
    ensure!(found.is_empty(), "{found:#?}");
    // A real packet passed, GitHub and the listener were asked, and no link of the try is left.
    let text = report.to_string();
    ensure_says(
        &text,
        &[
            "runners of pool ci reach resolver ",
            "runners of pool ci reach 198.51.100.7",
            "GitHub lets them list and delete runners of acme/widgets",
            "agrees with GitHub's",
            "accepts the secret",
            "can be mapped",
            "none of ended runners",
        ],
    )?;
    let other: Vec<&Value> = report["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|found| found["area"] == OF_TEST_HOST && found["level"] == "problem")
        .collect();
    let wanted = i32::from(!other.is_empty());
    ensure!(code == Some(wanted), "{code:?}: {other:?}");
    let links = lab.host().run(&["ip", "-brief", "link"])?;
    ensure!(!links.contains("rc-ci-5"), "{links}");
    Ok(())
}

/// Breaks of a host: the change, the words of cause and fix, and the remedy.
const BREAKS: &[(&str, &[&str], &str)] = &[
    (
        "nft -f - <<'END'
table ip filter {
  chain FORWARD { type filter hook forward priority filter; policy drop; }
}
END",
        &[
            "chain `ip filter FORWARD` drops the packets of runners by its policy",
            "nft insert rule ip filter FORWARD iifname",
            "runners of pool ci do not reach resolver",
        ],
        "nft delete table ip filter",
    ),
    (
        "mv /etc/systemd/system/runner-ci@.service /run/away",
        &[
            "/etc/systemd/system/runner-ci@.service differ",
            "runner-controller apply",
        ],
        "mv /run/away /etc/systemd/system/runner-ci@.service",
    ),
    (
        "cp -a /etc/runner-controller/webhook-secret /run/away
         echo -n another_secret_of_32_characters_00 >/etc/runner-controller/webhook-secret",
        &[
            "refuses the secret of /etc/runner-controller/webhook-secret",
            "restart runner-controller",
        ],
        // The restart also forgets the delivery with the wrong secret.
        "mv /run/away /etc/runner-controller/webhook-secret; systemctl restart runner-controller",
    ),
    (
        "mv /usr/bin/systemd-nspawn /usr/bin/away",
        &["systemd-nspawn is not installed"],
        "mv /usr/bin/away /usr/bin/systemd-nspawn",
    ),
];

fn doctor_names_each_break_of_a_host_with_its_fix(lab: &mut Lab) -> Result<()> {
    for (change, words, remedy) in BREAKS {
        lab.host().sh(change)?;
        let found = examine(lab);
        lab.host().sh(remedy)?;
        let (code, report) = found.with_context(|| (*change).to_owned())?;
        ensure!(code == Some(1), "{change}: {code:?}");
        ensure_says(&problems(&report).join("\n"), words).with_context(|| (*change).to_owned())?;
    }
    lab.await_settled(SOON)?;
    await_good(lab)
}

fn doctor_names_the_permission_that_a_token_lacks(lab: &mut Lab) -> Result<()> {
    let refused = Fault::Status {
        code: 403,
        body: Some(json!({"message": "Resource not accessible by personal access token"})),
        headers: [(
            "x-accepted-github-permissions".to_owned(),
            "administration=write".to_owned(),
        )]
        .into(),
    };
    // It may read, and nothing else.
    lab.sim().fault(Endpoint::Delete, Some(1), &refused)?;
    let found = examine(lab);
    lab.sim().clear_faults()?;
    let (code, report) = found?;
    ensure!(code == Some(1), "{code:?}");
    ensure_says(
        &problems(&report).join("\n"),
        &[
            "credentials: cannot change the runners of acme/widgets",
            "the permission that GitHub names for this call: administration=write",
        ],
    )
}

fn doctor_carries_out_safe_repairs_without_a_question(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let host = lab.host();
    // Without a terminal no operator can be asked.
    host.sh("sysctl -q net.ipv4.ip_forward=0")?;
    let asked = host.output(&[CONTROLLER, "doctor", "--fix"])?;
    let said = String::from_utf8_lossy(&asked.stderr);
    ensure!(!asked.status.success() && said.contains("--yes"), "{said}");
    ensure!(
        host.run(&["sysctl", "-n", "net.ipv4.ip_forward"])?.trim() == "0",
        "it repaired"
    );
    let repair = || lab.host().output(&[CONTROLLER, "doctor", "--fix", "--yes"]);
    let said = String::from_utf8_lossy(&repair()?.stdout).into_owned();
    ensure_says(
        &said,
        &[
            "net.ipv4.ip_forward is 0",
            "runners of pool ci reach resolver",
        ],
    )?;
    // Units that differ are installed again.
    host.sh("echo '# mine' >>/etc/systemd/system/runner-ci@.service")?;
    repair()?;
    let unit = lab
        .host()
        .run(&["cat", "/etc/systemd/system/runner-ci@.service"])?;
    ensure!(!unit.contains("# mine"), "{unit}");
    lab.await_settled(SOON)?;
    await_good(lab)
}

fn doctor_examines_a_host_without_a_daemon(lab: &mut Lab) -> Result<()> {
    lab.stop()?;
    let found = examine(lab);
    lab.start()?;
    let (code, report) = found?;
    ensure!(code == Some(2), "{code:?}");
    let found = problems(&report).join("\n");
    ensure_says(
        &found,
        &[
            "daemon: no daemon listens",
            &format!("units: {DAEMON} is inactive"),
        ],
    )?;
    ensure_says(&report.to_string(), &["runners of pool ci reach resolver "])?;
    lab.await_settled(SOON).map(drop)
}

/// Token that the daemon does not use. The journal keeps it, and another claim searches there for the one in use.
const PLANTED_TOKEN: &str = "github_pat_planted_0b9e77a1c25d48f6";

/// Puts the token and the hook's secret into every text of the host that an operator or a job can write.
const PLANT: &str = r##"
token=$(cat /etc/runner-controller/token)
secret=$(cat /etc/runner-controller/webhook-secret)
echo "# $token $secret" >>/etc/runner-controller/config.toml
mkdir -p /run/systemd/system/runner-controller.service.d
printf '[Service]\nEnvironment=GH=%s\nEnvironment=B=%s\n' "$token" "$(printf %s "$secret" | base64 -w0)" \
    >/run/systemd/system/runner-controller.service.d/planted.conf
systemctl daemon-reload
systemd-run --quiet --wait --unit=runner-planted@1 echo "$token $secret Authorization: Bearer planted-bearer"
journalctl --sync
journalctl --unit='runner-*@*.service' | grep -q planted-bearer
"##;

fn doctor_is_in_a_support_bundle_without_secrets(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let host = lab.host();
    let before = host.run(&["cat", CONFIG])?;
    lab.write_token(PLANTED_TOKEN)?;
    let prepared = host.sh(PLANT);
    let bundle = "/run/testbed/bundle.tar.gz";
    let argv = [CONTROLLER, "support-bundle", bundle];
    let made = host.output(&argv);
    let again = host.output(&argv);
    host.sh("rm -r /run/systemd/system/runner-controller.service.d; systemctl daemon-reload")?;
    host.write(CONFIG, before.as_bytes(), 0o644)?;
    lab.write_token(TOKEN)?;
    prepared?;
    let made = made?;
    let said = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "{said}");
    ensure!(!again?.status.success(), "it replaced a file");
    let access = host.run(&["stat", "--format=%a", bundle])?;
    ensure!(access.trim() == "600", "{access}");
    let all = host.run(&["tar", "-xzOf", bundle])?;
    host.run(&["rm", bundle])?;
    let of_hook = host.run(&["cat", "/etc/runner-controller/webhook-secret"])?;
    let coded = host.sh("base64 -w0 </etc/runner-controller/webhook-secret")?;
    for secret in [
        PLANTED_TOKEN,
        of_hook.trim(),
        coded.trim(),
        "planted-bearer",
    ] {
        let line = all.lines().find(|line| line.contains(secret));
        ensure!(line.is_none(), "{secret} is in it: {line:?}");
    }
    // Each part is there.
    ensure_says(
        &all,
        &[
            "# [redacted] [redacted]",
            "Environment=GH=[redacted]",
            "findings: ",
            "daemon is ready",
            "MemTotal:",
            "table inet runner_controller",
            "[pools.ci]",
            "\"pools\": [",
            "Description=CI runners of pool ci",
        ],
    )?;
    lab.await_settled(SOON).map(drop)
}
