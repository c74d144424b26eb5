//! The three ways in which nft is called: to list the table, to list rules in an empty namespace, and as
//! the long-lived process that owns the table.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStderr, ChildStdin};

use super::TABLE;
use super::error::FirewallError;

/// Flags of a table that has an owner, as nft lists them: `NFT_TABLE_F_OWNER` keeps other programs from
/// changing it, and `NFT_TABLE_F_PERSIST` keeps it when its owner ends (Linux 6.9, nft 1.1).
pub(super) const OWNED: &str = "flags owner,persist";
/// Flags of a table whose owner ended.
const ORPHANED: &str = "flags persist";

/// Timeout for one command of the owner.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The table as nft lists it, without its flags and without the name of its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    text: String,
    flags: String,
}

impl Listing {
    /// Reads a listing. Only the first level of the table is looked at for flags.
    pub(super) fn parse(text: &str) -> Self {
        let mut flags = String::new();
        let mut lines = Vec::new();
        // nft separates flags from rules by an empty line, but not a comment.
        let written = text.lines().filter(|line| !line.is_empty());
        for (number, line) in written.enumerate() {
            match line.strip_prefix('\t') {
                Some(line) if line.starts_with("flags ") => line.clone_into(&mut flags),
                // The first line of a table with an owner ends with `# progname …`.
                None if number == 0 => lines.push(line.split(" # ").next().unwrap_or(line)),
                Some(_) | None => lines.push(line),
            }
        }
        Self {
            text: lines.join("\n"),
            flags,
        }
    }

    /// Returns the rules.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns true if the table has an owner.
    pub(super) fn is_owned(&self) -> bool {
        self.flags == OWNED
    }

    /// Returns true if a process can become the owner without removing the table first.
    pub(super) fn can_be_owned(&self) -> bool {
        self.flags == OWNED || self.flags == ORPHANED
    }
}

/// A listing that nft is writing.
pub(super) struct Pending(Child);

impl Pending {
    /// Waits for the listing; `None` if there is not such a table.
    pub(super) fn wait(self) -> Result<Option<Listing>, FirewallError> {
        let output = self
            .0
            .wait_with_output()
            .map_err(FirewallError::io("wait for nft"))?;
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            return Ok(Some(Listing::parse(&text)));
        }
        let said = first_line(&output.stderr);
        if said.contains("No such file or directory") {
            return Ok(None);
        }
        let what = "to list the table";
        Err(FirewallError::Refused { what, said })
    }
}

