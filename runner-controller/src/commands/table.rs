//! Tables of the commands.

use comfy_table::{Table, presets};

/// Space between two columns.
const GAP: u16 = 2;

/// Returns an empty table without borders. Lines are never wrapped, so that names and URLs can be
/// copied and a pipe gets one line for each row.
pub(super) fn table<'h>(header: impl IntoIterator<Item = &'h str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table
}

/// Returns the lines of a table, each with a line break and without space at its end.
pub(super) fn lines(table: &Table) -> String {
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_script_a_job_is_named_in() {
        let mut jobs = table(["RUNNER", "JOB", "EXIT"]);
        jobs.add_row(["ci-1", "prüfen 日本", "status 0"]);
        jobs.add_row(["fuzz-12", "", "signal 9"]);
        assert_eq!(
            lines(&jobs),
            "RUNNER   JOB          EXIT\n\
             ci-1     prüfen 日本  status 0\n\
             fuzz-12               signal 9\n"
        );
    }
}
