//! Runs programs inside a container: as a part of its job, or as a service of its systemd.
//!
//! A process that enters a container from outside has more capabilities and system calls than the
//! container. So a loop that was started inside reads commands from a FIFO, and runs each program
//! with exactly the rights of the job or of the container's root.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::program::Who;
use crate::claims::in_container;
use crate::host::TestHost;
use crate::lab::Lab;
use crate::wait::{Seen, wait_until};

/// Timeout for a program, which is longer than the program's own.
const LIMIT: Duration = Duration::from_secs(40);

/// The loop in bash. It reads commands from `$dir`.
const LOOP: &str = r#"
mkdir -p "$dir"; cd "$dir"; mkfifo -m 600 orders; exec 3<>orders; touch ready
while read -r number argument <&3; do
  [ "$number" = quit ] && exit 0
  ( set -a; . "./$number.env"; exec timeout -k 1 35 "./$number" $argument ) >"$number.out" 2>&1 </dev/null 3>&-
  echo $? >"$number.new"; mv "$number.new" "$number.status"
done
"#;

/// Exit status and output of a program.
#[derive(Debug, Clone)]
pub(super) struct Ran {
    pub(super) status: i32,
    pub(super) said: String,
}

/// A loop that waits for commands.
#[derive(Debug)]
pub(super) struct Agent {
    /// The loop's directory, as seen from the machine.
    dir: PathBuf,
    count: u32,
}

/// Returns the directory of a loop in its container.
fn dir(who: Who) -> &'static str {
    match who {
        Who::Job => "/tmp/attack-job",
        Who::Root => "/tmp/attack-root",
    }
}

/// Returns the script of a job that takes commands.
pub(super) fn job_script() -> String {
    format!("set +e +o pipefail\ndir={}\n{LOOP}", dir(Who::Job))
}

/// Returns a script with both loops, for process 1 of a container without an init.
pub(super) fn both_script() -> String {
    format!(
        "loop() {{ {LOOP} }}\n\
         (export dir={job} HOME=/home/runner USER=runner; exec setpriv --reuid=runner --regid=runner --init-groups bash -c \"$(declare -f loop); loop\") &\n\
         dir={root} loop\n",
        job = dir(Who::Job),
        root = dir(Who::Root)
    )
}

/// Starts a loop as a service of a container's systemd.
pub(super) fn start_service(lab: &Lab, machine: &str, who: Who) -> Result<()> {
    let script = format!("dir={}\n{LOOP}", dir(who));
    let unit = format!("--unit=attack-{}", who.name());
    let mut argv = vec!["systemd-run", "--quiet", &unit];
    if who == Who::Job {
        argv.extend(["--uid=runner", "--setenv=HOME=/home/runner"]);
    }
    argv.extend(["bash", "-c", &script]);
    in_container(lab, machine, &argv).map(drop)
}

impl Agent {
    /// Waits until the loop of the container with process 1 `leader` waits for commands.
    pub(super) fn find(host: &TestHost, leader: &str, who: Who) -> Result<Self> {
        let dir = host.path(&format!("/proc/{leader}/root{}", dir(who)));
        let ready = dir.join("ready");
        wait_until("the loop in the container", Duration::from_secs(30), || {
            Ok(if ready.exists() {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("no {}", ready.display()))
            })
        })?;
        Ok(Self { dir, count: 0 })
    }

    /// Runs a program to its end.
    pub(super) fn run(
        &mut self,
        program: &[u8],
        argument: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<Ran> {
        self.count += 1;
        let number = self.count;
        let path = |ending: &str| self.dir.join(format!("{number}{ending}"));
        let put = |ending: &str, content: &[u8]| -> Result<()> {
            fs::write(path(ending), content)?;
            fs::set_permissions(path(ending), fs::Permissions::from_mode(0o755))?;
            Ok(())
        };
        put("", program).context("bring a program into the container")?;
        put(".env", assignments(env).as_bytes())?;
        self.order(&format!("{number} {argument}"))?;
        let status = wait_until("a program in the container", LIMIT, || {
            Ok(match fs::read_to_string(path(".status")) {
                Ok(status) => Seen::Done(status),
                Err(_) => Seen::NotYet(
                    fs::read(path(".out"))
                        .map_or_else(|error| error.to_string(), |said| lossy(&said)),
                ),
            })
        })?;
        Ok(Ran {
            status: status.trim().parse().context("a program's status")?,
            said: lossy(&fs::read(path(".out"))?),
        })
    }

    /// Ends the loop, and its job with it.
    pub(super) fn quit(&self) -> Result<()> {
        self.order("quit")
    }

    fn order(&self, line: &str) -> Result<()> {
        let orders = self.dir.join("orders");
        let mut fifo = OpenOptions::new()
            .write(true)
            .open(&orders)
            .context("the container is gone")?;
        // One write, so that a reader sees the whole line.
        fifo.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }
}

/// Returns a program's output without control characters, because the program is hostile.
fn lossy(bytes: &[u8]) -> String {
    const MAX: usize = 4000;
    let start = bytes.len().saturating_sub(MAX);
    String::from_utf8_lossy(&bytes[start..])
        .chars()
        .map(|c| if c.is_control() && c != '\n' { '.' } else { c })
        .collect()
}

/// Returns assignments that a shell reads back unchanged.
pub(super) fn assignments(env: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in env {
        // Writing to a String cannot fail.
        writeln!(text, "{key}='{}'", value.replace('\'', r"'\''")).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_stays_part_of_a_value() {
        let env = BTreeMap::from([("A".to_owned(), "it's".to_owned())]);
        assert_eq!(assignments(&env), "A='it'\\''s'\n");
    }

    #[test]
    fn text_of_a_container_moves_no_cursor() {
        assert_eq!(lossy(b"a\x1b[31mb\n"), "a.[31mb\n");
    }
}
