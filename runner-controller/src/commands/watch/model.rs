//! The state of the screen, and the effect of keys. Knows no terminal.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a key without a meaning here is one of many, and new ones have none either"
)]

use std::collections::VecDeque;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::list::{Subject, View};
use super::rows::{Order, Row, ended_rows, notice_lines, runner_rows};
use crate::status::{Invocation, RunnerStatus, SlotId, Status, VerdictRecord};
use crate::terminal;

/// Maximum number of lines of a log that are kept.
pub(super) const MAX_LINES: usize = 1_000;
/// Maximum number of characters of a line of a log.
const MAX_LINE: usize = 1_000;
/// Maximum number of characters of a filter.
const MAX_FILTER: usize = 40;
/// Number of rows by which a page key moves.
const PAGE: usize = 10;

/// The detail of a runner, with its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detail {
    pub(super) subject: Subject,
    /// The last lines of its log, safe for a terminal.
    pub(super) log: VecDeque<String>,
    /// Reason for which no more lines come.
    pub(super) log_end: Option<String>,
    /// Number of lines by which the log is scrolled back from its end.
    pub(super) back: usize,
}

/// Next step of the program after a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing but showing the screen again.
    Show,
    /// End.
    Quit,
    /// Read the log of a runner.
    ReadLog(Subject),
    /// Read no log any more.
    CloseLog,
}

/// Everything that the screen shows.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The daemon's last answer, safe for a terminal.
    pub(super) status: Option<Status>,
    /// Reason why the daemon does not answer now.
    pub(super) error: Option<String>,
    pub(super) view: View,
    pub(super) order: Order,
    pub(super) filter: String,
    /// True while keys are text of the filter.
    pub(super) is_typing: bool,
    /// The only pool that is shown.
    pub(super) pool: Option<String>,
    /// Key of the selected row, so that the selection stays with its runner.
    pub(super) selected: Option<String>,
    pub(super) detail: Option<Detail>,
    /// Number of the first notice that is shown.
    pub(super) first_notice: usize,
}

impl Model {
    /// Returns a model that shows one pool alone, or all.
    pub(super) fn new(pool: Option<String>) -> Self {
        Self {
            pool,
            ..Self::default()
        }
    }

    /// Takes an answer of the daemon.
    pub(super) fn answered(&mut self, answer: Result<Status, String>) {
        match answer {
            Ok(status) => (self.status, self.error) = (Some(status), None),
            Err(error) => self.error = Some(terminal::plain(&error).into_owned()),
        }
    }

    /// Takes a line of the log that the detail shows. A log that is scrolled back stays where it is.
    pub(super) fn logged(&mut self, line: &str) {
        let Some(detail) = &mut self.detail else {
            return;
        };
        let line: String = line.chars().take(MAX_LINE).collect();
        if detail.log.len() == MAX_LINES {
            detail.log.pop_front();
        }
        detail.log.push_back(terminal::plain(&line).into_owned());
        if detail.back > 0 {
            detail.back = (detail.back + 1).min(MAX_LINES - 1);
        }
    }

    /// Notes that the log has no further lines.
    pub(super) fn log_ended(&mut self, reason: String) {
        if let Some(detail) = &mut self.detail {
            detail.log_end = Some(terminal::plain(&reason).into_owned());
        }
    }

