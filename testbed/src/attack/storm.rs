//! The order of things: each kind of life is begun once, and has all its attacks.

use std::collections::BTreeMap;
use std::process::Output;

use anyhow::{Context, Result, ensure};

use super::agent::{Ran, assignments};
use super::bare::{self, Bare};
use super::program::{Attack, Change, Control, Place, Who};
use super::report::{Outcome, Row};
use super::scene::{self, Stormed};
use crate::bed::note;
use crate::claims::SOON;
use crate::lab::{DAEMON, Lab, TOKEN};

/// Our table's chains that drop; the one that masquerades stays, as the way to the internet does.
const FILTERS: [&str; 3] = ["arriving", "to_host", "through_host"];
const FIREWALL: &str = "runner-controller-firewall.service";

type Env = BTreeMap<String, String>;

pub(super) struct Storm<'a> {
    lab: &'a Lab,
    programs: &'a BTreeMap<String, Vec<u8>>,
    rows: BTreeMap<String, Row>,
    /// Who lives next door, in every place.
    sibling: Option<Stormed>,
}

impl<'a> Storm<'a> {
    pub(super) fn new(lab: &'a Lab, programs: &'a BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            lab,
            programs,
            rows: BTreeMap::new(),
            sibling: None,
        }
    }

    /// Runs everything; one row for each attack, in their order.
    pub(super) fn run(mut self, attacks: &[Attack]) -> Result<Vec<Row>> {
        scene::await_ready(self.lab)?;
        let (_, target) = scene::start_job(self.lab, "ci", "target")?;
        let (_, sibling) = scene::start_job(self.lab, "ci", "sibling")?;
        let mut target = Stormed::with_job(self.lab, &target)?;
        let mut sibling = Stormed::with_job(self.lab, &sibling)?;
        scene::furnish_sibling(&mut sibling)?;
        self.sibling = Some(sibling);

        note("attacks in a container with a job");
        self.in_place(attacks, Place::Job, &mut target)?;
        self.docker(attacks)?;
        self.early(attacks)?;
        self.lives(attacks)?;
        self.services(attacks)?;
        // From here on lives begin and end that the daemon has not started.
        self.lab.host().run(&["systemctl", "stop", DAEMON])?;
        bare::stop(self.lab)?;
        self.bare(attacks)?;

        let mut rows = Vec::new();
        for attack in attacks {
            let row = self.rows.remove(&attack.name);
            rows.push(row.with_context(|| format!("{} was never run", attack.name))?);
        }
        Ok(rows)
    }

    /// Attacks of one place, and the controls that need no other life.
    fn in_place(&mut self, attacks: &[Attack], place: Place, life: &mut Stormed) -> Result<()> {
        let env = scene::surroundings(&life.machine, &life.leader, self.sibling.as_ref())?;
        for attack in attacks.iter().filter(|attack| attack.place == place) {
            let outcome = self.given(attack, &env, |storm| {
                storm.once(attack, &env, |program| {
                    life.run(attack.who, program, "", &env)
                })
            })?;
            self.rows
                .insert(attack.name.clone(), Row::new(attack, outcome));
            if let Control::Without(change @ Change::Host(..)) = &attack.control {
                let mut all: Vec<&Change> = attack.given.iter().collect();
                all.push(change);
                let outcome = self.changed(&all, &env, |storm| {
                    storm.once(attack, &env, |program| {
                        life.run(attack.who, program, "", &env)
                    })
                })?;
                self.control(attack, outcome)?;
            }
        }
        self.without_firewall(attacks, place, life, &env)?;
        // Controls of other places' attacks.
        for attack in attacks {
            if let Control::Without(Change::Place(there, who)) = &attack.control
                && *there == place
            {
                let outcome = self.once(attack, &env, |program| life.run(*who, program, "", &env));
                self.control(attack, outcome)?;
            }
        }
        Ok(())
    }

    /// The firewall goes once, for all that it stopped in this place.
    fn without_firewall(
        &mut self,
        attacks: &[Attack],
        place: Place,
        life: &mut Stormed,
        env: &Env,
    ) -> Result<()> {
        let stopped: Vec<&Attack> = attacks
            .iter()
            .filter(|attack| attack.place == place)
            .filter(|attack| attack.control == Control::Without(Change::Firewall))
            .collect();
        if stopped.is_empty() {
            return Ok(());
        }
        self.remove(&Change::Firewall, env)?;
        for attack in stopped {
            let outcome = self.given(attack, env, |storm| {
                storm.once(attack, env, |program| {
                    life.run(attack.who, program, "", env)
                })
            })?;
            self.control(attack, outcome)?;
        }
        self.restore(&Change::Firewall, env)
    }

    /// What is given on the host, around a run.
    fn given(
        &mut self,
        attack: &Attack,
        env: &Env,
        work: impl FnOnce(&mut Self) -> Outcome,
    ) -> Result<Outcome> {
        let around: Vec<&Change> = attack
            .given
            .iter()
            .filter(|change| !change.needs_a_life())
            .collect();
        self.changed(&around, env, work)
    }

    /// Changes on the host, around a run. One that cannot be made is the attack's trouble; one that
    /// cannot be undone is everybody's.
    fn changed(
        &mut self,
        changes: &[&Change],
        env: &Env,
        work: impl FnOnce(&mut Self) -> Outcome,
    ) -> Result<Outcome> {
        let made = changes
            .iter()
            .try_for_each(|change| self.remove(change, env));
        let outcome = match &made {
            Ok(()) => work(self),
            Err(error) => Outcome::Broken(format!("{error:#}")),
        };
        for change in changes.iter().rev() {
            let undone = self.restore(change, env);
            if made.is_ok() {
                undone?;
            }
        }
        Ok(outcome)
    }

    fn remove(&self, change: &Change, env: &Env) -> Result<()> {
        match change {
            Change::Firewall => {
                // The kernel lets nothing change a table that has an owner.
                self.lab.host().run(&["systemctl", "stop", FIREWALL])?;
                for chain in FILTERS {
                    let table = ["nft", "flush", "chain", "inet", "runner_controller", chain];
                    self.lab.host().run(&table)?;
                }
                Ok(())
            }
            Change::Host(command, _) => self.must(command, env),
            Change::Nspawn(_)
            | Change::Capability(_)
            | Change::Unit(_)
            | Change::Place(..)
            | Change::Service(_) => Ok(()),
        }
    }

    fn restore(&self, change: &Change, env: &Env) -> Result<()> {
        match change {
            Change::Firewall => self
                .lab
                .host()
                .run(&["systemctl", "restart", FIREWALL])
                .map(drop),
            Change::Host(_, undo) => self.must(undo, env),
            Change::Nspawn(_)
            | Change::Capability(_)
            | Change::Unit(_)
            | Change::Place(..)
            | Change::Service(_) => Ok(()),
        }
    }

    /// One run, with what is before and after it, judged.
    fn once(&self, attack: &Attack, env: &Env, run: impl FnOnce(&[u8]) -> Result<Ran>) -> Outcome {
        let work = || -> Result<Outcome> {
            if let Some(before) = &attack.before {
                self.must(before, env).context("before it")?;
            }
            let program = self.programs.get(&attack.name).context("no program")?;
            let outcome = run(program).and_then(|ran| self.judge(attack, env, &ran));
            if let Some(after) = &attack.after {
                self.must(after, env).context("after it")?;
            }
            outcome
        };
        work().unwrap_or_else(|error| Outcome::Broken(format!("{error:#}")))
    }

    fn judge(&self, attack: &Attack, env: &Env, ran: &Ran) -> Result<Outcome> {
        let Some(witness) = attack.witness.as_ref().filter(|_| ran.status == 0) else {
            return Ok(Outcome::of(ran.status, &ran.said, &attack.expect));
        };
        let output = self.shell(witness, env)?;
        let said = said(&output);
        Ok(Outcome::of(
            output.status.code().unwrap_or(-1),
            &said,
            &attack.expect,
        ))
    }

    fn control(&mut self, attack: &Attack, outcome: Outcome) -> Result<()> {
        self.row(attack)?.control(outcome);
        Ok(())
    }

    fn row(&mut self, attack: &Attack) -> Result<&mut Row> {
        self.rows
            .get_mut(&attack.name)
            .with_context(|| format!("{} has not been run before its control", attack.name))
    }

    /// A container with a job, whose root has the network's capabilities.
    fn docker(&mut self, attacks: &[Attack]) -> Result<()> {
        if !attacks.iter().any(|attack| attack.place == Place::Docker) {
            return Ok(());
        }
        note("attacks in a container with a job that may run docker");
        let (_, runner) = scene::start_job(self.lab, "docker", "docker")?;
        let mut life = Stormed::with_job(self.lab, &runner)?;
        self.in_place(attacks, Place::Docker, &mut life)?;
        life.end_job()
    }

    /// Lives whose runner has not asked for its config: the first slot, and the second, which has
    /// the first one's sockets bound in, as no slot ever has.
    fn early(&mut self, attacks: &[Attack]) -> Result<()> {
        let here = |attack: &Attack| {
            matches!(attack.place, Place::Early | Place::Visitor)
                || matches!(
                    attack.control,
                    Control::Without(Change::Place(Place::Early | Place::Visitor, _))
                )
        };
        if !attacks.iter().any(here) {
            return Ok(());
        }
        note("attacks before a runner has its config");
        self.lab
            .await_status("both slots of pool early", SOON, |status| {
                let booted = |machine: &str| {
                    status
                        .machine(machine)
                        .is_some_and(|runner| runner.invocation.is_some())
                };
                (booted("early-1") && booted("early-2")).then_some(())
            })?;
        for unit in ["runner-early@1.service", "runner-early@2.service"] {
            self.await_active(unit)?;
        }
        let mut visitor = Stormed::without_job(self.lab, "early-2")?;
        self.in_place(attacks, Place::Visitor, &mut visitor)?;
        let mut first = Stormed::without_job(self.lab, "early-1")?;
        self.in_place(attacks, Place::Early, &mut first)
    }

    fn await_active(&self, unit: &str) -> Result<()> {
        crate::wait::wait_until(unit, SOON, || {
            let state = self.lab.show(unit, "ActiveState")?;
            Ok(if state == "active" {
                crate::wait::Seen::Done(())
            } else {
                crate::wait::Seen::NotYet(state)
            })
        })
    }

    /// Two real jobs in one slot, one after the other.
    fn lives(&mut self, attacks: &[Attack]) -> Result<()> {
        let here: Vec<&Attack> = attacks
            .iter()
            .filter(|attack| attack.place == Place::Lives)
            .collect();
        if here.is_empty() {
            return Ok(());
        }
        note("two jobs, one after the other in the same slot");
        let (_, runner) = scene::start_job(self.lab, "one", "plants")?;
        let mut life = Stormed::with_job(self.lab, &runner)?;
        let env = scene::surroundings(&life.machine, &life.leader, self.sibling.as_ref())?;
        let mut planted = BTreeMap::new();
        for attack in &here {
            let program = &self.programs[&attack.name];
            planted.insert(&attack.name, life.run(attack.who, program, "plant", &env)?);
        }
        life.end_job()?;
        let (_, runner) = scene::start_job(self.lab, "one", "looks")?;
        ensure!(runner.machine == life.machine, "another slot");
        let mut life = Stormed::with_job(self.lab, &runner)?;
        let env = scene::surroundings(&life.machine, &life.leader, self.sibling.as_ref())?;
        for attack in &here {
            let outcome = self.once(attack, &env, |program| {
                ensure_planted(&planted[&attack.name])?;
                life.run(attack.who, program, "look", &env)
            });
            self.rows
                .insert(attack.name.clone(), Row::new(attack, outcome));
        }
        life.end_job()
    }

    /// Lives with and without one wall. Those that are alike are one life.
    fn bare(&mut self, attacks: &[Attack]) -> Result<()> {
        let mut with: BTreeMap<Vec<&Change>, Vec<&Attack>> = BTreeMap::new();
        let mut without: BTreeMap<Vec<&Change>, Vec<&Attack>> = BTreeMap::new();
        for attack in attacks {
            let given: Vec<&Change> = attack
                .given
                .iter()
                .filter(|change| change.needs_a_life())
                .collect();
            let change = match &attack.control {
                Control::Without(change) if change.needs_a_life() => Some(change),
                Control::Without(change @ Change::Host(..)) if attack.place.is_bare() => {
                    Some(change)
                }
                Control::Without(_) | Control::Impossible(_) => None,
            };
            if attack.place.is_bare() || change.is_some() {
                with.entry(given.clone()).or_default().push(attack);
            }
            if let Some(change) = change {
                let mut all = given;
                all.push(change);
                without.entry(all).or_default().push(attack);
            }
        }
        note(&format!(
            "{} lives, to compare and without one wall each",
            with.len() + without.len()
        ));
        for (changes, attacks) in with {
            for (attack, outcome) in self.bare_life(&changes, &attacks)? {
                match self.rows.get_mut(&attack.name) {
                    Some(row) => row.compare(outcome),
                    None => {
                        self.rows
                            .insert(attack.name.clone(), Row::new(attack, outcome));
                    }
                }
            }
        }
        for (changes, attacks) in without {
            for (attack, outcome) in self.bare_life(&changes, &attacks)? {
                self.control(attack, outcome)?;
            }
        }
        Ok(())
    }

    /// All attacks of one kind of bare life; those that need a life before it have one.
    fn bare_life<'b>(
        &mut self,
        changes: &[&Change],
        attacks: &[&'b Attack],
    ) -> Result<Vec<(&'b Attack, Outcome)>> {
        let begun = self.bare_outcomes(changes, attacks);
        bare::stop(self.lab)?;
        Ok(begun.unwrap_or_else(|error| {
            // A life that does not begin is the trouble of those that wanted it, and of no others.
            let why = format!("{error:#}");
            let broken = |attack: &&'b Attack| (*attack, Outcome::Broken(why.clone()));
            attacks.iter().map(broken).collect()
        }))
    }

    fn bare_outcomes<'b>(
        &mut self,
        changes: &[&Change],
        attacks: &[&'b Attack],
    ) -> Result<Vec<(&'b Attack, Outcome)>> {
        let env = |life: &Bare, storm: &Self| {
            scene::surroundings(bare::MACHINE, &life.leader, storm.sibling.as_ref())
        };
        let mut life = Bare::start(self.lab, changes)?;
        let mut planted = BTreeMap::new();
        let mut here = env(&life, self)?;
        for attack in attacks.iter().filter(|a| a.place.is_two_lives()) {
            let program = &self.programs[&attack.name];
            let ran = life.agent(attack.who).run(program, "plant", &here)?;
            planted.insert(&attack.name, ran);
        }
        if !planted.is_empty() {
            bare::stop(self.lab)?;
            life = Bare::start(self.lab, changes)?;
            here = env(&life, self)?;
        }
        let mut outcomes = Vec::new();
        for attack in attacks {
            let around: Vec<&Change> = changes
                .iter()
                .copied()
                .chain(&attack.given)
                .filter(|change| !change.needs_a_life())
                .collect();
            let outcome = self.changed(&around, &here, |storm| {
                storm.once(attack, &here, |program| {
                    let mut argument = "";
                    if let Some(ran) = planted.get(&attack.name) {
                        ensure_planted(ran)?;
                        argument = "look";
                    }
                    life.agent(attack.who).run(program, argument, &here)
                })
            })?;
            outcomes.push((*attack, outcome));
        }
        Ok(outcomes)
    }

    /// Controls that have no container at all.
    fn services(&mut self, attacks: &[Attack]) -> Result<()> {
        for attack in attacks {
            let Control::Without(Change::Service(properties)) = &attack.control else {
                continue;
            };
            let program = format!("/run/testbed/{}", attack.name);
            self.lab
                .host()
                .write(&program, &self.programs[&attack.name], 0o755)?;
            let env = scene::surroundings("bare-1", "1", self.sibling.as_ref())?;
            let mut argv = vec!["systemd-run", "--quiet", "--wait", "--pipe", "--collect"];
            argv.extend(properties.iter().map(String::as_str));
            if attack.who == Who::Job {
                argv.push("--uid=nobody");
            }
            argv.extend([program.as_str(), "plant"]);
            let output = self.lab.host().output(&argv)?;
            let ran = Ran {
                status: output.status.code().unwrap_or(-1),
                said: said(&output),
            };
            let outcome = self.once(attack, &env, |_| Ok(ran));
            self.control(attack, outcome)?;
        }
        Ok(())
    }

    fn shell(&self, script: &str, env: &Env) -> Result<Output> {
        // Witnesses and controls may know it; no program in a container is told.
        let script = format!(
            "set -a\n{}TOKEN={TOKEN}\nset +a\n{script}",
            assignments(env)
        );
        self.lab.host().output(&["bash", "-uc", &script])
    }

    fn must(&self, script: &str, env: &Env) -> Result<()> {
        let output = self.shell(script, env)?;
        ensure!(
            output.status.success(),
            "on the host `{script}` ended with {}: {}",
            output.status,
            said(&output)
        );
        Ok(())
    }
}

fn ensure_planted(ran: &Ran) -> Result<()> {
    ensure!(ran.status == 0, "it plants nothing: {}", ran.said);
    Ok(())
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}
