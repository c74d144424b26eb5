//! The screen of a model: title, notices, pools and a list, or the detail of a runner. Changes nothing.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table, TableState, Wrap};

use super::detail;
use super::list::View;
use super::model::{Detail, Model};
use super::rows::header;
use crate::status::{PoolStatus, Status};
use crate::view::{Notice, PoolCounts, Weight, health, notices, scope_state, span};

/// Maximum number of pools above the list. `p` shows each of them.
const POOLS: usize = 5;
/// Keys of a list, for the last line.
const KEYS: &str = "q quit  j/k move  enter detail  tab view  / filter  s sort  r reverse  p pool";
/// Keys of the notices.
const NOTICE_KEYS: &str = "q quit  up/down scroll  tab view  1 runners  2 ended";
/// Keys of a detail.
const DETAIL_KEYS: &str = "q quit  esc back  up/down scroll the log  end newest line";

/// True if the terminal shows colours. They never carry a meaning alone: each problem has a mark, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colours(pub(super) bool);

impl Colours {
    fn of(self, weight: Weight) -> Style {
        match (self.0, weight) {
            (true, Weight::Problem) => Style::new().fg(Color::Red),
            (true, Weight::Closed) => Style::new().fg(Color::Yellow),
            (_, Weight::Fact) | (false, _) => Style::new(),
        }
    }
}

/// Draws the model.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now_unix_ms: u64, colours: Colours) {
    let [title, body, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(frame, title, model, colours);
    let body = draw_error(frame, body, model, now_unix_ms, colours);
    let text = match (&model.detail, model.view) {
        (Some(detail), _) => {
            draw_detail(frame, body, model, detail, colours);
            DETAIL_KEYS
        }
        (None, View::Notices) => {
            draw_notices(frame, body, model, colours);
            NOTICE_KEYS
        }
        (None, View::Runners | View::Ended) => {
            draw_overview(frame, body, model, colours);
            KEYS
        }
    };
    if model.is_typing {
        let text = format!("filter: {}_   enter keep  esc clear", model.filter);
        frame.render_widget(Paragraph::new(text), keys);
    } else {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(text).style(style), keys);
    }
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, model: &Model, colours: Colours) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let Some(status) = &model.status else {
        let text = "runner-controller: waiting for the daemon";
        frame.render_widget(Paragraph::new(text).style(bold), area);
        return;
    };
    let (verdict, weight) = if health(status).healthy {
        ("healthy", Weight::Fact)
    } else {
        ("NOT healthy", Weight::Problem)
    };
    let title = Line::from(vec![
        Span::styled(
            format!("{} at {}: {}, ", status.host, status.scope, status.state),
            bold,
        ),
        Span::styled(verdict, colours.of(weight).add_modifier(Modifier::BOLD)),
    ]);
    frame.render_widget(Paragraph::new(title), area);
}

/// Draws the reason for which the daemon does not answer, if there is one. Returns the rest of the area.
fn draw_error(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    now_unix_ms: u64,
    colours: Colours,
) -> Rect {
    let Some(error) = &model.error else {
        return area;
    };
    let age = model.status.as_ref().map_or_else(String::new, |status| {
        let age = now_unix_ms.saturating_sub(status.at_unix_ms);
        format!(" (below: the status of {} ago)", span(age))
    });
    let [line, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let text = format!("! {error}{age}");
    frame.render_widget(
        Paragraph::new(text).style(colours.of(Weight::Problem)),
        line,
    );
    rest
}

fn draw_overview(frame: &mut Frame<'_>, area: Rect, model: &Model, colours: Colours) {
    let Some(status) = &model.status else { return };
    let told = notices(status);
    // The list has at least half of the screen.
    let room = usize::from(area.height / 2);
    let pools = shown_pools(status, model);
    let pool_lines = pools.len().min(POOLS) + usize::from(pools.len() > POOLS) + 1;
    let notice_lines = room.saturating_sub(pool_lines + 1).max(1).min(told.len());
    let [above, table, line, list] = Layout::vertical([
        Constraint::Length(length(notice_lines)),
        Constraint::Length(length(pool_lines)),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(area);
    let mut lines: Vec<Line<'_>> = told.iter().map(|one| notice(one, colours)).collect();
    if told.len() > notice_lines {
        lines.truncate(notice_lines.saturating_sub(1));
        let more = told.len() - lines.len();
        lines.push(Line::from(format!("  and {more} more: press 3")));
    }
    frame.render_widget(Paragraph::new(lines), above);
    draw_pools(frame, table, &pools, colours);
    draw_list(frame, line, list, model, colours);
}

/// Returns the pools that the model shows.
fn shown_pools<'s>(status: &'s Status, model: &Model) -> Vec<&'s PoolStatus> {
    let pools = status.pools.iter();
    let is_shown = |pool: &&PoolStatus| model.pool.as_ref().is_none_or(|name| pool.name == *name);
    pools.filter(is_shown).collect()
}

fn notice(notice: &Notice, colours: Colours) -> Line<'static> {
    let mark = match notice.weight {
        Weight::Problem => "! ",
        Weight::Closed | Weight::Fact => "  ",
    };
    Line::styled(format!("{mark}{}", notice.text), colours.of(notice.weight))
}

