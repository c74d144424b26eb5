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
use crate::lab::{DAEMON, Lab};

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
        self.early(attacks)?;
        self.lives(attacks)?;
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
                let outcome = self.given(attack, &env, |storm| {
                    storm.changed(change, &env, |storm| {
                        storm.once(attack, &env, |program| {
                            life.run(attack.who, program, "", &env)
                        })
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
                let outcome =
                    self.once(attack, &env, |program| life.run(*who, program, "", &env))?;
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
        self.changed(&Change::Firewall, env, |storm| {
            for attack in stopped {
                let outcome = storm.given(attack, env, |storm| {
                    storm.once(attack, env, |program| {
                        life.run(attack.who, program, "", env)
                    })
                })?;
                storm.control(attack, outcome)?;
            }
            Ok(())
        })
    }

    /// What is given on the host, around a run.
    fn given<T>(
        &mut self,
        attack: &Attack,
        env: &Env,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let around: Vec<&Change> = attack
            .given
            .iter()
            .filter(|change| !change.needs_a_life())
            .collect();
        for change in &around {
            self.remove(change, env)?;
        }
        let outcome = work(self);
        for change in around.iter().rev() {
            self.restore(change, env)?;
        }
        outcome
    }

    /// One wall away, around a run.
    fn changed<T>(
        &mut self,
        change: &Change,
        env: &Env,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.remove(change, env)?;
        let outcome = work(self);
        self.restore(change, env)?;
        outcome
    }

    fn remove(&self, change: &Change, env: &Env) -> Result<()> {
        match change {
            Change::Firewall => {
                for chain in FILTERS {
                    let table = ["nft", "flush", "chain", "inet", "runner_controller", chain];
                    self.lab.host().run(&table)?;
                }
                Ok(())
            }
            Change::Host(command, _) => self.must(command, env),
            Change::Nspawn(_) | Change::Unit(_) | Change::Place(..) | Change::Service(_) => Ok(()),
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
            Change::Nspawn(_) | Change::Unit(_) | Change::Place(..) | Change::Service(_) => Ok(()),
        }
    }

    /// One run, with what is before and after it, judged.
    fn once(
        &self,
        attack: &Attack,
        env: &Env,
        run: impl FnOnce(&[u8]) -> Result<Ran>,
    ) -> Result<Outcome> {
        if let Some(before) = &attack.before {
            self.must(before, env)
                .with_context(|| format!("before {}", attack.name))?;
        }
        let program = self
            .programs
            .get(&attack.name)
            .context("every attack has a program")?;
        let ran = run(program);
        let outcome = match &ran {
            Ok(ran) => self.judge(attack, env, ran),
            Err(error) => Ok(Outcome::Broken(format!("{error:#}"))),
        };
        if let Some(after) = &attack.after {
            self.must(after, env)
                .with_context(|| format!("after {}", attack.name))?;
        }
        outcome
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
        for attack in &here {
            let ran = life.run(attack.who, &self.programs[&attack.name], "plant", &env)?;
            ensure!(
                ran.status == 0,
                "{} plants nothing: {}",
                attack.name,
                ran.said
            );
        }
        life.end_job()?;
        let (_, runner) = scene::start_job(self.lab, "one", "looks")?;
        ensure!(runner.machine == life.machine, "another slot");
        let mut life = Stormed::with_job(self.lab, &runner)?;
        let env = scene::surroundings(&life.machine, &life.leader, self.sibling.as_ref())?;
        for attack in &here {
            let outcome = self.once(attack, &env, |program| {
                life.run(attack.who, program, "look", &env)
            })?;
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
                Control::Without(change @ Change::Host(..)) if attack.place == Place::Bare => {
                    Some(change)
                }
                Control::Without(_) | Control::Impossible(_) => None,
            };
            if attack.place == Place::Bare || change.is_some() {
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
        self.services(attacks)
    }

    /// All attacks of one kind of bare life; those that need a life before it have one.
    fn bare_life<'b>(
        &mut self,
        changes: &[&Change],
        attacks: &[&'b Attack],
    ) -> Result<Vec<(&'b Attack, Outcome)>> {
        let planted = attacks.iter().any(|attack| attack.place == Place::Lives);
        let what = || {
            format!(
                "a life with {:?}",
                changes.iter().map(|c| c.name()).collect::<Vec<_>>()
            )
        };
        let mut life = Bare::start(self.lab, changes).with_context(what)?;
        let env = |life: &Bare, storm: &Self| {
            scene::surroundings(bare::MACHINE, &life.leader, storm.sibling.as_ref())
        };
        if planted {
            let env = env(&life, self)?;
            for attack in attacks.iter().filter(|a| a.place == Place::Lives) {
                let program = &self.programs[&attack.name];
                let ran = life.agent(attack.who).run(program, "plant", &env)?;
                ensure!(
                    ran.status == 0,
                    "{} plants nothing: {}",
                    attack.name,
                    ran.said
                );
            }
            bare::stop(self.lab)?;
            life = Bare::start(self.lab, changes).with_context(what)?;
        }
        let env = env(&life, self)?;
        let mut outcomes = Vec::new();
        for attack in attacks {
            let argument = if attack.place == Place::Lives {
                "look"
            } else {
                ""
            };
            let around: Vec<&Change> = changes
                .iter()
                .copied()
                .chain(&attack.given)
                .filter(|change| !change.needs_a_life())
                .collect();
            for change in &around {
                self.remove(change, &env)?;
            }
            let outcome = self.once(attack, &env, |program| {
                life.agent(attack.who).run(program, argument, &env)
            });
            for change in around.iter().rev() {
                self.restore(change, &env)?;
            }
            outcomes.push((*attack, outcome?));
        }
        bare::stop(self.lab)?;
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
            let outcome = self.once(attack, &env, |_| Ok(ran))?;
            self.control(attack, outcome)?;
        }
        Ok(())
    }

    fn shell(&self, script: &str, env: &Env) -> Result<Output> {
        let script = format!("set -a\n{}set +a\n{script}", assignments(env));
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

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}
