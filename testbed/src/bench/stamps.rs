//! Images whose runner tells when its code first ran and when it ended, and who listens to it.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::lives::{Event, Kind};
use super::{LISTENER_BEHIND, STAMPS};
use crate::bed::{self, remove_tree};
use crate::host::{TestHost, images_dir};
use crate::net::INTERNET;

/// The runner's own directory in the image.
const RUNNER_BIN: &str = "opt/actions-runner/bin";

/// A job's start is not told in this image, and the runner's exit status says how the job ended: so
/// the daemon learns from the exit, and from nothing before it, that another runner is wanted.
const SILENT: &str = "[Service]
Environment=ACTIONS_RUNNER_HOOK_JOB_STARTED=
Environment=ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED=1
";

/// An image of the benchmark; removed when it is dropped.
#[derive(Debug)]
pub(super) struct Image {
    dir: PathBuf,
    inner: String,
}

impl Image {
    /// A copy of the image that jobs get, with the stamping program before its listener.
    pub(super) fn make(host: &TestHost, name: &str, stamped: &Path, silent: bool) -> Result<Self> {
        let images = images_dir(host.bed());
        let image = Self {
            dir: images.join(name),
            inner: format!("/var/lib/runner-images/{name}"),
        };
        remove_tree(&image.dir)?;
        // Hard links: nothing below writes into a file that both images have.
        bed::run(
            Command::new("cp")
                .args(["--archive", "--link"])
                .arg(images.join("debian"))
                .arg(&image.dir),
        )?;
        let bin = image.dir.join(RUNNER_BIN);
        let listener = bin.join("Runner.Listener");
        fs::rename(&listener, bin.join(LISTENER_BEHIND))?;
        fs::copy(stamped, &listener).context("install the stamping program")?;
        fs::set_permissions(&listener, fs::Permissions::from_mode(0o755))?;
        if silent {
            let dir = image.dir.join("etc/systemd/system/github-runner.service.d");
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("silent.conf"), SILENT)?;
        }
        Ok(image)
    }

    /// Its path in the host.
    pub(super) fn path(&self) -> &str {
        &self.inner
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.dir) {
            bed::note(&format!("an image of the benchmark stays: {error:#}"));
        }
    }
}

/// Listens at an address of the test host's internet.
#[derive(Debug)]
pub(super) struct Collector {
    events: Arc<Mutex<Vec<Event>>>,
}

impl Collector {
    /// Listens until the program ends.
    pub(super) fn start(host: &TestHost) -> Result<Self> {
        let namespace = fs::File::open(host.path(&format!("/run/netns/{INTERNET}")))
            .context("the test host has no internet")?;
        let bind = || -> Result<UdpSocket> {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            UdpSocket::bind(STAMPS).with_context(|| format!("listen on {STAMPS}"))
        };
        // The thread takes its changed namespace with it; the socket stays where it was made.
        let socket = std::thread::scope(|scope| scope.spawn(bind).join())
            .map_err(|_| anyhow!("a thread panicked"))??;
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

    /// What was told since the last call.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn parse(text: &str) -> Option<Event> {
    let words: Vec<&str> = text.split(' ').collect();
    let [what, host, at] = words.as_slice() else {
        return None;
    };
    let (before, slot) = host.rsplit_once('-')?;
    let (_, pool) = before.rsplit_once('-')?;
    Some(Event {
        at_us: at.parse().ok()?,
        slot: format!("{pool}-{slot}"),
        kind: match *what {
            "code" => Kind::Code,
            "exit" => Kind::Exit,
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
        assert_eq!((event.slot.as_str(), event.kind), ("ci-2", Kind::Code));
        assert!(parse("hello").is_none());
    }
}
