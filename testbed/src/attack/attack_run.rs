//! The order of the attacks: each kind of container is started once and has all its attacks.

use std::collections::BTreeMap;
use std::process::Output;

use anyhow::{Context, Result, ensure};

use super::agent::{Ran, assignments};
use super::bare::{self, Bare};
use super::program::{Attack, Change, Control, Place, Who};
use super::report::{Outcome, Row};
use super::scene::{self, Target};
use crate::bed::note;
use crate::claims::SOON;
use crate::lab::{DAEMON, Lab, TOKEN};

/// Chains of our table that drop packets. The chain that masquerades stays, because it is the
/// way to the internet.
const FILTERS: [&str; 3] = ["arriving", "to_host", "through_host"];
const FIREWALL: &str = "runner-controller-firewall.service";

type Env = BTreeMap<String, String>;

pub(super) struct AttackRun<'a> {
    lab: &'a Lab,
    programs: &'a BTreeMap<String, Vec<u8>>,
    rows: BTreeMap<String, Row>,
    /// The neighbour of every place.
    sibling: Option<Target>,
}

impl<'a> AttackRun<'a> {
    pub(super) fn new(lab: &'a Lab, programs: &'a BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            lab,
            programs,
            rows: BTreeMap::new(),
            sibling: None,
        }
    }

    /// Runs all attacks and returns one row for each, in their order.
    pub(super) fn run(mut self, attacks: &[Attack]) -> Result<Vec<Row>> {
        scene::await_ready(self.lab)?;
        let (_, target) = scene::start_job(self.lab, "ci", "target")?;
        let (_, sibling) = scene::start_job(self.lab, "ci", "sibling")?;
        let mut target = Target::with_job(self.lab, &target)?;
        let mut sibling = Target::with_job(self.lab, &sibling)?;
        scene::furnish_sibling(&mut sibling)?;
        self.sibling = Some(sibling);

        note("attacks in a container with a job");
        self.in_place(attacks, Place::Job, &mut target)?;
        self.docker(attacks)?;
        self.early(attacks)?;
        self.containers(attacks)?;
        self.services(attacks)?;
        // From here on, containers start and end that the daemon did not start.
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

    /// Runs the attacks of one place, and the controls that need no other container.
    fn in_place(&mut self, attacks: &[Attack], place: Place, container: &mut Target) -> Result<()> {
        let env =
            scene::surroundings(&container.machine, &container.leader, self.sibling.as_ref())?;
        for attack in attacks.iter().filter(|attack| attack.place == place) {
            let outcome = self.given(attack, &env, |attack_run| {
                attack_run.once(attack, &env, |program| {
                    container.run(attack.who, program, "", &env)
                })
            })?;
            self.rows
                .insert(attack.name.clone(), Row::new(attack, outcome));
            if let Control::Without(change @ Change::Host(..)) = &attack.control {
                let mut all: Vec<&Change> = attack.given.iter().collect();
                all.push(change);
                let outcome = self.changed(&all, &env, |attack_run| {
                    attack_run.once(attack, &env, |program| {
                        container.run(attack.who, program, "", &env)
                    })
                })?;
                self.control(attack, outcome)?;
            }
        }
        self.without_firewall(attacks, place, container, &env)?;
        // Controls of attacks in other places.
        for attack in attacks {
            if let Control::Without(Change::Place(there, who)) = &attack.control
                && *there == place
            {
                let outcome = self.once(attack, &env, |program| {
                    container.run(*who, program, "", &env)
                });
                self.control(attack, outcome)?;
            }
        }
        Ok(())
    }

    /// Removes the firewall once and runs the controls of all attacks that it stopped in this
    /// place.
    fn without_firewall(
        &mut self,
        attacks: &[Attack],
        place: Place,
        container: &mut Target,
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
            let outcome = self.given(attack, env, |attack_run| {
                attack_run.once(attack, env, |program| {
                    container.run(attack.who, program, "", env)
                })
            })?;
            self.control(attack, outcome)?;
        }
        self.restore(&Change::Firewall, env)
    }

    /// Makes the given changes of the host around a run.
    fn given(
        &mut self,
        attack: &Attack,
        env: &Env,
        work: impl FnOnce(&mut Self) -> Outcome,
    ) -> Result<Outcome> {
        let around: Vec<&Change> = attack
            .given
            .iter()
            .filter(|change| !change.needs_a_container())
            .collect();
        self.changed(&around, env, work)
    }

    /// Makes changes of the host around a run. A change that cannot be made fails the attack.
    /// One that cannot be undone fails all of them.
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
                    self.lab
                        .host()
                        .run(&table)
                        .with_context(|| self.of_firewall())?;
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

    /// Returns the tables of the host, and the last words of the firewall's unit.
    fn of_firewall(&self) -> String {
        let tables = self.lab.host().sh("nft list tables").unwrap_or_default();
        format!("tables: {tables}\n{}", self.lab.journal(FIREWALL, 40))
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

    /// Runs a program with its scripts before and after, and returns the result.
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

    /// Runs the attacks in a container whose root has network capabilities.
    fn docker(&mut self, attacks: &[Attack]) -> Result<()> {
        if !attacks.iter().any(|attack| attack.place == Place::Docker) {
            return Ok(());
        }
        note("attacks in a container with a job that may run docker");
        let (_, runner) = scene::start_job(self.lab, "docker", "docker")?;
        let mut container = Target::with_job(self.lab, &runner)?;
        self.in_place(attacks, Place::Docker, &mut container)?;
        container.end_job()
    }

    /// Runs the attacks in containers whose runner has not asked for its config. The second
    /// slot has the sockets of the first bound in, which does not happen outside of this test.
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
        let mut visitor = Target::without_job(self.lab, "early-2")?;
        self.in_place(attacks, Place::Visitor, &mut visitor)?;
        let mut first = Target::without_job(self.lab, "early-1")?;
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

    /// Runs the attacks of two jobs in one slot, one after the other.
    fn containers(&mut self, attacks: &[Attack]) -> Result<()> {
        let here: Vec<&Attack> = attacks
            .iter()
            .filter(|attack| attack.place == Place::Lives)
            .collect();
        if here.is_empty() {
            return Ok(());
        }
        note("two jobs, one after the other in the same slot");
        let (_, runner) = scene::start_job(self.lab, "one", "plants")?;
        let mut container = Target::with_job(self.lab, &runner)?;
        let env =
            scene::surroundings(&container.machine, &container.leader, self.sibling.as_ref())?;
        let mut planted = BTreeMap::new();
        for attack in &here {
            let program = &self.programs[&attack.name];
            planted.insert(
                &attack.name,
                container.run(attack.who, program, "plant", &env)?,
            );
        }
        container.end_job()?;
        let (_, runner) = scene::start_job(self.lab, "one", "looks")?;
        ensure!(runner.machine() == container.machine, "another slot");
        let mut container = Target::with_job(self.lab, &runner)?;
        let env =
            scene::surroundings(&container.machine, &container.leader, self.sibling.as_ref())?;
        for attack in &here {
            let outcome = self.once(attack, &env, |program| {
                ensure_planted(&planted[&attack.name])?;
                container.run(attack.who, program, "look", &env)
            });
            self.rows
                .insert(attack.name.clone(), Row::new(attack, outcome));
        }
        container.end_job()
    }

    /// Runs the attacks in containers with and without one protection. Attacks that need the
    /// same container share it.
    fn bare(&mut self, attacks: &[Attack]) -> Result<()> {
        let mut with: BTreeMap<Vec<&Change>, Vec<&Attack>> = BTreeMap::new();
        let mut without: BTreeMap<Vec<&Change>, Vec<&Attack>> = BTreeMap::new();
        for attack in attacks {
            let given: Vec<&Change> = attack
                .given
                .iter()
                .filter(|change| change.needs_a_container())
                .collect();
            let change = match &attack.control {
                Control::Without(change) if change.needs_a_container() => Some(change),
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
            "{} containers, to compare and without one wall each",
            with.len() + without.len()
        ));
        for (changes, attacks) in with {
            for (attack, outcome) in self.bare_container(&changes, &attacks)? {
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
            for (attack, outcome) in self.bare_container(&changes, &attacks)? {
                self.control(attack, outcome)?;
            }
        }
        Ok(())
    }

    /// Runs all attacks of one kind of bare container. Attacks that need an earlier container
    /// get one.
    fn bare_container<'b>(
        &mut self,
        changes: &[&Change],
        attacks: &[&'b Attack],
    ) -> Result<Vec<(&'b Attack, Outcome)>> {
        let begun = self.bare_outcomes(changes, attacks);
        bare::stop(self.lab)?;
        Ok(begun.unwrap_or_else(|error| {
            // A container that does not start fails only the attacks that need it.
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
        let env = |container: &Bare, attack_run: &Self| {
            scene::surroundings(
                bare::MACHINE,
                &container.leader,
                attack_run.sibling.as_ref(),
            )
        };
        let mut container = Bare::start(self.lab, changes)?;
        let mut planted = BTreeMap::new();
        let mut here = env(&container, self)?;
        for attack in attacks.iter().filter(|a| a.place.needs_two_containers()) {
            let program = &self.programs[&attack.name];
            let ran = container.agent(attack.who).run(program, "plant", &here)?;
            planted.insert(&attack.name, ran);
        }
        if !planted.is_empty() {
            bare::stop(self.lab)?;
            container = Bare::start(self.lab, changes)?;
            here = env(&container, self)?;
        }
        let mut outcomes = Vec::new();
        for attack in attacks {
            let around: Vec<&Change> = changes
                .iter()
                .copied()
                .chain(&attack.given)
                .filter(|change| !change.needs_a_container())
                .collect();
            let outcome = self.changed(&around, &here, |attack_run| {
                attack_run.once(attack, &here, |program| {
                    let mut argument = "";
                    if let Some(ran) = planted.get(&attack.name) {
                        ensure_planted(ran)?;
                        argument = "look";
                    }
                    container.agent(attack.who).run(program, argument, &here)
                })
            })?;
            outcomes.push((*attack, outcome));
        }
        Ok(outcomes)
    }

    /// Runs the controls without a container.
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
            let surroundings: Vec<String> = env
                .iter()
                .map(|(key, value)| format!("--setenv={key}={value}"))
                .collect();
            argv.extend(surroundings.iter().map(String::as_str));
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
        // Witnesses and controls may know the token. A program in a container may not.
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
