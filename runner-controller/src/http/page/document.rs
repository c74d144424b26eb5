//! The status as HTML. Every text is escaped: names of jobs come from authors of workflows.

use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_seconds;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::status::{DemandStatus, JobRow, PoolStatus, Status};
use crate::terminal;
use crate::view::{
    Ended, Notice, Occupation, PoolCounts, Weight, failure, health, job_title, notices,
    scope_state, server, span, state,
};

/// Interval between two loads of the page in a browser without JavaScript, in seconds.
const RELOAD_S: u32 = 15;

/// Returns the whole document.
pub(super) fn document(status: &Status, now_unix_ms: u64, style: &str, script: &str) -> String {
    let status = status.at(now_unix_ms);
    let status = terminal::plain_document(&status).unwrap_or_default();
    let class = if health(&status).healthy {
        "state good"
    } else {
        "state bad"
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title(&status)) }
                noscript { meta http-equiv="refresh" content=(RELOAD_S); }
                style { (PreEscaped(style)) }
            }
            body {
                header {
                    h1 { (status.host) }
                    p id="summary" class=(class) role="status" { (summary(&status)) }
                    p class="soft" { (status.scope) ", runner-controller " (status.program) }
                    p id="live" class="soft" role="status" {}
                }
                main { (content(&status)) }
                footer class="soft" {
                    p {
                        "More: " a href="status" { "status as JSON" } ", " a href="metrics" { "metrics" } ", "
                        a href="health" { "health" } ". On the host, " code { "runner-controller explain SLOT" }
                        " tells one runner from its start to its verdict."
                    }
                }
                script { (PreEscaped(script)) }
            }
        }
    };
    page.into_string()
}

/// Returns the title of the document, which a browser shows on its tab.
pub(super) fn title(status: &Status) -> String {
    let mark = if health(status).healthy { "" } else { "! " };
    format!("{mark}{}: {}", status.host, status.state)
}

/// Returns the state and health of the host.
pub(super) fn summary(status: &Status) -> String {
    let verdict = if health(status).healthy {
        "healthy"
    } else {
        "NOT healthy"
    };
    format!("{}, {verdict}", status.state)
}

/// Returns the main part of the document, which the stream replaces.
pub(super) fn content(status: &Status) -> Markup {
    html! {
        p class="soft" {
            "As of " (time(status.at_unix_ms)) ". The daemon has run since " (time(status.since_unix_ms)) "."
        }
        (obstacles(&notices(status)))
        (pools(status))
        (runners(status))
        (waiting(status))
        (ended(status))
    }
}

fn time(unix_ms: u64) -> Markup {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
    // The format has four digits for a year, so a later time has none.
    let last = Duration::from_secs(253_402_300_799);
    let at = at.filter(|at| *at <= UNIX_EPOCH + last);
    let text = at.map(|at| format_rfc3339_seconds(at).to_string());
    let text = text.unwrap_or_default();
    html! { time datetime=(text) { (text) } }
}

fn obstacles(all: &[Notice]) -> Markup {
    let (facts, obstacles): (Vec<_>, Vec<_>) =
        all.iter().partition(|notice| notice.weight == Weight::Fact);
    html! {
        section aria-labelledby="obstacles" {
            h2 id="obstacles" { "Obstacles" }
            @if obstacles.is_empty() { p { "Nothing keeps runners from their jobs." } }
            ul { @for notice in obstacles { (item(notice)) } }
        }
        @if !facts.is_empty() {
            section aria-labelledby="facts" {
                h2 id="facts" { "Facts" }
                ul { @for notice in facts { (item(notice)) } }
            }
        }
    }
}

fn item(notice: &Notice) -> Markup {
    match notice.weight {
        Weight::Problem => html! { li.problem { strong { "Problem: " } (notice.text) } },
        Weight::Closed => html! { li.closed { strong { "Closed: " } (notice.text) } },
        Weight::Fact => html! { li { (notice.text) } },
    }
}

/// Column of a table.
#[derive(Debug, Clone, Copy)]
struct Column {
    title: &'static str,
    is_number: bool,
}

const fn text(title: &'static str) -> Column {
    let is_number = false;
    Column { title, is_number }
}

const fn number(title: &'static str) -> Column {
    let is_number = true;
    Column { title, is_number }
}

/// Returns a section with a table. The first cell of each row is its name.
fn table<const N: usize>(
    id: &str,
    title: &str,
    columns: [Column; N],
    rows: &[[Markup; N]],
    empty: &str,
) -> Markup {
    let class = |column: &Column| column.is_number.then_some("number");
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (title) }
            @if rows.is_empty() { p { (empty) } } @else {
                table aria-labelledby=(id) {
                    thead { tr { @for column in &columns {
                        th scope="col" class=[class(column)] { (column.title) }
                    } } }
                    tbody { @for row in rows { tr {
                        @for (place, (column, cell)) in columns.iter().zip(row).enumerate() {
                            @if place == 0 { th scope="row" { (cell) } } @else {
                                td data-column=(column.title) class=[class(column)] { (cell) }
                            }
                        }
                    } } }
                }
            }
        }
    }
}

fn cell(text: &str) -> Markup {
    html! { (text) }
}

