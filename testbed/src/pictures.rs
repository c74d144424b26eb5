//! `pictures`: the pictures of the documentation, taken on a test host where jobs run and wait.

use std::fs;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use github_sim::{JobSpec, JobState};
use pty_process::Size;
use pty_process::blocking::{Command, open};

use crate::bed::{Bed, note};
use crate::binaries::{Binaries, Profile, Programs};
use crate::browser::{Browser, Theme};
use crate::checks::tools::project;
use crate::config::{Config, Pool};
use crate::hook;
use crate::host::TestHost;
use crate::lab::Lab;
use crate::record;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

/// Directory of the pictures in the repository.
const DIRECTORY: &str = "docs/images";

/// Timeout for each state of the scene.
const SOON: Duration = Duration::from_secs(30);

/// Port of the page on the test host.
const PORT: u16 = 9819;

/// Width and height of a phone's screen, in CSS pixels.
const PHONE: (u16, u16) = (390, 844);

/// Size of the terminal.
const ROWS: NonZeroU16 = NonZeroU16::new(24).unwrap();
const COLUMNS: NonZeroU16 = NonZeroU16::new(100).unwrap();

/// Takes all pictures.
pub fn take() -> Result<()> {
    let bed = Bed::open()?;
    let lab = Lab::up(&bed, Binaries::with(Profile::Dev, &Programs::default())?)?;
    lab.reset()?;
    note("jobs run and wait");
    set_scene(&lab)?;
    note("taking the pictures");
    let outcome = page(&lab).and_then(|()| terminal(lab.host()));
    lab.reset()?;
    outcome
}

/// Lets jobs succeed, fail, run and wait.
fn set_scene(lab: &Lab) -> Result<()> {
    let mut config = Config::small(lab.sim().api_url());
    config.url = "https://github.com/acme".into();
    config.top = format!(
        "listen = [\"127.0.0.1:{PORT}\"]\n{}\n[budget]\nrunners = 4\n",
        hook::add(lab, "acme")?
    );
    config.pools = vec![pool("build", 0, 1, 3), pool("deploy", 10, 0, 2)];
    lab.install(&config)?;
    lab.start()?;
    lab.await_settled(SOON)?;
    let ended = [
        job("unit tests", "build", "true", "widgets")?,
        job("lint", "build", "false", "gadgets")?,
        job("publish", "deploy", "sleep 1", "widgets")?,
    ];
    for spec in &ended {
        let id = lab.sim().queue(spec)?;
        lab.sim().await_job(id, JobState::Completed, SOON)?;
    }
    let long = "sleep 600";
    let running = [
        job("integration tests", "build", long, "widgets")?,
        job("release build", "build", long, "gadgets")?,
        job("documentation", "build", long, "widgets")?,
        job("staging", "deploy", long, "gadgets")?,
    ];
    for spec in &running {
        let id = lab.sim().queue(spec)?;
        lab.sim().await_job(id, JobState::InProgress, SOON)?;
    }
    for (name, repository) in [("benchmarks", "widgets"), ("nightly", "gadgets")] {
        lab.sim().queue(&job(name, "build", long, repository)?)?;
    }
    lab.await_status("two waiting jobs", SOON, |status| {
        (status.demand.as_ref()?.waiting.len() == 2).then_some(())
    })
    .map(drop)
}

fn pool(name: &str, offset: u16, min_idle: u16, max_runners: u16) -> Pool {
    let mut pool = Pool::new(name, offset);
    (pool.min_idle, pool.min_spare, pool.max_runners) = (min_idle, min_idle, max_runners);
    pool.layer_size = "256 MiB".into();
    pool.more = "demand = \"webhook\"\n".into();
    pool
}

fn job(name: &str, pool: &str, script: &str, repository: &str) -> Result<JobSpec> {
    Ok(JobSpec {
        scope: Some(format!("acme/{repository}").parse()?),
        ..pool_job(name, pool, script)
    })
}

fn file(name: &str) -> PathBuf {
    project().join(DIRECTORY).join(name)
}

/// Takes pictures of the whole page on a screen, and of its top on a phone.
fn page(lab: &Lab) -> Result<()> {
    let browser = Browser::start(lab.host().bed(), lab.host(), true)?;
    browser.open(&format!("http://127.0.0.1:{PORT}/"))?;
    browser.wait(
        "a live page",
        SOON,
        "document.getElementById('live').textContent === 'live'",
    )?;
    for (name, width, theme) in [
        ("page-light.png", 1100, Theme::Light),
        ("page-dark.png", 1100, Theme::Dark),
    ] {
        browser.show(width, 100, theme)?;
        let height = browser.run("return document.documentElement.scrollHeight")?;
        let height = height
            .as_u64()
            .and_then(|height| u16::try_from(height).ok());
        browser.show(width, height.context("the page has a height")?, theme)?;
        browser.picture(&file(name))?;
    }
    let (width, height) = PHONE;
    browser.show(width, height, Theme::Dark)?;
    browser.picture(&file("page-phone.png"))
}

/// Takes a picture of `runner-status --watch`.
fn terminal(host: &TestHost) -> Result<()> {
    let (mut terminal, end) = open().context("open a pseudo terminal")?;
    terminal.resize(Size::new(ROWS.get(), COLUMNS.get()))?;
    let enter = host.command(&["runner-status", "--watch"]);
    let mut child = Command::new(enter.get_program())
        .args(enter.get_args())
        .env("TERM", "xterm-256color")
        .spawn(end)
        .context("start runner-status")?;
    let mut reader = fs::File::from(terminal.as_fd().try_clone_to_owned()?);
    let (sender, outputs) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut shown = vt100::Parser::new(ROWS, COLUMNS, 0);
    let seen = wait_until("the terminal view", SOON, || {
        for bytes in outputs.try_iter() {
            shown.process(&bytes);
        }
        let text = shown.screen().contents();
        let is_whole = ["integration tests", "staging"]
            .iter()
            .all(|job| text.contains(job));
        Ok(if is_whole {
            Seen::Done(())
        } else {
            Seen::NotYet(text)
        })
    });
    terminal.write_all(b"q").context("end runner-status")?;
    let status = child.wait().context("wait for runner-status")?;
    seen?;
    ensure!(status.success(), "runner-status failed: {status}");
    let svg = record::picture(shown.screen(), "runner-status --watch");
    fs::write(file("watch.svg"), svg).context("write the picture of the terminal view")
}