    /// Returns the rows of the list as it is filtered and ordered.
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(status) = &self.status else {
            return Vec::new();
        };
        let is_shown = |slot: &SlotId| {
            let pool = self.pool.as_ref();
            pool.is_none_or(|pool| slot.pool.as_str() == pool)
        };
        let mut rows = match self.view {
            View::Runners => runner_rows(status),
            View::Ended => ended_rows(status),
            View::Notices => Vec::new(),
        };
        let filter = self.filter.to_lowercase();
        rows.retain(|row| is_shown(&row.subject.slot) && row.contains(&filter));
        self.order.sort(&mut rows);
        rows
    }

    /// Returns the number of the selected row. A row that is gone leaves the selection to the first.
    pub(super) fn selection(&self, rows: &[Row]) -> Option<usize> {
        let key = self.selected.as_ref();
        let found = key.and_then(|key| rows.iter().position(|row| row.key == *key));
        found.or_else(|| (!rows.is_empty()).then_some(0))
    }

    /// Returns the runner that the detail shows: while it has a container, and after its end.
    pub(super) fn found(&self) -> (Option<&RunnerStatus>, Option<&VerdictRecord>) {
        let (Some(status), Some(detail)) = (&self.status, &self.detail) else {
            return (None, None);
        };
        let Subject { slot, invocation } = &detail.subject;
        let is_it = |other_slot: &SlotId, other: &Option<Invocation>| {
            other_slot == slot && (invocation.is_none() || other == invocation)
        };
        let mut runners = status.runners();
        let runner = runners.find(|runner| is_it(&runner.slot, &runner.invocation));
        let mut recent = status.recent.iter();
        let ended = recent.find(|ended| is_it(&ended.slot, &ended.invocation));
        (runner, ended.filter(|_| runner.is_none()))
    }

    /// Applies a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Request {
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if with_control && key.code == KeyCode::Char('c') {
            return Request::Quit;
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Request::Show;
        }
        if self.detail.is_some() {
            return self.press_in_detail(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Request::Quit,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('s') => self.order.next(self.view),
            KeyCode::Char('r') => self.order.is_reversed ^= true,
            KeyCode::Char('p') => self.next_pool(),
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(View::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='3') => {
                let number = usize::from(digit as u8 - b'1');
                self.show(View::ALL[number]);
            }
            KeyCode::Enter => return self.open(),
            code => self.scroll(code),
        }
        Request::Show
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER && !c.is_control() => {
                self.filter.push(c);
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            _ => {}
        }
    }

    fn press_in_detail(&mut self, code: KeyCode) -> Request {
        match code {
            KeyCode::Char('q') => return Request::Quit,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Backspace | KeyCode::Left => {
                self.detail = None;
                return Request::CloseLog;
            }
            code => {
                if let Some(detail) = &mut self.detail {
                    let last = detail.log.len().saturating_sub(1);
                    detail.back = match moved(code, last.saturating_sub(detail.back), last) {
                        Some(line) => last - line,
                        None => detail.back,
                    };
                }
            }
        }
        Request::Show
    }

    /// Opens the detail of the selected row.
    fn open(&mut self) -> Request {
        let rows = self.rows();
        let Some(row) = self.selection(&rows).and_then(|index| rows.get(index)) else {
            return Request::Show;
        };
        self.selected = Some(row.key.clone());
        let subject = row.subject.clone();
        self.detail = Some(Detail {
            subject: subject.clone(),
            log: VecDeque::new(),
            log_end: None,
            back: 0,
        });
        Request::ReadLog(subject)
    }

    fn turn(&mut self, by: usize) {
        let now = View::ALL.iter().position(|view| *view == self.view);
        self.show(View::ALL[(now.unwrap_or(0) + by) % View::ALL.len()]);
    }

    fn show(&mut self, view: View) {
        if self.view != view {
            (self.view, self.selected, self.first_notice) = (view, None, 0);
            self.order = Order::default();
        }
    }

    /// Shows the next pool alone, and after the last one all.
    fn next_pool(&mut self) {
        let Some(status) = &self.status else { return };
        let mut names = status.pools.iter().map(|pool| &pool.name);
        self.pool = match &self.pool {
            None => names.next().cloned(),
            Some(shown) => {
                names.find(|name| *name == shown);
                names.next().cloned()
            }
        };
        self.selected = None;
    }

    /// Moves the selection, or the notices.
    fn scroll(&mut self, code: KeyCode) {
        if self.view == View::Notices {
            let last = self.status.as_ref().map_or(0, notice_lines);
            let first = moved(code, self.first_notice, last.saturating_sub(1));
            self.first_notice = first.unwrap_or(self.first_notice);
            return;
        }
        let rows = self.rows();
        let Some(selected) = self.selection(&rows) else {
            return;
        };
        if let Some(index) = moved(code, selected, rows.len() - 1) {
            self.selected = rows.get(index).map(|row| row.key.clone());
        }
    }
}

/// Returns the place to which a key moves; `None` for a key that does not move.
fn moved(code: KeyCode, from: usize, last: usize) -> Option<usize> {
    let to = match code {
        KeyCode::Up | KeyCode::Char('k') => from.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => from + 1,
        KeyCode::PageUp => from.saturating_sub(PAGE),
        KeyCode::PageDown => from + PAGE,
        KeyCode::Home | KeyCode::Char('g') => 0,
        KeyCode::End | KeyCode::Char('G') => last,
        _ => return None,
    };
    Some(to.min(last))
}