/// Starts nft on the loaded table, its sets' elements included, without the numbers of counters.
pub(super) fn begin_list() -> Result<Pending, FirewallError> {
    Command::new("nft")
        .args(["--stateless", "list", "table", "inet", TABLE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map(Pending)
        .map_err(FirewallError::io("run nft"))
}

/// Lists the loaded table.
pub(super) fn list() -> Result<Option<Listing>, FirewallError> {
    begin_list()?.wait()
}

/// Lists the rules of all programs, without the elements of named sets.
pub(super) fn list_all() -> Result<serde_json::Value, FirewallError> {
    let what = "to list the rules of all programs";
    let output = Command::new("nft")
        .args(["--stateless", "--terse", "--json", "list", "ruleset"])
        .stdin(Stdio::null())
        .output()
        .map_err(FirewallError::io("run nft"))?;
    if !output.status.success() {
        let said = first_line(&output.stderr);
        return Err(FirewallError::Refused { what, said });
    }
    serde_json::from_slice(&output.stdout).map_err(|error| FirewallError::Refused {
        what,
        said: error.to_string(),
    })
}

/// Returns the listing of a table that is loaded in an otherwise empty network namespace.
pub(super) fn list_apart(table: &str) -> Result<Listing, FirewallError> {
    // A network namespace belongs to a thread and ends with it.
    let listed = std::thread::scope(|scope| scope.spawn(|| load_apart(table)).join());
    let output = listed
        .unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
        .map_err(FirewallError::io(
            "list the configured rules in a network namespace",
        ))?;
    if !output.status.success() {
        return Err(FirewallError::Refused {
            what: "the configured rules",
            said: first_line(&output.stderr),
        });
    }
    Ok(Listing::parse(&String::from_utf8_lossy(&output.stdout)))
}

fn load_apart(table: &str) -> io::Result<Output> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut load = Command::new("nft")
        .args(["--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = load.stdin.take() {
        stdin.write_all(table.as_bytes())?;
    }
    let loaded = load.wait_with_output()?;
    if !loaded.status.success() {
        return Ok(loaded);
    }
    Command::new("nft")
        .args(["--stateless", "list", "table", "inet", TABLE])
        .stdin(Stdio::null())
        .output()
}

fn first_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    said.lines().next().unwrap_or("no message").to_owned()
}

/// An nft process that reads commands from a pipe. The kernel ties the ownership of a table to the
/// netlink socket of the process that made it, so this process must live as long as the ownership.
pub(super) struct Interactive {
    process: tokio::process::Child,
    commands: ChildStdin,
    said: Lines<BufReader<ChildStderr>>,
    sent: u64,
}

impl Interactive {
    /// Starts the process.
    pub(super) fn start() -> Result<Self, FirewallError> {
        let mut process = tokio::process::Command::new("nft")
            .arg("--interactive")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(FirewallError::io("run nft"))?;
        let (Some(commands), Some(said)) = (process.stdin.take(), process.stderr.take()) else {
            return Err(FirewallError::io("run nft")(io::Error::other(
                "its pipes are missing",
            )));
        };
        Ok(Self {
            process,
            commands,
            said: BufReader::new(said).lines(),
            sent: 0,
        })
    }

    /// Waits until the process ends.
    pub(super) async fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        self.process.wait().await
    }

    /// Loads a file as one transaction.
    pub(super) async fn load(&mut self, file: &Path) -> Result<(), FirewallError> {
        let timeout = || io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(COMMAND_TIMEOUT, self.load_now(file))
            .await
            .unwrap_or_else(|_| Err(FirewallError::io("load the rules by nft")(timeout())))
    }

    async fn load_now(&mut self, file: &Path) -> Result<(), FirewallError> {
        self.sent += 1;
        // nft acknowledges nothing. The second command asks for a chain that does not exist, so its
        // error, which quotes the command, marks the end of what nft wrote about the first.
        let end = format!("end_of_command_{}", self.sent);
        let commands = format!(
            "include \"{}\"\nlist chain inet {TABLE} {end}\n",
            file.display()
        );
        self.commands
            .write_all(commands.as_bytes())
            .await
            .map_err(FirewallError::io("write a command to nft"))?;
        let mut said: Vec<String> = Vec::new();
        loop {
            let line = self
                .said
                .next_line()
                .await
                .map_err(FirewallError::io("read what nft wrote"))?;
            let Some(line) = line else {
                return Err(FirewallError::io("load the rules by nft")(
                    io::Error::other("nft ended"),
                ));
            };
            if line.contains(&end) {
                break;
            }
            said.push(line);
        }
        // The last error is that of the second command.
        let errors = said.iter().filter(|line| line.contains("Error: "));
        if errors.clone().count() <= 1 {
            return Ok(());
        }
        let said = errors.take(1).cloned().collect();
        let what = "the configured rules";
        Err(FirewallError::Refused { what, said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "table inet runner_controller { # progname nft\n\tflags owner,persist\n\tcomment \"rules 1\"\n\n\tset blocked4 {\n\t\tflags interval\n\t}\n}\n";

    #[test]
    fn a_listing_is_compared_without_its_owner() {
        let owned = Listing::parse(LISTED);
        assert!(owned.is_owned() && owned.can_be_owned());
        let plain = LISTED
            .replace(" # progname nft", "")
            .replace("\tflags owner,persist\n", "");
        let plain = Listing::parse(&plain);
        assert_eq!(plain.text(), owned.text());
        assert!(!plain.is_owned() && !plain.can_be_owned());
        assert!(owned.text().contains("flags interval"));
    }

    #[test]
    fn a_dormant_table_is_not_owned() {
        let dormant = Listing::parse(&LISTED.replace("owner,", "dormant,owner,"));
        assert!(!dormant.is_owned());
        let orphaned = Listing::parse(&LISTED.replace("owner,", ""));
        assert!(!orphaned.is_owned() && orphaned.can_be_owned());
    }
}
