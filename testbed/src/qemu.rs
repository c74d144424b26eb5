//! That limits bite: shown in a virtual machine, because a test host in a container has no controllers
//! of its guest where the machine's are in use elsewhere.
//!
//! No /dev/kvm is needed. Units, launcher, daemon and image are ours; the kernel is Debian's.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bed::{Bed, note};
use crate::binaries::{Binaries, CONTROLLER, SIM};
use crate::host::images_dir;
use crate::packages::apt::Apt;
use crate::packages::tools;
use crate::rootfs::HOST;

const VM: &str = include_str!("qemu/vm.sh");
const ENFORCE: &str = include_str!("qemu/enforce.py");
/// Said last and with the number of claims, by a machine that did all it was to do.
const END: &str = "end ";
/// Number of the console's last lines in an error.
const LAST_LINES: usize = 80;

/// A claim that was checked in the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The claim.
    pub name: String,
    /// True if it held.
    pub holds: bool,
    /// Measured values.
    pub details: String,
    /// Since the claim before, or the machine's start.
    pub took: Duration,
}

/// Boots the machine, and hands over each claim as it was checked. The image is the test host's.
pub fn enforce(bed: &Bed, binaries: &Binaries, mut found: impl FnMut(Finding)) -> Result<()> {
    // It runs the programs that were built for this one.
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the virtual machine is made for x86_64 alone"
    );
    note("booting a virtual machine without /dev/kvm; takes minutes");
    let dir = bed.path("qemu");
    fs::create_dir_all(&dir)?;
    tools::install_these(bed, tools::FOR_QEMU)?;
    let kernel = kernel(bed)?;
    let script = dir.join("enforce.py");
    fs::write(&script, ENFORCE)?;
    // It goes when we do, however we go.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig=TERM", "bash", "-c", VM])
        .env("DIR", &dir)
        .env("KERNEL", kernel)
        .env("HOST", HOST.path(bed))
        .env("IMAGE", images_dir(bed).join("debian"))
        .env("CONTROLLER", binaries.path(CONTROLLER)?)
        .env("SIM", binaries.path(SIM)?)
        .env("ENFORCE", &script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run setpriv")?;
    let console = child.stdout.take().context("it has an output")?;
    let mut said = VecDeque::new();
    let mut seen = 0;
    let mut end = None;
    let mut last = Instant::now();
    for line in BufReader::new(console).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        match parse(&line) {
            Some(Said::End(claims)) => end = Some(claims),
            Some(Said::Finding(finding)) => {
                seen += 1;
                let took = last.elapsed();
                last = Instant::now();
                found(Finding { took, ..finding });
            }
            None => {
                said.push_back(printable(&line));
                if said.len() > LAST_LINES {
                    said.pop_front();
                }
            }
        }
    }
    let status = child.wait()?;
    // A claim whose line the console has lost is not a claim that holds.
    ensure!(
        status.success() && end == Some(seen),
        "the machine did not get to its end ({status}; {seen} claims seen, {end:?} said); its console:\n{}",
        Vec::from(said).join("\n")
    );
    Ok(())
}

/// Returns the directory of Debian's kernel for virtual machines, unpacked once.
fn kernel(bed: &Bed) -> Result<PathBuf> {
    const METAPACKAGE: &str = "linux-image-cloud-amd64";
    let dir = bed.path("qemu");
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        // Debian 13 has its files below /usr.
        if ["lib/modules", "usr/lib/modules"]
            .iter()
            .any(|modules| path.join(modules).is_dir())
        {
            return Ok(path);
        }
    }
    let apt = Apt::new(bed.path("apt.log"));
    let package = apt.dependency(METAPACKAGE, "linux-image-")?;
    let target = dir.join(&package);
    apt.unpack(&package, &target)?;
    Ok(target)
}

/// Firmware and systemd draw on a console.
fn printable(line: &str) -> String {
    line.chars().filter(|char| !char.is_control()).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    End(u64),
    Finding(Finding),
}

/// `enforce: ok NAME: DETAILS`, with whatever the console had in front of it.
fn parse(line: &str) -> Option<Said> {
    let (_, said) = line.split_once("enforce: ")?;
    if let Some(claims) = said.strip_prefix(END) {
        return claims.parse().ok().map(Said::End);
    }
    let (mark, rest) = said.split_once(' ')?;
    let holds = match mark {
        "ok" => true,
        "FAIL" => false,
        _ => return None,
    };
    let (name, details) = rest.split_once(": ")?;
    Some(Said::Finding(Finding {
        name: name.to_owned(),
        holds,
        details: printable(details),
        took: Duration::ZERO,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_read_from_the_console() {
        let finding = |holds| {
            Some(Said::Finding(Finding {
                name: "it_holds".into(),
                holds,
                details: "1: 2".into(),
                took: Duration::ZERO,
            }))
        };
        assert_eq!(parse("\u{1b}[0menforce: ok it_holds: 1: 2"), finding(true));
        assert_eq!(parse("enforce: FAIL it_holds: 1: 2"), finding(false));
        assert_eq!(parse("enforce: end 7"), Some(Said::End(7)));
        assert_eq!(parse("enforce: doing it: now"), None);
        assert_eq!(parse("systemd[1]: Started enforce.service."), None);
    }
}
