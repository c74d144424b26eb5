//! The result of evaluating the Nix module and its hosts, on a host that is not NixOS.
//!
//! `nix eval --json .#lib.golden` writes `nix/golden/runner-01.json` where nixpkgs is available.
//! The claims check its configuration, let systemd verify its units, load its firewall, and let the
//! runner's unit of its containers serve a job. Debian's programs stand under the names that the
//! store would have.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use status::Verdict;

use super::common::{SOON, await_no_strangers, await_verdict, ensure_says, run_jobs};
use super::fixture::EMPTY;
use super::suite::{Suite, suite};
use crate::binaries::LISTENER;
use crate::checks::tools::project;
use crate::image;
use crate::lab::{DAEMON, Lab, TOKEN};
use crate::sim::pool_job;

pub(super) const SUITE: Suite = suite![EMPTY;
    the_evaluated_nixos_host_is_accepted,
    the_runners_unit_of_a_nixos_container_serves_jobs,
];

const GOLDEN: &str = "nix/golden/runner-01.json";
/// Name of the module's drop-ins beside the units that the program renders.
const DROP_IN: &str = "50-nixos.conf";

fn golden() -> Result<Value> {
    let text = fs::read_to_string(project().join(GOLDEN)).context(GOLDEN)?;
    serde_json::from_str(&text).context(GOLDEN)
}

/// Returns a unit's text from its lines.
fn text(lines: &Value) -> Result<String> {
    let lines = lines.as_array().context("a unit is a list of lines")?;
    let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
    ensure!(!lines.is_empty(), "a unit without a line");
    Ok(lines.join("\n") + "\n")
}

fn toml(settings: &Value) -> Result<String> {
    toml::to_string(settings).context("the settings are no TOML")
}

/// Writes the drop-ins of the golden units. [`remove_drop_ins`] removes them.
fn write_drop_ins(lab: &Lab, golden: &Value) -> Result<Vec<String>> {
    let units = golden["units"].as_object().context("no units")?;
    ensure!(units.contains_key(DAEMON), "no {DAEMON} in {GOLDEN}");
    for (unit, lines) in units {
        let path = format!("/etc/systemd/system/{unit}.d/{DROP_IN}");
        lab.host().write(&path, text(lines)?.as_bytes(), 0o644)?;
    }
    Ok(units.keys().cloned().collect())
}

/// Removes the drop-ins and everything else that these claims put on the host.
fn remove_drop_ins(lab: &Lab) -> Result<()> {
    let host = lab.host();
    host.sh(&format!(
        "rm -f /etc/systemd/system/*.d/{DROP_IN}; rm -rf /run/agenix /run/testbed/bin; \
         umount --lazy /nix/store 2>/dev/null || true"
    ))?;
    host.run(&["systemctl", "daemon-reload"]).map(drop)
}

/// Puts Debian's programs under each store path in which units look for programs.
fn provide_programs(lab: &Lab, units: &Value) -> Result<()> {
    let said = units.to_string();
    let host = lab.host();
    host.sh("mkdir -p /run/testbed/bin\n\
         for file in /usr/sbin/* /usr/bin/*; do ln -sf $file /run/testbed/bin/; done")?;
    let mut found = 0;
    for part in said.split("/nix/store/").skip(1) {
        if let Some((name, _)) = part.split_once("/bin") {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
            ensure!(name.chars().all(plain), "no store name: {name}");
            host.run(&["mkdir", "-p", &format!("/nix/store/{name}")])?;
            let bin = format!("/nix/store/{name}/bin");
            host.run(&["ln", "-sfn", "/run/testbed/bin", &bin])?;
            found += 1;
        }
    }
    ensure!(found > 0, "no unit names a program of the store: {said}");
    Ok(())
}

fn the_evaluated_nixos_host_is_accepted(lab: &mut Lab) -> Result<()> {
    let golden = golden()?;
    let outcome = is_accepted(lab, &golden);
    remove_drop_ins(lab)?;
    lab.host().sh("rm -rf /nix/store/*")?;
    outcome
}

fn is_accepted(lab: &Lab, golden: &Value) -> Result<()> {
    // The whole configuration, as it is checked while a host is built.
    lab.install_text(&toml(&golden["settings"])?)?;
    let host = lab.host();
    let token = golden["settings"]["github"]["token_file"]
        .as_str()
        .context("no token file")?;
    host.write(token, TOKEN.as_bytes(), 0o600)?;
    write_drop_ins(lab, golden)?;
    provide_programs(lab, &golden["units"])?;
    host.run(&["systemctl", "daemon-reload"])?;
    // Everything that the program rendered for this configuration, and what NixOS adds to it.
    let made = host.sh("cd /etc/systemd/system && find runner* -maxdepth 0 -type f")?;
    let names: Vec<String> = made.lines().map(|name| name.replace("@.", "@1.")).collect();
    for wanted in ["runner-ci@1.service", "runners-ci.slice", DAEMON] {
        ensure!(names.iter().any(|name| name == wanted), "{names:?}");
    }
    crate::units::analyze(lab, &names)?;
    // Each drop-in is in force, and the search path with it finds nft.
    let search = lab.show(DAEMON, "ExecSearchPath")?;
    ensure!(search.contains("/nix/store/"), "ExecSearchPath={search}");
    let firewall = "runner-controller-firewall.service";
    host.run(&["systemctl", "restart", firewall])?;
    let table = host.run(&["nft", "list", "ruleset"])?;
    ensure_says(&table, &["chain ci_out", "rc-ci-*", "9.9.9.9"])
}