fn draw_pools(frame: &mut Frame<'_>, area: Rect, pools: &[&PoolStatus], colours: Colours) {
    let head = [
        "POOL", "IDLE", "SPARE", "BUSY", "STARTING", "ENDING", "ALL", "FAILED",
    ];
    let mut cells: Vec<Vec<String>> = vec![head.map(str::to_owned).into()];
    for pool in pools.iter().take(POOLS) {
        let counts = PoolCounts::of(pool);
        cells.push(vec![
            pool.name.clone(),
            counts.idle,
            counts.spare,
            counts.busy,
            counts.starting,
            counts.ending,
            counts.all,
            pool.failed.to_string(),
        ]);
    }
    let widths = widths(&cells);
    let is_failing = |index: usize| index > 0 && !pools[index - 1].backoffs.is_empty();
    let rows = cells.into_iter().enumerate().map(|(index, cells)| {
        let style = match index {
            0 => Style::new().add_modifier(Modifier::BOLD),
            _ if is_failing(index) => colours.of(Weight::Problem),
            _ => Style::new(),
        };
        TableRow::new(cells).style(style)
    });
    let mut rows: Vec<TableRow<'_>> = rows.collect();
    if pools.len() > POOLS {
        let more = format!("and {} more: press p", pools.len() - POOLS);
        rows.push(TableRow::new([more]));
    }
    let table = Table::new(rows, widths).column_spacing(2);
    frame.render_widget(table, area);
}

/// Draws a line about the list, and the list.
fn draw_list(frame: &mut Frame<'_>, line: Rect, area: Rect, model: &Model, colours: Colours) {
    let rows = model.rows();
    let order = match model.order.column {
        Some(column) => header(model.view)[column].to_lowercase(),
        None => "as listed".to_owned(),
    };
    let mut about = Vec::new();
    for (number, view) in View::ALL.iter().enumerate() {
        let is_here = *view == model.view;
        let style = Style::new().add_modifier(if is_here {
            Modifier::BOLD | Modifier::UNDERLINED
        } else {
            Modifier::empty()
        });
        about.push(Span::styled(
            format!("{} {}", number + 1, view.name()),
            style,
        ));
        about.push(Span::raw("  "));
    }
    let reversed = if model.order.is_reversed {
        ", reversed"
    } else {
        ""
    };
    about.push(Span::raw(format!(
        "{} rows, order: {order}{reversed}",
        rows.len()
    )));
    if !model.filter.is_empty() {
        about.push(Span::raw(format!(", filter: {}", model.filter)));
    }
    if let Some(pool) = &model.pool {
        about.push(Span::raw(format!(", pool: {pool}")));
    }
    frame.render_widget(Paragraph::new(Line::from(about)), line);

    let head: Vec<String> = header(model.view)
        .iter()
        .map(|&cell| cell.to_owned())
        .collect();
    let mut all = vec![head.clone()];
    all.extend(rows.iter().map(|row| row.cells.clone()));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let body = rows.iter().map(|row| {
        let weight = if row.is_problem {
            Weight::Problem
        } else {
            Weight::Fact
        };
        let mut cells = row.cells.clone();
        if row.is_problem {
            cells[0].push('!');
        }
        TableRow::new(cells.into_iter().map(Cell::from)).style(colours.of(weight))
    });
    let table = Table::new(body, list_widths(&all))
        .header(TableRow::new(head).style(bold))
        .column_spacing(2)
        .highlight_symbol("> ")
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(model.selection(&rows));
    frame.render_stateful_widget(table, area, &mut state);
}

/// Draws every notice, and the scopes if there are several.
fn draw_notices(frame: &mut Frame<'_>, area: Rect, model: &Model, colours: Colours) {
    let Some(status) = &model.status else { return };
    let mut lines: Vec<Line<'_>> = notices(status)
        .iter()
        .map(|one| notice(one, colours))
        .collect();
    let scopes = status.scopes();
    if scopes.len() > 1 {
        lines.extend(scopes.iter().map(|scope| {
            let name = scope.name.as_deref().unwrap_or_default();
            let state = scope_state(scope, status.at_unix_ms);
            Line::from(format!("  scope {name}, {}: {state}", scope.scope))
        }));
    }
    let lines: Vec<Line<'_>> = lines.into_iter().skip(model.first_notice).collect();
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(text, area);
}

fn draw_detail(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    detail: &Detail,
    colours: Colours,
) {
    let facts = detail::facts(model);
    let lines: Vec<Line<'_>> = facts.iter().map(|fact| notice(fact, colours)).collect();
    // The log has at least half of the screen.
    let height = lines.len().min(usize::from(area.height / 2));
    let [above, log] =
        Layout::vertical([Constraint::Length(length(height)), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(lines), above);
    let back = match detail.back {
        0 => String::new(),
        back => format!(", {back} lines back"),
    };
    let block = Block::new()
        .borders(Borders::TOP)
        .title(format!("log of {}{back}", detail.subject.slot));
    let inside = block.inner(log);
    frame.render_widget(block, log);
    let mut shown: Vec<&str> = detail.log.iter().map(String::as_str).collect();
    shown.truncate(shown.len() - detail.back.min(shown.len()));
    let end = detail.log_end.as_deref().filter(|_| detail.back == 0);
    shown.extend(end);
    let first = shown.len().saturating_sub(usize::from(inside.height));
    let lines: Vec<Line<'_>> = shown[first..].iter().map(|line| Line::raw(*line)).collect();
    frame.render_widget(Paragraph::new(lines), inside);
}

fn length(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// Returns the width of each column: that of its widest cell.
fn widths(rows: &[Vec<String>]) -> Vec<Constraint> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| Span::raw(cell).width()).max().unwrap_or(0)
    };
    let widths = (0..columns).map(|column| Constraint::Length(length(width(column))));
    widths.collect()
}

/// Returns the widths of a list. The last column has the rest, and the first one room for a mark.
fn list_widths(rows: &[Vec<String>]) -> Vec<Constraint> {
    let mut widths = widths(rows);
    if let Some(Constraint::Length(first)) = widths.first_mut() {
        *first = first.saturating_add(1);
    }
    if let Some(last) = widths.last_mut() {
        *last = Constraint::Min(10);
    }
    widths
}
