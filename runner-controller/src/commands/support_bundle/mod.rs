//! `support-bundle`: an archive about this host for another engineer, without secrets.
//!
//! Every part is text, has its terminal controls escaped and its secrets removed, and is bounded. A part that
//! cannot be had says why, and does not stop the others.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::common::{api_socket, block_on, forbid_core_dumps};
use super::{doctor, history, kept_logs};
use crate::config::{self, Config};
use crate::hostfiles;
use crate::http::client;
use crate::redact::Redactor;
use crate::status::HistoryQuery;
use crate::terminal;

/// Maximum size of a part. The end of a longer text is kept, because journals end with the newest lines.
const MAX_PART_BYTES: usize = 4 << 20;
/// Number of ended runners.
const RUNNERS: usize = 500;
/// Name of the directory in the archive.
const DIRECTORY: &str = "support-bundle";
const READ_ME: &str = "A support bundle of runner-controller. Secrets were removed by value and by shape, as \
    \"[redacted]\". Names of repositories, workflows, jobs, hosts and addresses are in it.\n";
/// Caution for a bundle of a host whose secret files are not known.
const BY_SHAPE_ALONE: &str = "The configuration is not valid, so this host's secrets are not known by their values, \
    and were removed by their shapes alone.\n";

/// Programs whose output is a part: its name and the command.
const COMMANDS: [(&str, &[&str]); 17] = [
    (
        "journal/daemon.txt",
        &[
            "journalctl",
            "--no-pager",
            "--output=short-iso",
            "--lines=5000",
            "--unit=runner-controller",
        ],
    ),
    (
        "journal/firewall.txt",
        &[
            "journalctl",
            "--no-pager",
            "--output=short-iso",
            "--lines=1000",
            "--unit=runner-controller-firewall",
        ],
    ),
    (
        "journal/runners.txt",
        &[
            "journalctl",
            "--no-pager",
            "--output=short-iso",
            "--lines=5000",
            "--unit=runner-*@*.service",
        ],
    ),
    (
        "journal/kernel.txt",
        &[
            "journalctl",
            "--no-pager",
            "--output=short-iso",
            "--lines=1000",
            "--dmesg",
        ],
    ),
    (
        "units/list.txt",
        &["systemctl", "--no-pager", "list-units", "--all", "runner*"],
    ),
    (
        "units/daemon.txt",
        &[
            "systemctl",
            "--no-pager",
            "cat",
            "runner-controller",
            "runner-controller-firewall",
            "runner-controller-mounts.socket",
            "runner-controller-mounts",
        ],
    ),
    (
        "units/daemon-state.txt",
        &[
            "systemctl",
            "--no-pager",
            "show",
            "runner-controller",
            "runner-controller-firewall",
            "runner-controller-mounts.socket",
            "runner-controller-mounts",
        ],
    ),
    ("host/kernel.txt", &["uname", "-a"]),
    ("host/systemd.txt", &["systemctl", "--version"]),
    ("host/os-release.txt", &["cat", "/etc/os-release"]),
    ("host/memory.txt", &["cat", "/proc/meminfo"]),
    (
        "host/pressure.txt",
        &[
            "cat",
            "/proc/pressure/cpu",
            "/proc/pressure/memory",
            "/proc/pressure/io",
        ],
    ),
    (
        "host/disks.txt",
        &["df", "--human-readable", "--print-type"],
    ),
    ("host/mounts.txt", &["cat", "/proc/self/mountinfo"]),
    ("host/links.txt", &["ip", "-brief", "address"]),
    ("host/routes.txt", &["ip", "route"]),
    ("host/firewall.txt", &["nft", "list", "ruleset"]),
];

/// A part of the archive.
struct Part {
    name: &'static str,
    text: String,
}

/// Writes an archive (tar, gzip) that only its owner can read. Fails if the file exists.
pub fn support_bundle(config_path: &Path, file: &Path) -> anyhow::Result<()> {
    forbid_core_dumps()?;
    let config = config::load(config_path);
    let redactor = redactor(config.as_ref().ok())?;
    let out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot create {}", file.display()))?;
    let mut parts = of_config(config_path, config.as_ref().ok());
    parts.extend(of_daemon(config_path)?);
    parts.push(Part {
        name: "doctor.txt",
        text: or_reason(doctor::report_text(config_path)),
    });
    parts.extend(of_logs());
    parts.extend(COMMANDS.map(|(name, argv)| Part {
        name,
        text: run(argv),
    }));
    let written = write(out, &parts, &redactor);
    if written.is_err() {
        // An incomplete archive must not be taken for a whole one.
        let _ = fs::remove_file(file);
    }
    written?;
    if config.is_err() {
        stdio::progress(BY_SHAPE_ALONE.trim_end());
    }
    stdio::print_line(format_args!(
        "wrote {}: secrets are removed; look through it before you pass it on",
        file.display()
    ))?;
    Ok(())
}

/// Returns a redactor of every secret that the configuration names.
fn redactor(config: Option<&Config>) -> anyhow::Result<Redactor> {
    let mut contents = Vec::new();
    for file in config.iter().flat_map(|config| config.secret_files()) {
        match fs::read_to_string(file) {
            Ok(content) => contents.push(content),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // Without the secret, it cannot be found in other texts.
            Err(error) => bail!(
                "cannot read the secret in {}, so it cannot be removed from other texts: {error}; run this as root",
                file.display()
            ),
        }
    }
    Redactor::new(contents.iter().map(String::as_str)).context("cannot read the shapes of secrets")
}

