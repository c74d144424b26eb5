//! A real Prometheus on the test host's network, which scrapes the daemon and evaluates the alert rules.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::checks::tools::{Tools, project};
use crate::host::TestHost;
use crate::wait::{Seen, wait_until};

/// Address of Prometheus in the network of the test host.
const LISTEN: &str = "127.0.0.1:9090";
/// Timeout for the start, and for the first scrapes.
const START: Duration = Duration::from_mins(1);

/// Enters the root filesystem with an empty `/tmp`, writes the configuration of stdin there, and starts.
const ENTER: &str = "mount -t tmpfs tmpfs \"$1/tmp\"\n\
                     mount -t proc proc \"$1/proc\"\n\
                     cp \"$2\" \"$1/tmp/alerts.yml\"\n\
                     cat > \"$1/tmp/prometheus.yml\"\n\
                     exec chroot \"$1\" prometheus --config.file=/tmp/prometheus.yml \
                     --storage.tsdb.path=/tmp/data --web.listen-address=\"$3\" --log.level=warn";

/// A Prometheus that scrapes each second. It ends when this value is dropped.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    network: PathBuf,
    root: PathBuf,
}

impl Prometheus {
    /// Starts Prometheus with the alert rules of this repository, and waits until it has scraped `target` some times.
    pub fn start(tools: &Tools, host: &TestHost, target: &str) -> Result<Self> {
        let network = host.network_namespace();
        let log = fs::File::create(host.bed().path("prometheus.log"))?;
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", network.display()))
            .args(["unshare", "--mount", "--propagation=private"])
            .args(["sh", "-euc", ENTER, "sh"])
            .arg(tools.root())
            .arg(project().join("monitoring/alerts.yml"))
            .arg(LISTEN)
            .env_clear()
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start prometheus")?;
        let mut input = child.stdin.take().context("prometheus has an input")?;
        input.write_all(configuration(target).as_bytes())?;
        drop(input);
        let prometheus = Self {
            child,
            network,
            root: tools.root().to_owned(),
        };
        wait_until("scrapes of the daemon", START, || {
            let scrapes = "count_over_time(up[1m]) > 5 and up == 1";
            Ok(match prometheus.query(scrapes) {
                Ok(found) if !found.is_empty() => Seen::Done(()),
                Ok(_) => Seen::NotYet("too few scrapes that succeeded".into()),
                Err(error) => Seen::NotYet(error.to_string()),
            })
        })?;
        Ok(prometheus)
    }

    /// Evaluates a query now. Returns a line for each result.
    pub fn query(&self, query: &str) -> Result<Vec<String>> {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.network.display()))
            .arg("chroot")
            .arg(&self.root)
            .args(["promtool", "query", "instant"])
            .args([&format!("http://{LISTEN}"), query])
            .output()
            .context("run promtool")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{query}: {said}");
        let found = String::from_utf8_lossy(&output.stdout);
        // Without a result, promtool prints an empty line.
        let lines = found.lines().filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }

    /// Returns the names of our metrics that have a series.
    pub fn families(&self) -> Result<Vec<String>> {
        let names = self.query("group by (__name__) ({__name__=~\"runner_controller_.*\"})")?;
        let name = |line: &String| Some(line.split_whitespace().next()?.to_owned());
        Ok(names.iter().filter_map(name).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(target: &str) -> String {
    format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
         rule_files: [ /tmp/alerts.yml ]\n\
         scrape_configs:\n\
         - job_name: runner-controller\n  \
           static_configs: [ {{ targets: [ \"{target}\" ] }} ]\n"
    )
}
