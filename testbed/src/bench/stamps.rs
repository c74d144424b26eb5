//! Images whose runner sends a stamp at its start and at its exit, and the collector of the stamps.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::timeline::{Moment, SlotEvent};
use crate::bed::{self, remove_tree};
use crate::host::{TestHost, images_dir};
use crate::net::INTERNET;

/// Address in the test host's internet that receives the stamps of the runner's program.
pub const STAMPS: &str = "198.51.100.7:7007";
/// Name of the listener in an image whose stamping program has the listener's usual name.
pub const LISTENER_BEHIND: &str = "standin-listener";

/// Directory of the runner's programs in the image.
const RUNNER_BIN: &str = "opt/actions-runner/bin";

/// Drop-in for an image whose jobs do not report their start. The runner's exit status reports the job's result, so
/// the exit is the daemon's first sign that another runner is wanted.
const SILENT: &str = "[Service]
Environment=ACTIONS_RUNNER_HOOK_JOB_STARTED=
Environment=ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED=1
";

/// An image of the benchmark. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Image {
    dir: PathBuf,
    inner: String,
}

impl Image {
    /// Copies the jobs' image and puts the stamping program in the listener's place.
    pub(super) fn make(host: &TestHost, name: &str, stamped: &Path, silent: bool) -> Result<Self> {
        let images = images_dir(host.bed());
        let image = Self {
            dir: images.join(name),
            inner: format!("/var/lib/runner-images/{name}"),
        };
        remove_tree(&image.dir)?;
        // Hard links are safe, because no file that both images share is written below.
        bed::run(
            Command::new("cp")
                .args(["--archive", "--link"])
                .arg(images.join("debian"))
                .arg(&image.dir),
        )?;
        let bin = image.dir.join(RUNNER_BIN);
        let listener = bin.join("Runner.Listener");
        fs::rename(&listener, bin.join(LISTENER_BEHIND))?;
        fs::copy(stamped, &listener).context("cannot install the stamping program")?;
        fs::set_permissions(&listener, fs::Permissions::from_mode(0o755))?;
        if silent {
            let dir = image.dir.join("etc/systemd/system/github-runner.service.d");
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("silent.conf"), SILENT)?;
        }
        Ok(image)
    }

    /// Returns its path in the host.
    pub(super) fn path(&self) -> &str {
        &self.inner
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.dir) {
            bed::note(&format!(
                "cannot remove an image of the benchmark: {error:#}"
            ));
        }
    }
}

/// Receives stamps at an address of the test host's internet.
#[derive(Debug)]
pub(super) struct Collector {
    events: Arc<Mutex<Vec<SlotEvent>>>,
}

impl Collector {
    /// Starts a thread that receives stamps until the program ends.
    pub(super) fn start(host: &TestHost) -> Result<Self> {
        let namespace = fs::File::open(host.path(&format!("/run/netns/{INTERNET}")))
            .context("cannot open the network namespace of the test host's internet")?;
        let bind = || -> Result<UdpSocket> {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            UdpSocket::bind(STAMPS).with_context(|| format!("cannot bind {STAMPS}"))
        };
        // The thread ends with its changed namespace. The socket stays in the namespace that it was made in.
        let socket = std::thread::scope(|scope| scope.spawn(bind).join())
            .map_err(|_| anyhow!("the thread that binds the collector's socket panicked"))??;
        let events = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&events);
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(length) = socket.recv(&mut buffer) {
                let event = parse(&String::from_utf8_lossy(&buffer[..length]));
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(event);
            }
        });
        Ok(Self { events })
    }

    /// Returns the events since the last call.
    pub(super) fn take(&self) -> Vec<SlotEvent> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn parse(text: &str) -> Option<SlotEvent> {
    let words: Vec<&str> = text.split(' ').collect();
    let [event, host, at] = words.as_slice() else {
        return None;
    };
    let (before, slot) = host.rsplit_once('-')?;
    let (_, pool) = before.rsplit_once('-')?;
    Some(SlotEvent {
        at_us: at.parse().ok()?,
        slot: format!("{pool}-{slot}"),
        moment: match *event {
            "code" => Moment::Code,
            "exit" => Moment::Exit,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_names_its_slot() {
        let event = parse("code testhost-ci-2 1700000000000000").unwrap();
        assert_eq!((event.slot.as_str(), event.moment), ("ci-2", Moment::Code));
        assert!(parse("hello").is_none());
    }
}
