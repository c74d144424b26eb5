//! Jobs that build with Nix, and the access that this does not give them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use github_sim::JobView;
use status::Verdict;

use super::common::{
    as_its_root, await_busy, await_verdict, ensure_says, finish_held, in_container,
};
use super::fixture::{Fixture, one};
use super::isolation::with_host_answers;
use super::suite::{Suite, suite};
use crate::config::{Config, Image, Nix};
use crate::image::{self, WithNix};
use crate::lab::Lab;
use crate::net::{GITHUB, INTERNET, METADATA, NEIGHBOUR, UPLINK};
use crate::sim::pool_job;

/// Pools whose jobs have Nix, and one whose jobs do not.
pub(super) const FIXTURE: Fixture = Fixture {
    name: "nix",
    config: |lab| config(lab).map(Some),
    await_ready: super::fixture::await_settled,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    jobs_build_in_a_store_that_ends_with_their_runner,
    a_registration_that_is_gone_fails_nix_in_the_container,
    a_pool_without_nix_has_no_daemon,
    runners_do_not_see_the_store_paths_of_others,
    a_fixed_output_build_reaches_the_internet_and_nothing_else,
    the_hosts_nix_is_not_reachable,
    a_job_is_not_a_trusted_user_of_its_store,
    the_layer_bounds_what_builds_write,
    the_pools_cache_serves_only_paths_signed_by_its_key,
];

/// Pools with Nix: `ci` boots a directory, `store` a closure over a store, `disk` the same with
/// a layer on disk.
const POOLS: [&str; 3] = ["ci", "store", "disk"];
/// Size of the layer of `ci`, in MiB.
const LAYER_MIB: u64 = 128;
/// Timeout for a job in which Nix compiles, builds and downloads.
const SOON: Duration = Duration::from_secs(90);

/// Port of the fixture's cache on the internet.
const CACHE_PORT: u16 = 8081;
const CACHE: &str = "testbed-nix-cache.service";

const FETCH: &str = include_str!("nix/fetch.sh");
const READ: &str = include_str!("nix/read.sh");

