//! Properties over random hosts, and over hosts that play the schedule until no job waits.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A random pool: its numbers, and what it has.
fn any_supply(number: usize) -> impl Strategy<Value = PoolSupply> {
    let wanted = (0..2_usize, 0..3_usize, 1..6_usize, any::<bool>());
    let has = (0..3_usize, 0..3_usize, 0..3_usize, 0..2_usize, 0..2_usize);
    (wanted, has, 1..5_u64).prop_map(move |(wanted, has, gib)| {
        let (min_idle, min_spare, max_runners, is_fixed) = wanted;
        let (listeners, spares, busy, ending, taken) = has;
        let runners = listeners + spares + busy + ending;
        let max_runners = max_runners.max(min_idle + min_spare);
        PoolSupply {
            demand: if is_fixed {
                Demand::Fixed
            } else {
                Demand::Webhook
            },
            min_idle,
            min_spare,
            runners,
            ending,
            listeners,
            spares,
            taken: taken.min(busy),
            startable: max_runners.saturating_sub(runners),
            ..supply(number, gib, max_runners)
        }
    })
}

fn any_pools() -> impl Strategy<Value = Vec<PoolSupply>> {
    (any_supply(0), any_supply(1), any_supply(2)).prop_map(|(a, b, c)| vec![a, b, c])
}

/// Pool, time in the queue and repository of waiting jobs.
fn any_jobs() -> impl Strategy<Value = Vec<(usize, u64, bool)>> {
    let job = (0..3_usize, 0..30 * MINUTE_MS, any::<bool>());
    proptest::collection::vec(job, 0..20)
}

fn table_of(jobs: &[(usize, u64, bool)], rules: OrderRules) -> JobTable {
    let mut table = table(3, rules);
    for (id, (pool, queued_unix_ms, other)) in jobs.iter().enumerate() {
        let mut job = waiting(id as u64, *pool, *queued_unix_ms);
        if *other {
            job.description.1.repository = "acme/gadgets".into();
        }
        table.merge(job);
    }
    table
}

fn used(pools: &[PoolSupply]) -> Cost {
    let costs = pools.iter().map(|pool| pool.cost.times(pool.runners));
    costs.fold(Cost::default(), Cost::plus)
}

proptest! {
    /// A schedule starts nothing beyond the budget and the maxima, whatever the host has already.
    #[test]
    fn starts_stay_within_the_budget_and_the_maxima(
        pools in any_pools(), jobs in any_jobs(), gib in 1..40_u64, cap in proptest::option::of(1..3_usize),
    ) {
        let rules = OrderRules { max_per_repository: cap, ..OrderRules::default() };
        let table = table_of(&jobs, rules);
        let budget = memory(gib);
        let schedule = schedule(&pools, Some(&table), &budget, 40 * MINUTE_MS);
        let starts = starts(&schedule, &pools);
        let costs = pools.iter().zip(&starts).map(|(pool, starts)| pool.cost.times(*starts));
        let after = costs.fold(used(&pools), Cost::plus);
        prop_assert!(after == used(&pools) || budget.allows(after), "{after:?}");
        for (pool, starts) in pools.iter().zip(starts) {
            prop_assert!(starts <= pool.startable);
            let target = schedule.targets[&pool.name];
            prop_assert!(target.preempted <= pool.free().saturating_sub(pool.min_idle));
        }
    }

    /// Equal hosts have equal schedules, in whatever order events told of the jobs.
    #[test]
    fn a_schedule_is_deterministic(
        pools in any_pools(), jobs in any_jobs(), gib in 1..40_u64,
    ) {
        let table = table_of(&jobs, OrderRules::default());
        let mut reversed = super::table(3, OrderRules::default());
        for entry in table.in_group(crate::JobGroup::Waiting).rev() {
            reversed.merge(entry.job.clone());
        }
        let one = schedule(&pools, Some(&table), &memory(gib), 40 * MINUTE_MS);
        prop_assert_eq!(&one, &schedule(&pools, Some(&reversed), &memory(gib), 40 * MINUTE_MS));
    }

    /// A job starts a runner before another one that was queued earlier only if that one's runner is larger, or its
    /// pool is full.
    #[test]
    fn the_order_is_kept(jobs in any_jobs(), gib in 1..30_u64, sizes in (1..5_u64, 1..5_u64, 1..5_u64)) {
        let table = table_of(&jobs, OrderRules::default());
        let pools = [supply(0, sizes.0, 99), supply(1, sizes.1, 99), supply(2, sizes.2, 99)];
        let schedule = schedule(&pools, Some(&table), &memory(gib), 40 * MINUTE_MS);
        let size = |entry: &crate::TableEntry| {
            let pool = entry.place.pool();
            pools.iter().find(|supply| Some(&supply.name) == pool).unwrap().cost.memory_bytes
        };
        let mut waiting = Vec::new();
        for entry in table.in_group(crate::JobGroup::Waiting) {
            match schedule.reason(entry) {
                Some(_) => waiting.push(size(entry)),
                None => prop_assert!(waiting.iter().all(|blocked| size(entry) < *blocked)),
            }
        }
    }

    /// A host that plays the schedule serves every job in the end, never exceeds the budget, and has no runner left
    /// without demand. Jobs take the runners of their pool in any order, and last as long as they like.
    #[test]
    fn every_job_is_served_although_new_ones_arrive(
        jobs in any_jobs(), sizes in (1..5_u64, 1..5_u64, 1..5_u64), extra in 0..5_u64,
        choices in proptest::collection::vec(any::<prop::sample::Index>(), 400),
        priorities in any::<bool>(),
    ) {
        let urgent = Priority {
            name: "urgent".into(),
            repositories: vec![Glob::new("acme/gadgets")],
            workflows: Vec::new(),
            jobs: Vec::new(),
            escalate_after: Duration::from_mins(1),
        };
        let rules = OrderRules {
            priorities: if priorities { vec![urgent] } else { Vec::new() },
            ..OrderRules::default()
        };
        let sizes = [sizes.0, sizes.1, sizes.2];
        let budget = memory(sizes.into_iter().max().unwrap_or(1) + extra);
        let mut host = Host::new(&jobs, rules, sizes, budget);
        let mut choices = choices.into_iter();
        while host.served < jobs.len() {
            let Some(choice) = choices.next() else {
                prop_assert!(false, "{} of {} jobs are served", host.served, jobs.len());
                break;
            };
            host.step(choice);
            prop_assert!(budget.allows(used(&host.pools)), "{:?}", host.pools);
        }
    }
}

