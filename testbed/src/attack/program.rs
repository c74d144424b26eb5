//! An attack: a program that says in its first lines what it tries, as whom, which wall
//! stops it with which words, and what takes that wall away.
//!
//! ```text
//! #!/bin/bash
//! # tries: to ask the metadata service, as every cloud's SDK does
//! # as: job
//! # wall: firewall
//! # expect: no answer
//! # without: firewall
//! ```
//! A program that got what it wanted prints a line that begins with `got ` and ends with 0. One that
//! was refused prints why and ends with 1. Anything else is a broken program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// One attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attack {
    /// Name of the file without its ending.
    pub name: String,
    /// The program.
    pub file: PathBuf,
    /// Purpose in words.
    pub tries: String,
    /// User that runs it.
    pub who: Who,
    /// Container in which it runs.
    pub place: Place,
    /// Protection that stops it.
    pub wall: String,
    /// Words in its output when it is refused.
    pub expect: String,
    /// Other protections that are removed in a control and in the run that it is compared with.
    pub given: Vec<Change>,
    /// Change that removes the protection, or the reason why none can.
    pub control: Control,
    /// Shell script for the host before each run.
    pub before: Option<String>,
    /// Shell script for the host after each run.
    pub after: Option<String>,
    /// Shell script for the host that checks whether the attack succeeded: status 0 with `got
    /// `, or 1.
    pub witness: Option<String>,
}

/// User that runs an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The job's user.
    Job,
    /// Root of the container.
    Root,
}

/// Container in which an attack runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A container with a job.
    Job,
    /// A container with a job in a pool with `docker = true`, where root has network
    /// capabilities.
    Docker,
    /// Two runners of one slot: run with `plant` in the first, and with `look` in the second.
    Lives,
    /// A container whose runner has not asked for its config.
    Early,
    /// The same, with the sockets of the first slot and the host's API bound into it.
    Visitor,
    /// A container without an init, started by the launcher with changed arguments.
    Bare,
    /// Two such containers, one after the other, as in [`Place::Lives`].
    BareLives,
}

/// Change that removes a protection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Our table's filter chains are empty.
    Firewall,
    /// Shell script for the host, and the script that undoes it.
    Host(String, String),
    /// Other arguments of systemd-nspawn.
    Nspawn(Vec<String>),
    /// One capability more than a container has.
    Capability(String),
    /// Lines of the unit's `[Service]`, with `; ` between them.
    Unit(String),
    /// The same program in a place without the protection.
    Place(Place, Who),
    /// The same program as a service of the host with these properties, and no container around it.
    Service(Vec<String>),
}

/// Run that shows that the protection is what stops the attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Without this protection the attack succeeds.
    Without(Change),
    /// The protection cannot be removed, for this reason.
    Impossible(String),
}

impl Who {
    /// Returns the name in files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Root => "root",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "job" => Self::Job,
            "root" => Self::Root,
            other => bail!("as whom is {other:?}? job or root"),
        })
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "job" => Self::Job,
            "docker" => Self::Docker,
            "lives" => Self::Lives,
            "early" => Self::Early,
            "visitor" => Self::Visitor,
            "bare" => Self::Bare,
            "bare-lives" => Self::BareLives,
            other => {
                bail!(
                    "{other:?} is not a place; write job, docker, lives, early, visitor, bare or bare-lives"
                )
            }
        })
    }

    /// Returns true if it needs two containers.
    #[must_use]
    pub fn needs_two_containers(self) -> bool {
        matches!(self, Self::Lives | Self::BareLives)
    }

    /// Returns true if no job runs there.
    #[must_use]
    pub fn is_bare(self) -> bool {
        matches!(self, Self::Bare | Self::BareLives)
    }
}

impl Change {
    fn parse(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        Ok(match kind {
            "firewall" => Self::Firewall,
            "host" => {
                let (remove, restore) = rest
                    .split_once(" undo ")
                    .context("a change on the host says how to undo it")?;
                Self::Host(remove.trim().to_owned(), restore.trim().to_owned())
            }
            "nspawn" => Self::Nspawn(rest.split_whitespace().map(str::to_owned).collect()),
            "capability" => Self::Capability(rest.to_owned()),
            "unit" => Self::Unit(rest.to_owned()),
            "service" => Self::Service(rest.split_whitespace().map(str::to_owned).collect()),
            "place" => {
                let (place, who) = rest.split_once(' ').context("a place, and as whom")?;
                Self::Place(Place::parse(place)?, Who::parse(who)?)
            }
            other => bail!("no change is called {other:?}"),
        })
    }

    /// Returns a short name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Firewall => "empty firewall".into(),
            Self::Host(command, _) => command.clone(),
            Self::Nspawn(arguments) => arguments.join(" "),
            Self::Capability(name) => format!("with {name}"),
            Self::Unit(line) => line.clone(),
            Self::Service(properties) => format!("a service with {}", properties.join(" ")),
            Self::Place(place, who) => format!("{place:?} as {}", who.name()).to_lowercase(),
        }
    }

    /// Returns true if only a container that was started for it can have it.
    #[must_use]
    pub fn needs_a_container(&self) -> bool {
        matches!(self, Self::Nspawn(_) | Self::Capability(_) | Self::Unit(_))
    }
}

impl Attack {
    /// Returns true if the program also runs without the protection.
    #[must_use]
    pub fn has_control(&self) -> bool {
        matches!(self.control, Control::Without(_))
    }