fn pools(status: &Status) -> Markup {
    let scopes = status.scopes();
    let columns = [
        text("Pool"),
        number("Idle"),
        number("Spare"),
        number("Busy"),
        number("Starting"),
        number("Ending"),
        number("All"),
        number("Failed"),
        text("Labels"),
        text("Scope"),
        text("GitHub"),
    ];
    let row = |pool: &PoolStatus| {
        let counts = PoolCounts::of(pool);
        let scope = scopes.iter().find(|scope| scope.name == pool.scope);
        let scope = scope.or(scopes.first());
        let at = scope.map_or_else(String::new, |scope| scope.scope.clone());
        let answers = scope.map(|scope| scope_state(scope, status.at_unix_ms));
        [
            cell(&pool.name),
            cell(&counts.idle),
            cell(&counts.spare),
            cell(&counts.busy),
            cell(&counts.starting),
            cell(&counts.ending),
            cell(&counts.all),
            cell(&pool.failed.to_string()),
            cell(&pool.labels.join(", ")),
            cell(&at),
            cell(&answers.unwrap_or_default()),
        ]
    };
    let rows: Vec<_> = status.pools.iter().map(row).collect();
    table("pools", "Pools", columns, &rows, "No pool is configured.")
}

fn runners(status: &Status) -> Markup {
    let columns = [
        text("Runner"),
        text("State"),
        text("For"),
        text("Age"),
        text("Job or name"),
    ];
    let mut rows = Vec::new();
    for pool in &status.pools {
        for runner in &pool.runners {
            let occupation = Occupation::of(runner, server(status, pool));
            rows.push([
                cell(&runner.slot.to_string()),
                cell(&state(runner)),
                cell(&span(runner.phase_ms)),
                cell(&span(runner.age_ms)),
                link(
                    &format!("job-{}", runner.slot),
                    &occupation.text,
                    occupation.url,
                ),
            ]);
        }
    }
    table(
        "runners",
        "Runners",
        columns,
        &rows,
        "No runner has a container.",
    )
}

/// Returns a text, with a link if there is an address. Only web addresses become links.
fn link(id: &str, text: &str, url: Option<String>) -> Markup {
    let is_web = |url: &String| url.starts_with("https://") || url.starts_with("http://");
    match url.filter(is_web) {
        Some(url) => html! { a id=(id) href=(url) rel="noopener noreferrer" { (text) } },
        None => cell(text),
    }
}

fn waiting(status: &Status) -> Markup {
    let Some(demand) = &status.demand else {
        return html! {
            section aria-labelledby="waiting" {
                h2 id="waiting" { "Waiting jobs" }
                p { "This host does not know GitHub's queue; " code { "[webhook]" } " changes that: " code { "runner-controller docs demand" } }
            }
        };
    };
    let columns = [
        text("Job"),
        text("Waits for"),
        text("Pool"),
        text("Labels"),
        text("Why"),
    ];
    let row = |job: &JobRow| {
        [
            cell(&job_title(job)),
            cell(&span(status.at_unix_ms.saturating_sub(job.queued_unix_ms))),
            cell(job.pool.as_deref().unwrap_or("none")),
            cell(&job.labels.join(", ")),
            cell(job.waits_for.map_or("", |reason| reason.clause())),
        ]
    };
    let DemandStatus {
        waiting, unserved, ..
    } = demand;
    let rows: Vec<_> = waiting.iter().chain(unserved).map(row).collect();
    table("waiting", "Waiting jobs", columns, &rows, "No job waits.")
}

fn ended(status: &Status) -> Markup {
    let columns = [
        text("Runner"),
        text("Verdict"),
        text("Ago"),
        text("Job"),
        number("Memory"),
        text("Exit"),
        text("Cause and remedy"),
    ];
    let rows: Vec<_> = status
        .recent
        .iter()
        .map(|record| {
            let ended = Ended::of(record, status.at_unix_ms);
            let failure = failure(record).unwrap_or_default();
            [
                cell(&ended.slot),
                cell(&ended.verdict),
                cell(&ended.ago),
                cell(&ended.job),
                cell(&ended.memory),
                cell(&ended.exit),
                cell(&failure),
            ]
        })
        .collect();
    table(
        "ended",
        "Last verdicts",
        columns,
        &rows,
        "No runner has ended since the daemon started.",
    )
}

/// Checks for [`crate::outside`] that a status adds no element to the page.
#[cfg(any(test, fuzzing))]
pub(crate) fn try_document(status: &Status) {
    let page = document(status, status.at_unix_ms, "", "");
    // Texts are escaped, so each `<` begins an element of the template.
    for part in page.split('<').skip(1) {
        let name = part.trim_start_matches(['/', '!']);
        let name = name.split([' ', '>']).next().unwrap_or_default();
        assert!(ELEMENTS.contains(&name), "an element {name:?}");
    }
    for part in page.split("href=\"").skip(1) {
        let is_ours = ["status\"", "metrics\"", "health\"", "https://", "http://"]
            .iter()
            .any(|start| part.starts_with(start));
        assert!(is_ours, "a link {part:.80}");
    }
}

/// Elements of the page.
#[cfg(any(test, fuzzing))]
const ELEMENTS: &[&str] = &[
    "DOCTYPE", "a", "body", "code", "footer", "h1", "h2", "head", "header", "html", "li", "main",
    "meta", "noscript", "p", "script", "section", "strong", "style", "table", "tbody", "td", "th",
    "thead", "time", "title", "tr", "ul",
];
