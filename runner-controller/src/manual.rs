//! Manual pages and shell completions, generated from the definition of the command line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, NAMES};

/// Manual section of administrators' commands; see man-pages(7).
const SECTION: &str = "8";

/// Writes the manual pages into a directory: one of the program, one of each visible command, and one
/// of each other name of the program. Returns their paths.
pub fn write_pages(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(dir)?;
    let program = built();
    let mut pages = vec![program.clone()];
    for command in program.get_subcommands() {
        if !command.is_hide_set() && command.get_name() != "help" {
            let name = format!("{}-{}", program.get_name(), command.get_name());
            pages.push(renamed(command, &name));
        }
    }
    pages.extend(other_names());
    pages
        .into_iter()
        .map(|command| {
            let path = dir.join(format!("{}.{SECTION}", command.get_name()));
            let page = clap_mangen::Man::new(command).section(SECTION);
            let mut text = Vec::new();
            page.render(&mut text)?;
            fs::write(&path, text)?;
            Ok(path)
        })
        .collect()
}

/// Writes a shell's completions of the program and its other names into a directory, under the file
/// names that the shell expects. Returns their paths.
pub fn write_completions(shell: Shell, dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(dir)?;
    std::iter::once(Cli::command())
        .chain(other_names())
        .map(|mut command| {
            let name = command.get_name().to_owned();
            clap_complete::generate_to(shell, &mut command, name, dir)
        })
        .collect()
}

/// Returns a command for each other name of the program.
fn other_names() -> Vec<Command> {
    let program = built();
    NAMES
        .iter()
        .filter_map(|(name, command)| Some(renamed(program.find_subcommand(command)?, name)))
        .collect()
}

/// Returns the command line with everything that clap adds: `--help` and the global options.
fn built() -> Command {
    let mut program = Cli::command();
    program.build();
    program
}

fn renamed(command: &Command, name: &str) -> Command {
    // clap needs a `&'static str`. There is a handful of names, so leaking them is cheap.
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    command
        .clone()
        .name(name)
        .bin_name(name)
        .display_name(name)
        .version(env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_name_and_visible_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        write_pages(dir.path()).unwrap();
        let pages = files(dir.path());
        for wanted in [
            "cleanup-all-containers.8",
            "cleanup-github-runners.8",
            "runner-controller-drain.8",
            "runner-controller.8",
            "runner-logs.8",
            "runner-status.8",
        ] {
            assert!(pages.contains(&wanted.to_owned()), "{wanted}: {pages:?}");
        }
        assert!(
            !pages.iter().any(|page| page.contains("launch")),
            "{pages:?}"
        );
        let page = fs::read_to_string(dir.path().join("runner-logs.8")).unwrap();
        for wanted in [".TH runner-logs 8", "\\-\\-follow", "\\-\\-config"] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
    }

    #[test]
    fn every_name_has_completions_in_every_shell() {
        for (shell, options, status, logs) in [
            (
                Shell::Bash,
                "--stay-down",
                "runner-status.bash",
                "runner-logs.bash",
            ),
            (Shell::Zsh, "--stay-down", "_runner-status", "_runner-logs"),
            (
                Shell::Fish,
                "stay-down",
                "runner-status.fish",
                "runner-logs.fish",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            write_completions(shell, dir.path()).unwrap();
            let found = files(dir.path());
            assert_eq!(found.len(), NAMES.len() + 1, "{found:?}");
            for wanted in [status, logs] {
                assert!(found.contains(&wanted.to_owned()), "{wanted}: {found:?}");
            }
            let cleanup = found
                .iter()
                .find(|file| file.contains("all-containers"))
                .unwrap();
            let text = fs::read_to_string(dir.path().join(cleanup)).unwrap();
            assert!(text.contains(options), "{shell}: {text}");
            assert!(text.contains("cleanup-all-containers"), "{shell}: {text}");
        }
    }
}