    /// Reads every attack of a directory, sorted by name. Floods come last, because their full
    /// queues would disturb later attacks.
    pub fn read_all(dir: &Path) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let file = entry?.path();
            let text =
                fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            all.push(Self::parse(&file, &text).with_context(|| file.display().to_string())?);
        }
        all.sort_by_key(|attack| (attack.name.starts_with("flood-"), attack.name.clone()));
        Ok(all)
    }

    /// Reads the head of a program.
    pub fn parse(file: &Path, text: &str) -> Result<Self> {
        let name = file
            .file_stem()
            .and_then(|name| name.to_str())
            .context("a program has a name")?;
        let mut head = Head::read(text)?;
        let given: Vec<Change> = head
            .take_all("given")
            .iter()
            .map(|text| Change::parse(text))
            .collect::<Result<_>>()?;
        let control = match (head.take("without"), head.take("no-control")) {
            (Some(change), None) => Control::Without(Change::parse(&change)?),
            (None, Some(why)) => Control::Impossible(why),
            (_, _) => bail!("either one `without:` or one `no-control:`"),
        };
        let place = match head.take("in") {
            Some(place) => Place::parse(&place)?,
            None if given.is_empty() => Place::Job,
            None => Place::Bare,
        };
        ensure!(
            given.is_empty() || place.is_bare() || !given.iter().any(Change::needs_a_container),
            "a change of a container needs `in: bare` or `in: bare-lives`"
        );
        let must = |value: Option<String>, key: &str| {
            value
                .filter(|text| !text.is_empty())
                .ok_or_else(|| anyhow!("no `{key}:`"))
        };
        let attack = Self {
            name: name.to_owned(),
            file: file.to_owned(),
            tries: must(head.take("tries"), "tries")?,
            who: Who::parse(&must(head.take("as"), "as")?)?,
            place,
            wall: must(head.take("wall"), "wall")?,
            expect: must(head.take("expect"), "expect")?,
            given,
            control,
            before: head.take("before"),
            after: head.take("after"),
            witness: head.take("witness"),
        };
        if let Some((key, _)) = head.0.first() {
            bail!("`{key}:` is not a key, or is there twice");
        }
        Ok(attack)
    }
}

/// The `key: value` lines of the first comment. An indented line continues the line before.
struct Head(Vec<(String, String)>);

impl Head {
    fn read(text: &str) -> Result<Self> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            if line.starts_with("#!") {
                continue;
            }
            let Some(line) = line.strip_prefix("# ").or_else(|| line.strip_prefix("// ")) else {
                break;
            };
            if let Some(more) = line.strip_prefix("  ") {
                let (_, value) = pairs.last_mut().context("an indented line goes on")?;
                value.push(' ');
                value.push_str(more.trim());
                continue;
            }
            let (key, value) = line
                .split_once(": ")
                .with_context(|| format!("not `key: value`: {line}"))?;
            pairs.push((key.to_owned(), value.trim().to_owned()));
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    fn take_all(&mut self, key: &str) -> Vec<String> {
        std::iter::from_fn(|| self.take(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Attack> {
        Attack::parse(Path::new("/x/net-lan.sh"), text)
    }

    const HEAD: &str = "#!/bin/sh\n# tries: to reach\n#   the LAN\n# as: job\n# wall: firewall\n# expect: no answer\n";

    #[test]
    fn a_program_says_what_it_is() {
        let attack = parse(&format!("{HEAD}# without: firewall\necho got\n")).unwrap();
        assert_eq!(attack.name, "net-lan");
        assert_eq!(attack.tries, "to reach the LAN");
        assert_eq!(attack.place, Place::Job);
        assert_eq!(attack.control, Control::Without(Change::Firewall));
    }

    #[test]
    fn exactly_one_wall_is_taken_away() {
        let two = format!("{HEAD}# without: firewall\n# without: unit A=b\n");
        assert!(parse(&two).is_err());
        assert!(parse(HEAD).is_err());
        assert!(parse(&format!("{HEAD}# no-control: none\n")).is_ok());
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let text = format!("{HEAD}# without: firewall\n# witnes: true\n");
        assert!(parse(&text).unwrap_err().to_string().contains("witnes"));
    }

    #[test]
    fn given_changes_are_also_made_for_its_control() {
        let text = format!(
            "{HEAD}# given: nspawn --private-users=no\n# without: capability CAP_SYS_TIME\n"
        );
        assert_eq!(parse(&text).unwrap().place, Place::Bare);
        assert!(parse(&format!("{text}# in: job\n")).is_err());
    }

    #[test]
    fn every_program_that_is_here_can_be_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks");
        let all = Attack::read_all(&dir).unwrap();
        let controls = all
            .iter()
            .filter(|attack| matches!(attack.control, Control::Without(_)));
        assert!(all.len() >= 80, "{} attacks", all.len());
        assert!(controls.count() >= 70);
    }

    #[test]
    fn every_program_tests_a_promise() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let model = fs::read_to_string(root.join("../docs/threat-model.md")).unwrap();
        let named: Vec<&str> = model.split('`').skip(1).step_by(2).collect();
        let tests = |attack: &Attack| {
            named.iter().any(|name| {
                *name == attack.name
                    || (name.len() > 1 && name.ends_with('-') && attack.name.starts_with(name))
            })
        };
        let all = Attack::read_all(&root.join("attacks")).unwrap();
        let unnamed: Vec<&Attack> = all.iter().filter(|attack| !tests(attack)).collect();
        assert!(
            unnamed.is_empty(),
            "not in docs/threat-model.md: {unnamed:?}"
        );
    }
}