fn the_runners_unit_of_a_nixos_container_serves_jobs(lab: &mut Lab) -> Result<()> {
    let golden = golden()?;
    let outcome = serves_jobs(lab, &golden);
    lab.reset()?;
    remove_drop_ins(lab)?;
    outcome
}

fn serves_jobs(lab: &Lab, golden: &Value) -> Result<()> {
    let host = lab.host();
    let container = &golden["container"]["ci"];
    let (system, store) = image::store_with(host, |store, userland| {
        furnish(store, userland, container, lab.binary(LISTENER)?)
    })?;
    let name = system.rsplit('/').next().context("a system has a name")?;
    host.run(&["mkdir", "-p", "/nix/store"])?;
    host.run(&["mount", "--bind", &store, "/nix/store"])?;
    // The host's settings, except those for which a test host is too small.
    let mut settings = golden["settings"].clone();
    settings["host"] = json!("testhost");
    settings["reconcile"] = json!("2s");
    settings["layer_dir"] = json!(host.layer_dir());
    settings["github"]["api_url"] = json!(lab.sim().api_url());
    settings["github"]["allow_plain_http"] = json!(true);
    settings["network"]["resolvers"] = json!([crate::net::RESOLVER]);
    let pool = &mut settings["pools"]["ci"];
    pool["image"]["system"] = json!(format!("/nix/store/{name}"));
    pool["limits"]["memory"] = json!("1 GiB");
    pool["layer"]["size"] = json!("512 MiB");
    pool["min_idle"] = json!(1);
    pool["max_runners"] = json!(2);
    // Another claim covers Nix in a job.
    pool["nix"] = json!(false);
    if let Some(image) = pool["image"].as_object_mut() {
        image.remove("registration");
    }
    let token = settings["github"]["token_file"]
        .as_str()
        .context("no token file")?;
    host.write(token, TOKEN.as_bytes(), 0o600)?;
    lab.install_text(&toml(&settings)?)?;
    lab.start()?;
    lab.await_settled(SOON)?;
    let script = "id -un; pwd; echo \"path $PATH\"; readlink -f $RUNNER_LISTENER || true; \
                  ls -ld /var/lib/github-runner";
    let jobs = ["one", "two", "three"].map(|name| pool_job(name, "fuzz-a", script));
    for job in run_jobs(lab, &jobs)? {
        let said = &job.facts.log_tail;
        ensure_says(
            said,
            &[
                "runner",
                "/home/runner/work",
                "/run/current-system/sw/bin",
                "drwx------",
            ],
        )?;
        let ended = await_verdict(lab, &job.runner_name.unwrap_or_default(), Verdict::JobDone)?;
        // The hook, which is the store's script, reported the job.
        ensure!(ended.job_ms.is_some(), "its hook said nothing: {ended:?}");
    }
    await_no_strangers(lab)
}

/// Puts the programs that the container's units name into the store, and removes what a
/// directory image has instead, so that nothing else can serve a job.
fn furnish(store: &Path, userland: &Path, container: &Value, listener: &Path) -> Result<()> {
    let units = userland.join("etc/systemd/system");
    let drop_ins = units.join("github-runner.service.d");
    fs::create_dir_all(&drop_ins)?;
    let unit = text(&container["unit"])?;
    fs::write(units.join("github-runner.service"), &unit)?;
    let drop_in = text(&container["drop_in"])?;
    fs::write(drop_ins.join("overrides.conf"), &drop_in)?;
    fs::remove_file(userland.join("usr/lib/systemd/system/github-runner.service"))?;
    fs::remove_dir_all(userland.join("usr/lib/github-runner"))?;
    fs::remove_dir_all(userland.join("opt/actions-runner"))?;
    fs::create_dir(userland.join("opt/actions-runner"))?;
    // The same entry as in the tmpfiles settings of nix/container.nix.
    let rules = "d /var/lib/github-runner 0700 runner runner -\n";
    fs::create_dir_all(userland.join("etc/tmpfiles.d"))?;
    fs::write(userland.join("etc/tmpfiles.d/github-runner.conf"), rules)?;

    let guest = project().join("runner-controller/guest");
    for script in ["start", "job-started.sh"] {
        let path = stored(store, &unit, script)?;
        place(&guest.join(script), &path)?;
    }
    let path = stored(store, &drop_in, "Runner.Listener")?;
    place(listener, &path)
}

/// Returns the path of a program that a unit names by its path in the store.
fn stored(store: &Path, unit: &str, program: &str) -> Result<std::path::PathBuf> {
    let path = unit
        .split(['=', '+', '"', '\n'])
        .find(|word| word.starts_with("/nix/store/") && word.ends_with(program))
        .with_context(|| format!("no {program} of the store in: {unit}"))?;
    Ok(store.join(path.trim_start_matches("/nix/store/")))
}

fn place(program: &Path, path: &Path) -> Result<()> {
    fs::create_dir_all(path.parent().context("a program has a directory")?)?;
    fs::copy(program, path).with_context(|| program.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
