//! An attack: a program of its own that says in its first lines what it tries, as whom, which wall
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
    /// Its file's name without the ending.
    pub name: String,
    /// The program.
    pub file: PathBuf,
    /// What it tries, in words.
    pub tries: String,
    /// As whom.
    pub who: Who,
    /// Where.
    pub place: Place,
    /// The wall that stops it.
    pub wall: String,
    /// What it then says.
    pub expect: String,
    /// Other walls that are away in a control and in the run it is compared with.
    pub given: Vec<Change>,
    /// What takes the wall away, or why nothing can.
    pub control: Control,
    /// Shell, run on the host before each run.
    pub before: Option<String>,
    /// Shell, run on the host after each run.
    pub after: Option<String>,
    /// Shell on the host that looks whether the attack got what it wanted: 0 with `got `, or 1.
    pub witness: Option<String>,
}

/// As whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The job's user.
    Job,
    /// Root of the container.
    Root,
}

/// In which life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A container with a job.
    Job,
    /// The same in a pool with `docker = true`, where root has more capabilities: those of the network.
    Docker,
    /// Two lives of one slot: run with `plant` in the first, and with `look` in the second.
    Lives,
    /// A container whose runner has not asked for its config.
    Early,
    /// The same, with the first one's sockets and the host's API bound into it.
    Visitor,
    /// A life without an init, started by the launcher with some of its arguments changed.
    Bare,
    /// Two of them, one after the other, as in [`Place::Lives`].
    BareLives,
}

/// What takes a wall away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Our table's filter chains are empty.
    Firewall,
    /// Shell on the host; the second undoes it.
    Host(String, String),
    /// Other arguments of systemd-nspawn.
    Nspawn(Vec<String>),
    /// One capability more than a container has.
    Capability(String),
    /// Lines of the unit's `[Service]`, with `; ` between them.
    Unit(String),
    /// The same program elsewhere, where the wall is not.
    Place(Place, Who),
    /// The same program as a service of the host with these properties, and no container around it.
    Service(Vec<String>),
}

/// The run that shows that the wall is what stops it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// This away, it succeeds.
    Without(Change),
    /// The wall cannot be taken away, for this reason.
    Impossible(String),
}

impl Who {
    /// As it is written and shown.
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
                bail!("where is {other:?}? job, docker, lives, early, visitor, bare or bare-lives")
            }
        })
    }

    /// True if it takes two lives.
    #[must_use]
    pub fn is_two_lives(self) -> bool {
        matches!(self, Self::Lives | Self::BareLives)
    }

    /// True if no job runs there.
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

    /// In a word or two.
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

    /// True if only a life that was started for it can have it.
    #[must_use]
    pub fn needs_a_life(&self) -> bool {
        matches!(self, Self::Nspawn(_) | Self::Capability(_) | Self::Unit(_))
    }
}

impl Attack {
    /// Reads every attack of a directory, by name. Floods come last: what they leave in a queue would
    /// keep those who come after from being answered at all.
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
            given.is_empty() || place.is_bare() || !given.iter().any(Change::needs_a_life),
            "what is given with a life needs a life of its own"
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
            bail!("`{key}:` is no key, or stands there twice");
        }
        Ok(attack)
    }
}

/// `key: value` lines of the first comment; a line that is indented goes on.
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
    fn what_is_given_is_given_to_a_life() {
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
