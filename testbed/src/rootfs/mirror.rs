//! The mirrors that packages come from, and this machine's way to them.

use std::process::Command;

use anyhow::Result;

use crate::bed::run;
use crate::packages::apt;

/// The mirror if this machine's apt knows none.
const DEFAULT: &str = "http://deb.debian.org/debian";

/// A Debian mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The directory that has `dists` and `pool`.
    pub url: String,
    /// apt accepts its index without a signature. Only for a stand-in on this machine.
    pub is_trusted: bool,
}

impl Mirror {
    /// Returns the mirrors to try, in this order: `RUNNER_TESTBED_MIRROR` alone, or the mirror that this
    /// machine's apt uses for Debian and then Debian's own.
    #[must_use]
    pub fn of_machine() -> Vec<Self> {
        if let Ok(url) = std::env::var("RUNNER_TESTBED_MIRROR") {
            return vec![Self::signed(&url)];
        }
        let known = run(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(ORIGIN) $(SITE)",
            "Created-By: Packages",
        ]));
        let mut mirrors: Vec<Self> = known
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.strip_prefix("Debian "))
            .find(|site| !site.contains("security") && site.starts_with("http"))
            .map(Self::signed)
            .into_iter()
            .collect();
        let default = Self::signed(DEFAULT);
        if !mirrors.contains(&default) {
            mirrors.push(default);
        }
        mirrors
    }

    fn signed(url: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            is_trusted: false,
        }
    }

    /// Returns the line of a `sources.list`.
    pub(super) fn source(&self, suite: &str) -> String {
        let options = if self.is_trusted {
            " [trusted=yes]"
        } else {
            ""
        };
        format!("deb{options} {} {suite} main", self.url)
    }
}

/// Returns the options for mmdebstrap's apt, which starts with no settings: this machine's way to its
/// mirrors, and patience.
pub(super) fn apt_settings() -> Result<Vec<String>> {
    const KEPT: &[&str] = &[
        "Acquire::http::Proxy",
        "Acquire::https::Proxy",
        "Acquire::Check-Date",
        "Acquire::Check-Valid-Until",
    ];
    let dump = run(Command::new("apt-config").args([
        "dump",
        "--no-empty",
        "--format",
        "%f \"%v\"%n",
        "Acquire",
    ]))?;
    let machine = dump
        .lines()
        .filter(|line| {
            line.split_whitespace()
                .next()
                .is_some_and(|key| KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(key)))
        })
        .map(str::to_owned);
    let patience = apt::OPTIONS
        .iter()
        .filter_map(|option| option.split_once('='))
        .map(|(key, value)| format!("{key} \"{value}\""));
    // A stand-in for a mirror is on this machine.
    let direct = "Acquire::http::Proxy::127.0.0.1 \"DIRECT\"".to_owned();
    Ok(machine.chain(patience).chain([direct]).collect())
}