/// A host that plays the schedule. Every minute a small job arrives that would always fit.
struct Host {
    table: JobTable,
    pools: Vec<PoolSupply>,
    budget: Budget,
    unix_ms: u64,
    /// Number of the jobs at the beginning.
    first: u64,
    /// Number of those that have run.
    served: usize,
    next: u64,
}

impl Host {
    fn new(
        jobs: &[(usize, u64, bool)],
        rules: OrderRules,
        sizes: [u64; 3],
        budget: Budget,
    ) -> Self {
        let pools = sizes.into_iter().enumerate();
        Self {
            table: table_of(jobs, rules),
            pools: pools.map(|(number, gib)| supply(number, gib, 3)).collect(),
            budget,
            unix_ms: 30 * MINUTE_MS,
            first: jobs.len() as u64,
            served: 0,
            next: jobs.len() as u64,
        }
    }

    /// Starts what the schedule says, gives jobs to runners, and ends the jobs of one pool.
    fn step(&mut self, choice: prop::sample::Index) {
        self.unix_ms += MINUTE_MS;
        let smallest = self.pools.iter().enumerate();
        let smallest = smallest.min_by_key(|(_, pool)| pool.cost.memory_bytes);
        let smallest = smallest.map_or(0, |(number, _)| number);
        self.table.merge(waiting(self.next, smallest, self.unix_ms));
        self.next += 1;
        let schedule = schedule(&self.pools, Some(&self.table), &self.budget, self.unix_ms);
        for pool in &mut self.pools {
            let target = schedule.targets[&pool.name];
            let starts = target.max - pool.runners;
            pool.runners += starts;
            pool.listeners += starts;
        }
        let waiting = self.table.in_group(crate::JobGroup::Waiting);
        let waiting: Vec<_> = waiting.cloned().collect();
        for entry in waiting {
            let pool = self.pools.iter_mut();
            let mut pool = pool.filter(|pool| Some(&pool.name) == entry.place.pool());
            let Some(pool) = pool.next().filter(|pool| pool.listeners > 0) else {
                continue;
            };
            pool.listeners -= 1;
            self.served += usize::from(entry.job.key.id < self.first);
            self.table.merge(cancelled(&entry.job));
        }
        // The jobs of one pool end, and its idle runners without demand with them.
        let pool = choice.index(self.pools.len());
        if let Some(pool) = self.pools.get_mut(pool) {
            (pool.runners, pool.listeners) = (0, 0);
        }
        for pool in &mut self.pools {
            pool.startable = pool.max_runners - pool.runners;
        }
    }
}
