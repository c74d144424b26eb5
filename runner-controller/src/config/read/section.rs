//! A table of the file, read key by key, so that one run reports every mistake.
//!
//! serde stops at the first mistake. An operator who edits a file on a host that does not start needs
//! the whole list.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::{Table, Value};

use crate::config::mistake::{Mistake, Mistakes};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_mins(1);
pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const DAY: Duration = Duration::from_hours(24);

/// Mistakes that were found, shared by all sections of a file.
#[derive(Debug, Default)]
pub(super) struct Report(RefCell<Vec<Mistake>>);

impl Report {
    pub(super) fn add(
        &self,
        key: impl Into<String>,
        wrong: impl Into<String>,
        write: impl Into<String>,
    ) {
        self.0.borrow_mut().push(Mistake {
            key: key.into(),
            wrong: wrong.into(),
            write: write.into(),
        });
    }

    pub(super) fn into_list(self) -> Vec<Mistake> {
        self.0.into_inner()
    }
}

/// Checks the text of a file by `read`. The file's path is for the mistakes alone.
pub(super) fn parse_by<T>(
    file: &Path,
    text: &str,
    read: impl FnOnce(Section<'_>, &Report) -> Option<T>,
) -> Result<T, Mistakes> {
    let report = Report::default();
    let value = match text.parse::<Table>() {
        Ok(table) => read(Section::new("", table, &report), &report),
        Err(error) => {
            report.add(
                "(file)",
                format!("the file is not TOML: {}", error.to_string().trim()),
                "a valid line",
            );
            None
        }
    };
    let list = report.into_list();
    match value {
        Some(value) if list.is_empty() => Ok(value),
        Some(_) | None => Err(Mistakes {
            file: file.to_owned(),
            list,
        }),
    }
}

/// A table from which keys are taken. Keys that are left at the end are unknown.
pub(super) struct Section<'r> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    report: &'r Report,
}

impl<'r> Section<'r> {
    pub(super) fn new(path: impl Into<String>, table: Table, report: &'r Report) -> Self {
        Self {
            path: path.into(),
            table,
            known: Vec::new(),
            report,
        }
    }

