//! `check-config`.

use std::path::Path;

use stdio::print_line;

use super::host_check;
use crate::config::{self, Egress, Mistakes, PoolConfig};

/// Checks a configuration file and prints a summary of it. With `host`, checks the files of this
/// host that it names as well.
pub fn check_config(path: &Path, host: bool) -> anyhow::Result<()> {
    let config = config::load(path)?;
    if host {
        let mut list = Vec::new();
        for found in [
            host_check::lasting(&config, path),
            host_check::correctable(&config),
        ] {
            list.extend(found.mistakes);
            for note in found.notes {
                print_line(format_args!("note: {note}"))?;
            }
        }
        if !list.is_empty() {
            return Err(Mistakes {
                file: path.to_owned(),
                list,
            }
            .into());
        }
    }
    print_line(format_args!("{}: good", path.display()))?;
    for scope in &config.scopes {
        let name = scope.name.as_ref().map(|name| format!(", as scope {name}"));
        print_line(format_args!(
            "host {} registers runners at {} ({}){}",
            config.host,
            scope.scope,
            scope.api_url,
            name.unwrap_or_default()
        ))?;
    }
    for pool in &config.pools {
        let scope = config.scope(&pool.scope);
        if let Some(name) = scope.and_then(|scope| scope.name.as_ref()) {
            print_line(format_args!("pool {}: in scope {name}", pool.name))?;
        }
        let last = pool.offset + u32::from(pool.max_runners) - 1;
        print_line(format_args!(
            "pool {}: {} idle, {} spare, at most {} runners, places {} to {last}, labels {}",
            pool.name,
            pool.min_idle,
            pool.min_spare,
            pool.max_runners,
            pool.offset,
            pool.labels.join(" ")
        ))?;
        for entry in &pool.schedule {
            let numbers = entry.numbers();
            print_line(format_args!(
                "pool {}, {entry}: {} idle, {} spare, at most {} runners",
                pool.name, numbers.min_idle, numbers.min_spare, numbers.max_runners
            ))?;
        }
        print_line(format_args!(
            "pool {}: jobs reach {}",
            pool.name,
            reach(pool)
        ))?;
    }
    for note in config.notes() {
        print_line(format_args!("note: {note}"))?;
    }
    Ok(())
}

/// Describes the destinations that jobs of a pool can reach.
fn reach(pool: &PoolConfig) -> String {
    let allow: Vec<String> = pool.allow.iter().map(ToString::to_string).collect();
    let (reach, and) = match pool.egress {
        Egress::Internet => ("the internet", "and"),
        Egress::Listed => ("the resolvers", "and"),
        Egress::None => ("nothing", "but"),
    };
    if allow.is_empty() {
        return reach.to_owned();
    }
    format!("{reach} {and} {}", allow.join(", "))
}