fn of_config(path: &Path, config: Option<&Config>) -> Vec<Part> {
    let text = or_reason(fs::read_to_string(path).map_err(Into::into));
    let mut parts = vec![
        Part {
            name: "README.txt",
            text: match config {
                Some(_) => READ_ME.to_owned(),
                None => READ_ME.to_owned() + BY_SHAPE_ALONE,
            },
        },
        Part {
            name: "config.toml",
            text,
        },
    ];
    if let Some(config) = config {
        let files = hostfiles::render(config, Path::new("/"), path);
        let mut text = String::new();
        for file in files {
            let installed = or_reason(fs::read_to_string(&file.path).map_err(Into::into));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# {}\n{installed}", file.path.display());
        }
        parts.push(Part {
            name: "units/host-files.txt",
            text,
        });
    }
    parts
}

fn of_daemon(config_path: &Path) -> anyhow::Result<Vec<Part>> {
    let socket = api_socket(config_path);
    let status = block_on(client::status(&socket))?;
    let status = status
        .map_err(anyhow::Error::new)
        .and_then(|status| Ok(serde_json::to_string_pretty(&status)?));
    let runners = block_on(history::read(&socket, HistoryQuery::default(), RUNNERS))?;
    let runners = runners
        .map_err(anyhow::Error::new)
        .and_then(|runners| Ok(serde_json::to_string_pretty(&runners)?));
    Ok(vec![
        Part {
            name: "status.json",
            text: or_reason(status),
        },
        Part {
            name: "history.json",
            text: or_reason(runners),
        },
    ])
}

/// Returns the list of kept log files, and the newest ones.
fn of_logs() -> [Part; 2] {
    let bundles = kept_logs::bundles();
    let newest = match &bundles {
        Ok(bundles) => bundles.first().map(|bundle| kept_logs::text(&bundle.name)),
        Err(_) => None,
    };
    let list = bundles.map(|bundles| {
        let lines = bundles
            .iter()
            .map(|bundle| format!("{:>10}  {}\n", bundle.bytes, bundle.name));
        lines.collect()
    });
    [
        Part {
            name: "logs/list.txt",
            text: or_reason(list),
        },
        Part {
            name: "logs/newest.txt",
            text: newest.map_or_else(|| "no log files are kept\n".to_owned(), or_reason),
        },
    ]
}

/// Returns the text, or the reason why there is none.
fn or_reason(text: anyhow::Result<String>) -> String {
    text.unwrap_or_else(|error| format!("not there: {error:#}\n"))
}

/// Returns what a program wrote. The numbers of lines bound it.
fn run(argv: &[&str]) -> String {
    let output = Command::new("timeout")
        .arg("30")
        .args(argv)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).into_owned()
        }
        Err(error) => format!("not there: cannot run {}: {error}\n", argv.join(" ")),
    }
}

/// Returns a part's text as it goes into the archive.
fn finished(text: &str, redactor: &Redactor) -> String {
    // Secrets go first, because neither their value nor their shape is known by a half of one.
    let text = redactor.redact(text);
    let start = text.ceil_char_boundary(text.len().saturating_sub(MAX_PART_BYTES));
    let lines = text[start..]
        .lines()
        .map(|line| terminal::plain(line).into_owned() + "\n");
    lines.collect()
}

/// Writes the parts to a directory that only this user can enter, and the directory as an archive.
fn write(out: File, parts: &[Part], redactor: &Redactor) -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("cannot create a temporary directory")?;
    for Part { name, text } in parts {
        let path = dir.path().join(DIRECTORY).join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).context("cannot create a temporary directory")?;
        }
        fs::write(&path, finished(text, redactor))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let output = Command::new("tar")
        .args(["--create", "--gzip", "--file=-", "--directory"])
        .arg(dir.path())
        .args(["--owner=0", "--group=0", DIRECTORY])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .context("cannot run tar")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("cannot write the archive: {}", said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "github_pat_11ABCDEFG0abcdefghij_0123456789";

    #[test]
    fn an_archive_is_free_of_a_token_that_is_in_every_part() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bundle.tar.gz");
        let redactor = Redactor::new(["a hook's own secret"].into_iter()).unwrap();
        let parts = COMMANDS.map(|(name, _)| Part {
            name,
            text: format!("a {TOKEN} b a hook's own secret c\u{1b}[2J\n"),
        });
        write(File::create(&file).unwrap(), &parts, &redactor).unwrap();
        let listed = Command::new("tar")
            .arg("-xzOf")
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(
            text.matches("a [redacted] b [redacted] c\\u{1b}[2J\n")
                .count(),
            parts.len()
        );
        assert!(!text.contains("pat_11"), "{text}");
    }

    #[test]
    fn the_newest_end_of_a_long_text_is_kept() {
        let redactor = Redactor::new([].into_iter()).unwrap();
        let text = format!("{}\nlast ü\n", "é\n".repeat(MAX_PART_BYTES));
        let kept = finished(&text, &redactor);
        assert!(kept.len() <= MAX_PART_BYTES && kept.ends_with("last ü\n"));
    }

    #[test]
    fn a_secret_at_the_cut_of_a_long_text_is_removed_whole() {
        let redactor = Redactor::new(["a hook's own secret"].into_iter()).unwrap();
        let text = format!("a hook's own secret{}", "é".repeat(MAX_PART_BYTES / 2 - 5));
        let kept = finished(&text, &redactor);
        assert!(!kept.contains("secret"), "{}", &kept[..40]);
    }

    #[test]
    fn a_program_that_is_missing_is_told() {
        assert!(run(&["/no/such/program"]).contains("/no/such/program"));
    }
}