    /// Returns the dotted name of a key of this section.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(super) fn wrong(&self, key: &str, wrong: impl Into<String>, write: impl Into<String>) {
        self.report.add(self.key(key), wrong, write);
    }

    /// Reports a mistake at a key of another section.
    pub(super) fn mistake(&self, key: String, wrong: String, write: &str) {
        self.report.add(key, wrong, write);
    }

    /// Takes a value that must exist.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&mut Self, &'static str, &str) -> Option<T>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.wrong(key, "the key is missing", format!("{key} = {example}"));
            return None;
        }
        read(self, key, example)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn mistyped(&self, key: &str, found: &Value, example: &str) {
        self.wrong(
            key,
            format!("the key does not take a value of type {}", found.type_str()),
            format!("{key} = {example}"),
        );
    }

    pub(super) fn text(&mut self, key: &'static str, example: &str) -> Option<String> {
        let value = self.take(key)?;
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.mistyped(key, &value, example);
        }
        text
    }

    /// Takes a text that may be written as a number.
    pub(super) fn text_or_number(&mut self, key: &'static str, example: &str) -> Option<String> {
        match self.table.get(key).and_then(Value::as_integer) {
            Some(number) => {
                self.take(key);
                Some(number.to_string())
            }
            None => self.text(key, example),
        }
    }

    pub(super) fn texts(&mut self, key: &'static str, example: &str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let texts = value.as_array().and_then(|list| {
            list.iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect()
        });
        if texts.is_none() {
            self.mistyped(key, &value, example);
        }
        texts
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        if value.as_bool().is_none() {
            self.mistyped(key, &value, "true");
        }
        value.as_bool()
    }

    /// Takes a whole number within a range.
    pub(super) fn number<T>(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let value = self.take(key)?;
        let number = value
            .as_integer()
            .and_then(|n| T::try_from(n).ok())
            .filter(|n| range.contains(n));
        if number.is_none() {
            self.wrong(
                key,
                format!("{value} is not a whole number in range"),
                format!(
                    "{key} = N, with N from {} to {}",
                    range.start(),
                    range.end()
                ),
            );
        }
        number
    }

    /// Takes a number within a range, whole or with a fraction.
    pub(super) fn decimal(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Option<f64> {
        let value = self.take(key)?;
        let whole = || i32::try_from(value.as_integer()?).ok().map(f64::from);
        let number = value.as_float().or_else(whole);
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = (range.start(), range.end());
            self.wrong(
                key,
                format!("{value} is not a number in range"),
                format!("{key} = N, with N from {low} to {high}"),
            );
        }
        number
    }

    /// Takes a number of cores, whole or with a fraction.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the filter bounds the value to 0.05 to 1024 cores"
    )]
    pub(super) fn millicores(&mut self, key: &'static str) -> Option<u32> {
        let value = self.take(key)?;
        let cores = value
            .as_float()
            .or_else(|| value.as_integer().map(|n| n as f64))
            .filter(|c| (0.05..=1024.0).contains(c));
        if cores.is_none() {
            self.wrong(
                key,
                format!("{value} is not a number of cores"),
                format!("{key} = 1.5, with a number from 0.05 to 1024"),
            );
        }
        cores.map(|cores| (cores * 1000.0).round() as u32)
    }

    /// Takes a text that a type parses.
    pub(super) fn parsed<T>(&mut self, key: &'static str, example: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(key, example)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(
                    key,
                    format!("{text:?} is invalid: {error}"),
                    format!("{key} = {example}"),
                );
                None
            }
        }
    }

    /// Takes a duration with its unit, within a range.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let example = format!("\"{}\"", humantime::format_duration(default));
        let Some(text) = self.text(key, &example) else {
            return default;
        };
        let parsed = humantime::parse_duration(&text).ok();
        parsed.filter(|d| range.contains(d)).unwrap_or_else(|| {
            let (low, high) = (
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end()),
            );
            self.wrong(
                key,
                format!("{text:?} is not a duration from {low} to {high}"),
                format!("{key} = {example}"),
            );
            default
        })
    }

    /// Takes an absolute path. Its characters need no quotes in a unit, a mount option or a rule.
    pub(super) fn path(&mut self, key: &'static str, example: &str) -> Option<PathBuf> {
        let text = self.text(key, example)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=?@".contains(c);
        let is_valid = text.starts_with('/')
            && text.len() <= 512
            && text.chars().all(is_plain)
            && !text
                .split('/')
                .skip(1)
                .any(|part| part.is_empty() || part == "." || part == "..");
        if is_valid {
            return Some(PathBuf::from(text));
        }
        self.wrong(
            key,
            format!("{text:?} is not a plain absolute path"),
            format!("{key} = {example} (letters, digits and ._-+=?@ between single slashes, no . or .. parts)"),
        );
        None
    }

    /// Takes a directory, or returns its default.
    pub(super) fn directory(&mut self, key: &'static str, default: &str) -> PathBuf {
        self.path(key, &format!("{default:?}"))
            .unwrap_or_else(|| PathBuf::from(default))
    }

    /// Takes a table below this one; it is empty if absent.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'r> {
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.mistyped(key, &other, "{ … }, a table");
                Table::new()
            }
        };
        Section::new(self.key(key), table, self.report)
    }

    /// Takes the tables below a key, with their names.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<(String, Section<'r>)> {
        let section = self.section(key);
        let path = section.path.clone();
        section
            .table
            .into_iter()
            .filter_map(|(name, value)| {
                let path = format!("{path}.{name}");
                if let Value::Table(table) = value {
                    return Some((name, Section::new(path, table, self.report)));
                }
                self.report.add(
                    &path,
                    "the key takes a table",
                    format!("a table [{path}], with its keys below"),
                );
                None
            })
            .collect()
    }

    /// Takes a list of tables. The name of each is its place in the list.
    pub(super) fn tables(&mut self, key: &'static str, example: &str) -> Vec<Section<'r>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let list: Option<Vec<Table>> = value
            .as_array()
            .and_then(|list| list.iter().map(|item| item.as_table().cloned()).collect());
        let Some(list) = list else {
            self.mistyped(key, &value, example);
            return Vec::new();
        };
        let path = self.key(key);
        let sections = list.into_iter().enumerate();
        sections
            .map(|(at, table)| Section::new(format!("{path}.{at}"), table, self.report))
            .collect()
    }

    /// Takes a table whose keys are free and whose values are texts.
    pub(super) fn table_of_texts(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> BTreeMap<String, String> {
        let Some(value) = self.take(key) else {
            return BTreeMap::new();
        };
        let texts = value.as_table().and_then(|table| {
            let texts = table.iter().map(|(name, value)| {
                let text = value.as_str()?;
                Some((name.clone(), text.to_owned()))
            });
            texts.collect()
        });
        texts.unwrap_or_else(|| {
            let wrong = "the key takes a table whose values are texts";
            self.wrong(key, wrong, format!("{key} = {example}"));
            BTreeMap::new()
        })
    }

    /// Reports every key that was not taken.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            self.wrong(
                key,
                "the key is unknown",
                format!("one of: {}", self.known.join(", ")),
            );
        }
    }
}
