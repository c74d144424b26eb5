//! The program: runs the command of its command line and turns the outcome into an exit status.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use runner_controller::cli::{
    Cli, Command, HistoryArgs, NAMES, RelayArgs, SizeArgs, SlotArgs, WebhookTestArgs,
};
use runner_controller::commands::HistoryForm;
use runner_controller::pool::SlotId;
use runner_controller::status::HistoryQuery;
use runner_controller::world::chain;
use runner_controller::{commands, config, firewall, guest, hostfiles, manual, privileged};

fn main() -> ExitCode {
    let cli = Cli::read();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            if let Some(stdio::PrintError::ReaderGone) = error.downcast_ref() {
                return ExitCode::from(stdio::READER_GONE);
            }
            stdio::error(format_args!("runner-controller: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = &cli.config;
    match cli.command {
        Command::Run => commands::run(config)?,
        Command::CheckConfig { file, host } => {
            commands::check_config(&file.unwrap_or(cli.config), host)?;
        }
        Command::Doctor { json, fix, yes } => {
            let options = commands::DoctorOptions { json, fix, yes };
            return commands::doctor(config, options);
        }
        Command::SupportBundle { file } => commands::support_bundle(config, &file)?,
        Command::Apply { binary } => commands::apply(config, binary)?,
        Command::Status {
            wait: Some(limit), ..
        } => return commands::wait_until_ready(config, limit),
        Command::Status {
            watch: true, pool, ..
        } => return commands::watch(config, pool),
        Command::Status {
            json,
            pool,
            all,
            watch: false,
            wait: None,
        } => return commands::status(config, &commands::StatusOptions { json, pool, all }),
        Command::Plan { json } => commands::plan(config, json)?,
        Command::Jobs { json } => commands::jobs(config, json)?,
        Command::WebhookTest(args) => return webhook_test(config, args),
        Command::Logs {
            target,
            kept,
            follow,
            lines,
            host: _,
        } => {
            let options = commands::LogOptions {
                follow,
                lines,
                kept,
            };
            commands::logs(config, target.as_ref(), options)?;
        }
        Command::Docs { page } => commands::docs(page.as_deref())?,
        Command::History(args) => history(config, args)?,
        Command::Size(args) => size(config, args)?,
        Command::Explain {
            subject,
            no_journal,
        } => commands::explain(config, &subject, !no_journal)?,
        Command::Drain { wait, timeout } => return commands::drain(config, wait, timeout),
        Command::Undrain => commands::undrain(config)?,
        Command::CleanupGithubRunners { confirm, scope } => {
            commands::cleanup_github_runners(config, confirm.yes, scope.as_deref())?;
        }
        Command::CleanupAllContainers { confirm, stay_down } => {
            commands::cleanup_all_containers(config, confirm.yes, stay_down)?;
        }
        Command::Units {
            install_root,
            binary,
        } => print_units(config, install_root.as_deref(), binary)?,
        Command::PrepareImage {
            dir,
            sudo,
            nix,
            docker,
            minimal,
        } => {
            let options = guest::Options {
                sudo,
                nix,
                docker,
                minimal,
            };
            for done in guest::prepare_image(&dir, options)? {
                stdio::progress(done);
            }
        }
        Command::Man { dir } => list(manual::write_pages(&dir)?),
        Command::Completions { shell, dir } => list(manual::write_completions(shell, &dir)?),
        Command::CheckFirewall => return as_root(config, |config| Ok(firewall::check(&config)?)),
        Command::Firewall => {
            return as_root(config, |checked| commands::firewall(config, checked));
        }
        Command::Launch(slot) => {
            return Ok(for_slot(config, &slot, |place| {
                vec![privileged::launch(place, config)]
            }));
        }
        Command::HoldMounts => return Ok(exit_code_of(privileged::hold_mounts())),
        Command::RelayReady => return Ok(exit_code_of(privileged::relay_ready())),
        Command::RelayConsole(files) => return Ok(relay_console(files)),
        Command::Connect(slot) => return Ok(connect(config, &slot)),
        Command::Sweep(slot) => return Ok(sweep(config, &slot)),
        Command::SweepUnowned => return Ok(sweep_unowned(config)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies the console of a container.
fn relay_console(files: RelayArgs) -> ExitCode {
    let kept = privileged::KeptFiles {
        last_line: files.last_line,
        listening: files.listening,
        usage: files.usage,
    };
    exit_code_of(privileged::relay_console(&kept, &files.root, &files.link))
}

/// Runs a step with the configuration that root trusts.
fn as_root(
    config: &Path,
    step: impl FnOnce(config::Config) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    match privileged::read_config(config) {
        Ok(config) => step(config).map(|()| ExitCode::SUCCESS),
        Err(error) => Ok(exit_code(&[error])),
    }
}

/// Tests the hook of GitHub's deliveries.
fn webhook_test(config: &Path, args: WebhookTestArgs) -> anyhow::Result<ExitCode> {
    let test = commands::WebhookTest {
        labels: args.labels,
        event: args.event,
        repository: args.repository,
        send: args.send,
    };
    commands::webhook_test(config, &test)
}

/// Shows the runners that ended.
fn history(config: &Path, args: HistoryArgs) -> anyhow::Result<()> {
    let form = match (args.json, args.csv) {
        (true, _) => HistoryForm::Json,
        (false, true) => HistoryForm::Csv,
        (false, false) => HistoryForm::Text,
    };
    let query = HistoryQuery {
        pool: args.pool.map(|pool| pool.to_string()),
        runner: args.runner,
        verdict: args.verdict,
        repository: args.repo,
        failed: args.failed,
        ..HistoryQuery::default()
    };
    commands::history(config, query, args.since, args.lines, form)
}

/// Simulates a host.
fn size(config: &Path, args: SizeArgs) -> anyhow::Result<()> {
    let options = commands::SizeOptions {
        workload: args.workload,
        since: args.since,
        span: args.span,
        target: args.target_wait,
        seed: args.seed,
        cores: args.cores,
        memory: args.memory,
        boot: args.boot,
        register: args.register,
        start_job: args.start_job,
        remove: args.remove,
        json: args.json,
    };
    commands::size(config, &options)
}

/// Prints the files of a host, or installs them below a root directory.
fn print_units(
    config: &Path,
    install_root: Option<&Path>,
    binary: Option<PathBuf>,
) -> anyhow::Result<()> {
    let program = binary.map_or_else(std::env::current_exe, Ok)?;
    let files = hostfiles::render(&config::load(config)?, &program, config);
    let Some(root) = install_root else {
        return Ok(stdio::print(hostfiles::print(&files))?);
    };
    let names = NAMES.map(|(name, _)| name);
    let links = hostfiles::link_names(&names, &program, root)?;
    list(hostfiles::install(&files, root)?.into_iter().chain(links));
    for path in hostfiles::remove_obsolete(root)? {
        stdio::progress(format_args!("removed {}", path.display()));
    }
    Ok(())
}

/// Lists files that were written.
fn list(paths: impl IntoIterator<Item = std::path::PathBuf>) {
    for path in paths {
        stdio::progress(path.display());
    }
}

/// Connects the container of a slot that has started.
fn connect(config: &Path, slot: &SlotArgs) -> ExitCode {
    let step = |place: config::Place<'_>| privileged::connect(place).err().into_iter().collect();
    for_slot(config, slot, step)
}

/// Sweeps a slot, which may no longer be configured.
fn sweep(config: &std::path::Path, slot: &SlotArgs) -> ExitCode {
    match privileged::read_config(config) {
        Ok(config) => exit_code(&privileged::sweep(&config, &slot_id(slot))),
        Err(error) => exit_code(&[error]),
    }
}

/// Sweeps the slots that no pool has any more.
fn sweep_unowned(config: &Path) -> ExitCode {
    match privileged::read_config(config) {
        Ok(config) => exit_code(&privileged::sweep_unowned(&config)),
        Err(error) => exit_code(&[error]),
    }
}

fn slot_id(slot: &SlotArgs) -> SlotId {
    SlotId {
        pool: slot.pool.clone(),
        slot: slot.slot,
    }
}

/// Runs one of root's steps for a slot.
fn for_slot(
    config: &std::path::Path,
    slot: &SlotArgs,
    step: impl FnOnce(config::Place<'_>) -> Vec<privileged::RootError>,
) -> ExitCode {
    let failures = privileged::read_config(config).and_then(|config| {
        let place = privileged::find_place(&config, &slot_id(slot))?;
        Ok(step(place))
    });
    exit_code(&failures.unwrap_or_else(|error| vec![error]))
}

/// Prints a failure and returns its exit status.
fn exit_code_of(outcome: Result<(), privileged::RootError>) -> ExitCode {
    exit_code(outcome.err().as_slice())
}

/// Prints failures. The exit status is that of the first one; the daemon reads it from the unit.
fn exit_code(failures: &[privileged::RootError]) -> ExitCode {
    for error in failures {
        stdio::error(format_args!("runner-controller: {}", chain(error)));
    }
    failures.first().map_or(ExitCode::SUCCESS, |error| {
        ExitCode::from(error.refusal.code())
    })
}
