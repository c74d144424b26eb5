//! The daemon's page in a real browser.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::common::{SOON, await_busy, finish_held, held, start_held};
use super::fixture::{SMALL, small};
use super::suite::{Suite, suite};
use crate::browser::{Browser, Theme};
use crate::lab::{DAEMON, Lab};

pub(super) const SUITE: Suite = suite![SMALL;
    a_page_in_a_browser_is_live_and_runs_no_script_of_a_job,
];

const PORT: u16 = 9818;
const URL: &str = "http://127.0.0.1:9818/";

/// Name of a job whose author attacks the operator's browser.
const HOSTILE: &str = "</td><script>window.taken=1</script><img src=x onerror=window.taken=1>";

/// Time after which a page without a daemon says so: 10 s, and the browser's own tries before.
const OLD: Duration = Duration::from_secs(40);

/// JavaScript that returns every text whose contrast is below 4.5 to 1 (WCAG 2.2, success criterion 1.4.3).
const PALE: &str = r"
    const numbers = (color) => color.match(/[\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = numbers(color).slice(0, 3).map((c) => {
            const part = c / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const back = getComputedStyle(e).backgroundColor;
            const parts = numbers(back);
            if (parts.length === 3 || parts[3] === 1) return back;
        }
        return 'rgb(255, 255, 255)';
    };
    const pale = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || element.closest('script, style, noscript')) continue;
        const pair = [light(getComputedStyle(element).color), light(behind(element))];
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        if (ratio < 4.5) pale.push(`${element.textContent}: ${ratio}`);
    }
    return pale;
";

fn a_page_in_a_browser_is_live_and_runs_no_script_of_a_job(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let mut config = small(lab.sim().api_url());
    config.top = format!("listen = [\"127.0.0.1:{PORT}\"]");
    lab.install(&config)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON)?;
    let outcome = with_scripts(lab).and_then(|()| without_scripts(lab));
    lab.install(&small(lab.sim().api_url()))?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}

fn with_scripts(lab: &Lab) -> Result<()> {
    let bed = lab.host().bed();
    let browser = Browser::start(bed, lab.host(), true)?;
    browser.open(URL)?;
    browser.wait(
        "a live page",
        SOON,
        "document.getElementById('live').textContent === 'live'",
    )?;
    let title = browser.run("return document.title")?;
    ensure!(title == "testhost: running", "{title}");

    // The page follows without a load, and the keyboard's place stays.
    browser.run("window.loaded = 'once'; document.querySelector('footer a').focus()")?;
    let hostile = lab.sim().queue(&held(HOSTILE))?;
    let runner = await_busy(lab, hostile)?;
    let link = format!("document.getElementById('job-{}')", runner.machine());
    browser.wait("the job on the page", SOON, &link)?;
    let shown = browser.run(&format!("return {link}.textContent"))?;
    let shown = shown.as_str().context("a link has a text")?;
    ensure!(shown.contains("<script>window.taken=1</script>"), "{shown}");
    browser.run(&format!("{link}.focus()"))?;
    let (plain, other) = start_held(lab, "a plain job")?;
    let second = format!("document.getElementById('job-{}')", other.machine());
    browser.wait("the second job on the page", SOON, &second)?;
    let state = browser.run(&format!(
        "return [window.loaded, window.taken ?? null, document.activeElement === {link}, \
         document.querySelectorAll('main script, main img').length]"
    ))?;
    ensure!(
        state == serde_json::json!(["once", null, true, 0]),
        "{state}"
    );
    looks(lab, &browser)?;
    let errors = browser.errors()?;
    ensure!(errors.is_empty(), "the browser reports {errors:?}");

    // Without a daemon the page says that it is old, and recovers.
    lab.stop()?;
    browser.wait(
        "a page that is old",
        OLD,
        "document.body.className === 'old'",
    )?;
    lab.start()?;
    browser.wait(
        "a page that is live again",
        OLD,
        "document.body.className === ''",
    )?;
    finish_held(lab, plain, &other)?;
    finish_held(lab, hostile, &runner)?;
    Ok(())
}

/// Checks that every text can be read on a screen and on a phone in both themes, and takes pictures.
fn looks(lab: &Lab, browser: &Browser) -> Result<()> {
    for (name, width, height, theme) in [
        ("light", 1280, 1000, Theme::Light),
        ("dark", 1280, 1000, Theme::Dark),
        ("phone", 390, 1600, Theme::Light),
        ("phone-dark", 390, 1600, Theme::Dark),
    ] {
        browser.show(width, height, theme)?;
        let pale = browser.run(PALE)?;
        ensure!(
            pale == Value::Array(Vec::new()),
            "{name}: pale texts {pale}"
        );
        let wide = browser.run("return document.documentElement.scrollWidth")?;
        ensure!(
            wide.as_u64() <= Some(u64::from(width)),
            "{name}: it is {wide} wide"
        );
        browser.picture(&lab.host().bed().path(format!("page-{name}.png")))?;
    }
    browser.show(1280, 1000, Theme::Light)
}

fn without_scripts(lab: &Lab) -> Result<()> {
    let browser = Browser::start(lab.host().bed(), lab.host(), false)?;
    browser.open(URL)?;
    let text = browser.run("return document.querySelector('main').innerText")?;
    let text = text.as_str().context("a page has a text")?;
    for wanted in ["Pools", "Runners", "ci-1", "Last verdicts", "job_done"] {
        ensure!(text.contains(wanted), "{wanted} in {text}");
    }
    // The browser loads the page again by itself.
    let refresh = browser.run("return document.querySelector('noscript meta').httpEquiv")?;
    ensure!(refresh == "refresh", "{refresh}");
    Ok(())
}
