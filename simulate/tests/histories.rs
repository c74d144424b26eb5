//! Checks of the simulation itself: it repeats, and it notices every defect that a mutation makes.

use std::collections::BTreeSet;

use clap::ValueEnum as _;
use clap::builder::PossibleValue;
use simulate::history::{Outcome, Scenario, play};
use simulate::invariant::Invariant;
use simulate::mutation::Mutation;

fn scenario(seed: u64) -> Scenario {
    Scenario {
        seed,
        steps: 500,
        traced: true,
        without: Vec::new(),
        mutation: None,
    }
}

fn played(scenario: &Scenario) -> Outcome {
    match play(scenario) {
        Ok(outcome) => outcome,
        Err(error) => panic!("seed {}: {error:#}", scenario.seed),
    }
}

#[test]
fn a_seed_gives_the_same_history_to_the_byte() {
    for seed in [1, 2, 3, 40].into_iter().chain(500..515) {
        let (one, other) = (played(&scenario(seed)), played(&scenario(seed)));
        assert!(one.trace.len() > 100, "the account of seed {seed} is empty");
        let mut lines = one.trace.iter().zip(&other.trace);
        let differing = lines.position(|(one, other)| one != other);
        let around = differing.map(|at| (&one.trace[at.saturating_sub(5)..=at], &other.trace[at]));
        assert_eq!(around, None, "seed {seed}");
        assert!(one == other, "seed {seed}: the figures differ");
    }
    assert_ne!(played(&scenario(1)).trace, played(&scenario(2)).trace);
}

/// Returns the first history in which the mutation is noticed, and the violated invariant.
fn noticed(mutation: Mutation) -> Option<(u64, Invariant)> {
    (1..=400).find_map(|seed| {
        let outcome = played(&Scenario {
            traced: false,
            mutation: Some(mutation),
            ..scenario(seed)
        });
        outcome
            .violation
            .map(|violation| (seed, violation.invariant))
    })
}

#[test]
fn every_mutation_violates_its_invariant() {
    let unnoticed = std::thread::scope(|scope| {
        let threads: Vec<_> = Mutation::value_variants()
            .iter()
            .map(|mutation| (mutation, scope.spawn(|| noticed(*mutation))))
            .collect();
        let outcomes = threads
            .into_iter()
            .map(|(mutation, thread)| (mutation, thread.join().unwrap()));
        outcomes
            .filter(|(mutation, found)| {
                !found.is_some_and(|(_, invariant)| mutation.violates().contains(&invariant))
            })
            .collect::<Vec<_>>()
    });
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn the_table_of_mutations_names_each_of_them() {
    let page = include_str!("../../docs/reliability.md");
    let table = page
        .split("## Invariants and their mutations")
        .nth(1)
        .unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.rsplit('|').nth(1));
    let in_table: BTreeSet<&str> = rows
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let variants = Mutation::value_variants().iter();
    let names: Vec<_> = variants.filter_map(Mutation::to_possible_value).collect();
    let names: BTreeSet<&str> = names.iter().map(PossibleValue::get_name).collect();
    assert_eq!(in_table, names);
}

#[test]
fn every_invariant_has_a_mutation_that_violates_it() {
    for invariant in Invariant::ALL {
        let violates = |mutation: &Mutation| mutation.violates().first() == Some(&invariant);
        let has_mutation = Mutation::value_variants().iter().any(violates);
        assert!(has_mutation, "{invariant:?}");
    }
}