/// Shell function that builds a derivation in the sandbox and prints its path: `build NAME
/// SCRIPT`.
const BUILD: &str = r#"
shell=$(echo /nix/store/*-testbed-busybox)
build() {
    local name=$1 script=$2; shift 2
    nix-build --no-out-link "$@" --expr "derivation { name = \"$name\"; system = builtins.currentSystem;
        builder = \"\${builtins.storePath $shell}/bin/busybox\"; args = [ \"sh\" \"-c\" ''$script'' ]; }"
}
"#;

/// Returns three pools with Nix and one without.
fn config(lab: &Lab) -> Result<Config> {
    let made = image::with_nix(lab.host())?;
    serve_cache(lab, &made)?;
    let nix = |registration: &str| {
        Some(Nix {
            registration: registration.to_owned(),
            substituter: format!("http://{GITHUB}:{CACHE_PORT}"),
            public_key: made.public_key.clone(),
        })
    };
    let mut config = Config::small(lab.sim().api_url());
    config.reconcile = "2s".into();
    let mut pools: Vec<_> = POOLS
        .iter()
        .zip([0, 8, 16])
        .map(|(name, offset)| one(name, offset))
        .collect();
    for pool in &mut pools {
        if pool.name == "ci" {
            pool.image = Image::Directory(made.image.clone());
            pool.nix = nix(made.registration);
            pool.layer_size = format!("{LAYER_MIB} MiB");
            (pool.min_idle, pool.max_runners) = (2, 2);
        } else {
            let (system, store) = made.system.clone();
            pool.image = Image::Nixos { system, store };
            pool.nix = nix(&made.store_registration);
        }
        if pool.name == "disk" {
            pool.layer = "disk";
        }
    }
    let mut plain = one("plain", 24);
    plain.image = Image::Directory(made.image);
    pools.push(plain);
    config.pools = pools;
    Ok(config)
}

/// Serves the cache on the internet. Its files and the program that serves them are among the
/// images.
fn serve_cache(lab: &Lab, made: &WithNix) -> Result<()> {
    let host = lab.host();
    host.output(&["systemctl", "stop", CACHE])?;
    host.run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        &format!("--unit={CACHE}"),
        &format!("--property=NetworkNamespacePath=/run/netns/{INTERNET}"),
        &format!("{}/usr/bin/busybox", made.image),
        "httpd",
        "-f",
        "-p",
        &format!("{GITHUB}:{CACHE_PORT}"),
        "-h",
        image::NIX_CACHE,
    ])
    .map(drop)
}

/// Runs one job until it has succeeded and its runner has ended, and returns the job.
fn run_in(lab: &Lab, pool: &str, script: &str) -> Result<JobView> {
    let id = lab.sim().queue(&pool_job(pool, pool, script))?;
    let job = lab
        .sim()
        .await_success(id, SOON)
        .with_context(|| pool.to_owned())?;
    await_verdict(
        lab,
        job.runner_name.as_deref().unwrap_or_default(),
        Verdict::JobDone,
    )?;
    Ok(job)
}

/// Returns what a job printed after a word at the beginning of a line.
fn word(said: &str, name: &str) -> Result<String> {
    said.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map(|rest| rest.trim().to_owned())
        .with_context(|| format!("no line {name:?} in: {said}"))
}

/// Returns a script as a function that a job can call.
fn function(name: &str, script: &str) -> String {
    format!("{name}() (\nset +e\n{script}\n)\n")
}

/// Returns a digest of everything in the image's and the store's `/nix`.
fn stores(lab: &Lab) -> Result<String> {
    lab.host().sh(
        "cd /var/lib/runner-images; find nix/nix nix-store/*-testbed-busybox nix-store/*-closure-info \
         -printf '%p %y %m %U:%G %s %T@\\n' | sort | sha256sum; ls nix-store; ls -A nix/nix",
    )
}

fn jobs_build_in_a_store_that_ends_with_their_runner(lab: &mut Lab) -> Result<()> {
    let before = stores(lab)?;
    for pool in POOLS {
        let job = run_in(
            lab,
            pool,
            &format!(
                "{BUILD}{}path=$(build made 'echo secret of $PPID >$out; id -u >>$out')\n\
                 echo \"path $path\"; cat $path; read_path $path >/dev/null && echo readable\n\
                 nix-store --query --deriver $path; nix-store --check-validity $shell",
                function("read_path", READ)
            ),
        )?;
        let said = &job.facts.log_tail;
        let path = word(said, "path")?;
        ensure!(
            path.starts_with("/nix/store/") && path.ends_with("-made"),
            "{said}"
        );
        ensure_says(said, &["secret of", "\nreadable\n", "-made.drv"])?;
        let said = run_in(
            lab,
            pool,
            &format!(
                "{}if read_path {path}; then echo leaked; fi; nix-store --check-validity /nix/store/*-testbed-busybox; echo checked",
                function("read_path", READ)
            ),
        )?
        .facts
        .log_tail;
        ensure_says(&said, &["nothing of", "checked"]).with_context(|| pool.to_owned())?;
        ensure!(!said.contains("leaked"), "{pool}: {said}");
    }
    let after = stores(lab)?;
    ensure!(before == after, "before: {before}\nafter: {after}");
    Ok(())
}

/// Without its registration, Nix would begin with an empty database and believe none of the image's paths.
fn a_registration_that_is_gone_fails_nix_in_the_container(lab: &mut Lab) -> Result<()> {
    for pool in POOLS {
        let status = lab.await_settled(SOON)?;
        let runners: Vec<_> = status
            .runners()
            .filter(|runner| runner.slot.pool.as_str() == pool)
            .collect();
        let mut links = Vec::new();
        for runner in &runners {
            let swap = "readlink /etc/nix/registration; ln -sfn /nix/store/gone/registration /etc/nix/registration";
            links.push(as_its_root(lab, &runner.machine(), swap)?);
        }
        let script = "timeout 60 nix-store --query --hash /nix/store/*-testbed-busybox 2>&1 || echo refused\n\
             systemctl show -P ActiveState nix-registration.service; ls /nix/var/nix/db 2>&1 || true";
        let job = run_in(lab, pool, script)?;
        let said = job.facts.log_tail;
        // A client that waits for its timeout says nothing.
        ensure_says(&said, &["error: ", "refused\n", "failed\n"])
            .with_context(|| pool.to_owned())?;
        ensure!(!said.contains("sha256:"), "{pool}: {said}");
        // The runners that had no job serve the next claims.
        for (runner, link) in runners.iter().zip(links) {
            if runner.runner != job.runner_name {
                let back = format!("ln -sfn {} /etc/nix/registration", link.trim());
                as_its_root(lab, &runner.machine(), &back)?;
            }
        }
    }
    Ok(())
}

fn a_pool_without_nix_has_no_daemon(lab: &mut Lab) -> Result<()> {
    let said = run_in(
        lab,
        "plain",
        "systemctl is-active nix-daemon.socket || true; ls /nix/var/nix/daemon-socket 2>&1 || true",
    )?
    .facts
    .log_tail;
    ensure_says(&said, &["inactive", "No such file or directory"])
}

/// Queues a job that builds a path and waits. Returns the job, its runner and the path.
fn hold_with_path(lab: &Lab, name: &str) -> Result<(u64, status::RunnerStatus, String)> {
    let script = format!(
        "{BUILD}build {name} 'echo {name} >$out' >/tmp/path\ntouch /tmp/built; until [ -e /tmp/go ]; do sleep 0.05; done"
    );
    let id = lab.sim().queue(&pool_job(name, "ci", &script))?;
    let runner = await_busy(lab, id)?;
    let wait = "until [ -e /tmp/built ]; do sleep 0.1; done; cat /tmp/path";
    let path = in_container(lab, &runner.machine(), &["timeout", "60", "sh", "-c", wait])?;
    Ok((id, runner, path.trim().to_owned()))
}

fn runners_do_not_see_the_store_paths_of_others(lab: &mut Lab) -> Result<()> {
    let (first_id, first, first_path) = hold_with_path(lab, "first")?;
    let (second_id, second, second_path) = hold_with_path(lab, "second")?;
    ensure!(
        first.machine() != second.machine(),
        "both ran in {}",
        first.machine()
    );
    for (runner, own, other) in [
        (&first, &first_path, &second_path),
        (&second, &second_path, &first_path),
    ] {
        // As the container's root, which can read everything.
        let look = |path: &str| {
            let script = format!("{}read_path {path} || true", function("read_path", READ));
            in_container(lab, &runner.machine(), &["bash", "-c", &script])
        };
        let name = own.rsplit('-').next().unwrap_or_default();
        ensure_says(&look(own)?, &[name])?;
        ensure_says(&look(other)?, &["nothing of"])?;
    }
    finish_held(lab, first_id, &first)?;
    finish_held(lab, second_id, &second).map(drop)
}

fn a_fixed_output_build_reaches_the_internet_and_nothing_else(lab: &mut Lab) -> Result<()> {
    with_host_answers(lab, fetch)
}

fn fetch(lab: &Lab) -> Result<()> {
    let closed = [METADATA, NEIGHBOUR, "127.0.0.1", UPLINK, "192.168.77.1"];
    for address in closed {
        lab.host()
            .run(&["nc", "-z", "-w", "1", address, "80"])
            .with_context(|| format!("{address} does not answer the host"))?;
    }
    let urls: Vec<String> = closed
        .iter()
        .chain(&[GITHUB])
        .map(|address| format!("http://{address}/"))
        .collect();
    let script = format!(
        "{}gateway=$(ip route show default | cut -d' ' -f3)\nfetch {} http://$gateway/; echo gateway $gateway",
        function("fetch", FETCH),
        urls.join(" ")
    );
    let said = run_in(lab, "store", &script)?.facts.log_tail;
    let gateway = word(&said, "gateway")?;
    for kind in ["builtin", "program"] {
        for address in closed.iter().chain(&[gateway.as_str()]) {
            ensure_says(&said, &[&format!("{kind} http://{address}/ closed")])?;
        }
        ensure_says(&said, &[&format!("{kind} http://{GITHUB}/ open")])?;
    }
    Ok(())
}

fn the_hosts_nix_is_not_reachable(lab: &mut Lab) -> Result<()> {
    const FAKE: &str = "testbed-host-nix.service";
    const SOCKET: &str = "/nix/var/nix/daemon-socket/socket";
    let host = lab.host();
    host.output(&["systemctl", "stop", FAKE])?;
    host.sh(&format!(
        "mkdir -p /nix/store /nix/var/nix/db /nix/var/nix/daemon-socket; echo the hosts >/nix/var/nix/db/hosts\n\
         rm -f {SOCKET} /run/host-nix\n\
         systemd-run --quiet --collect --unit={FAKE} socat UNIX-LISTEN:{SOCKET},fork,mode=666 SYSTEM:'echo asked >>/run/host-nix'\n\
         timeout 10 sh -c 'until [ -S {SOCKET} ]; do sleep 0.1; done'\n\
         setpriv --reuid=65534 --regid=65534 --clear-groups nc -U -w 1 {SOCKET} </dev/null\n\
         timeout 10 sh -c 'until [ -e /run/host-nix ]; do sleep 0.1; done'"
    ))?;
    let asked = || lab.host().sh("grep -c asked /run/host-nix");
    let before = asked()?;
    for pool in POOLS {
        let said = run_in(
            lab,
            pool,
            "nix-store --query --hash /nix/store/*-testbed-busybox\n\
             ls -A /nix/var/nix/db /nix/var/nix; grep -c . /proc/net/unix\n\
             for socket in $(find /nix /run /var /tmp -type s 2>/dev/null); do timeout 1 nc -U $socket </dev/null >/dev/null 2>&1 || true; done; echo asked all",
        )?
        .facts
        .log_tail;
        ensure_says(&said, &["sha256:", "db.sqlite", "asked all"])?;
        ensure!(!said.lines().any(|line| line == "hosts"), "{pool}: {said}");
    }
    let after = asked()?;
    lab.host().run(&["systemctl", "stop", FAKE])?;
    lab.host().run(&["rm", "-rf", "/nix"])?;
    ensure!(
        before == after,
        "the host was asked: {before} and {after} times"
    );
    Ok(())
}

fn a_job_is_not_a_trusted_user_of_its_store(lab: &mut Lab) -> Result<()> {
    let forged = cached(lab, "forged")?;
    let import = format!("nix copy --no-check-sigs --from http://{GITHUB}:{CACHE_PORT} {forged}");
    // The build's sandbox has no /usr. A build without a sandbox would see it.
    let script = format!(
        "{BUILD}set +e\n\
         path=$(build sandboxed 'if [ -e /usr/bin/nix-daemon ]; then echo outside; else echo inside; fi >$out' --option sandbox false 2>/dev/null)\n\
         echo \"sandbox $(cat $path)\"\n\
         echo \"trusted $(nix store info --json 2>/dev/null)\"\n\
         touch /nix/store/mine 2>&1; touch $shell/mine 2>&1; touch /nix/var/nix/db/db.sqlite 2>&1\n\
         nix-store --store local --load-db </dev/null 2>&1 | tail -n 1\n\
         {import} 2>&1 | tail -n 1\n\
         [ -e {forged} ] && echo taken; ls /nix/store; true"
    );
    for pool in ["ci", "store"] {
        let said = run_in(lab, pool, &script)?.facts.log_tail;
        ensure!(
            said.matches("Permission denied").count() == 4,
            "{pool}: {said}"
        );
        // A number in Nix 2.26, a boolean later.
        let trusted = word(&said, "trusted")?;
        ensure!(
            trusted.contains("\"trusted\":0") || trusted.contains("\"trusted\":false"),
            "{pool}: {said}"
        );
        ensure_says(
            &said,
            &["sandbox inside", "lacks a signature by a trusted key"],
        )?;
        ensure!(
            !said.lines().any(|line| line == "mine" || line == "taken"),
            "{pool}: {said}"
        );
    }
    // Only the path's signature is wrong: the container's root, which does not ask the daemon,
    // gets the path.
    lab.await_settled(SOON)?;
    let as_root = format!("{import} && cat {forged}");
    let said = in_container(lab, "store-1", &["sh", "-c", &as_root])?;
    ensure_says(&said, &["forged from the cache"])
}

/// Returns a path of the fixture's cache.
fn cached(lab: &Lab, name: &str) -> Result<String> {
    let path = lab
        .host()
        .run(&["cat", &format!("{}/{name}", image::NIX_CACHE)])?;
    Ok(path.trim().to_owned())
}

fn the_layer_bounds_what_builds_write(lab: &mut Lab) -> Result<()> {
    let script = format!(
        "{BUILD}set +e\n\
         build large 'head -c 419430400 /dev/zero >$out' 2>&1 | tail -n 8\n\
         df --output=size -B1M /nix/store | tail -n 1 | sed 's/^ */size /'\n\
         build small 'echo fits >$out' | xargs cat"
    );
    for (pool, mib) in [("ci", LAYER_MIB), ("store", 256)] {
        let said = run_in(lab, pool, &script)?.facts.log_tail;
        ensure_says(&said, &["No space left on device", "fits"])?;
        let size: u64 = word(&said, "size")?.parse()?;
        ensure!(size <= mib, "{pool}: {said}");
    }
    Ok(())
}

fn the_pools_cache_serves_only_paths_signed_by_its_key(lab: &mut Lab) -> Result<()> {
    let (good, forged) = (cached(lab, "good")?, cached(lab, "forged")?);
    for pool in POOLS {
        let script = format!(
            "nix-store --realise {good}; cat {good}\n\
             if nix-store --realise {forged} 2>/tmp/said; then echo taken; fi; tail -n 3 /tmp/said"
        );
        let said = run_in(lab, pool, &script)?.facts.log_tail;
        ensure_says(&said, &["good from the cache"]).with_context(|| pool.to_owned())?;
        ensure!(
            !said.contains("taken") && !said.contains("forged from the cache"),
            "{pool}: {said}"
        );
    }
    lab.await_settled(SOON).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_what_follows_it_on_its_line() {
        let said = "pathless\npath /nix/store/x \nend";
        assert_eq!(word(said, "path").unwrap(), "/nix/store/x");
        assert!(word(said, "size").is_err());
    }
}
