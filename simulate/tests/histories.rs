//! What must hold of the simulation itself, and histories that once broke a rule.

use clap::ValueEnum as _;
use simulate::history::{Outcome, Script, play};
use simulate::mutation::Mutation;
use simulate::rule::Rule;

fn script(seed: u64) -> Script {
    Script {
        seed,
        events: 500,
        traced: true,
        without: Vec::new(),
        mutation: None,
    }
}

fn played(script: &Script) -> Outcome {
    match play(script) {
        Ok(outcome) => outcome,
        Err(error) => panic!("seed {}: {error:#}", script.seed),
    }
}

#[test]
fn a_seed_is_one_history_to_the_byte() {
    for seed in [1, 2, 3, 40, 500] {
        let (one, other) = (played(&script(seed)), played(&script(seed)));
        assert!(one.trace.len() > 100, "seed {seed} tells nothing");
        assert_eq!(one, other, "seed {seed}");
    }
    assert_ne!(played(&script(1)).trace, played(&script(2)).trace);
}

/// Each found something; `docs/reliability.md` says what.
#[test]
fn seeds_that_found_something_break_no_rule_any_more() {
    for seed in [
        2, 5, 7, 13, 55, 138, 187, 502, 604, 947, 1597, 6615, 9346, 12_332, 17_844,
    ] {
        let outcome = played(&script(seed));
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

/// The first history in which somebody notices that a rule is not kept.
fn noticed(mutation: Mutation) -> Option<(u64, Rule)> {
    (1..=400).find_map(|seed| {
        let outcome = played(&Script {
            traced: false,
            mutation: Some(mutation),
            ..script(seed)
        });
        outcome.violation.map(|broken| (seed, broken.rule))
    })
}

#[test]
fn every_rule_that_is_broken_on_purpose_is_noticed() {
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
                !found.is_some_and(|(_, rule)| mutation.breaks().contains(&rule))
            })
            .collect::<Vec<_>>()
    });
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn every_rule_has_a_mutation_that_breaks_it() {
    for rule in Rule::ALL {
        let breaks = |mutation: &Mutation| mutation.breaks().first() == Some(&rule);
        assert!(Mutation::value_variants().iter().any(breaks), "{rule:?}");
    }
}
