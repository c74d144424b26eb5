use super::super::finding::Level;
use super::*;
use crate::config::testing;
use crate::pool::RunnerId;

fn listed(name: &str, online: bool, labels: &[&str]) -> LabelledRunner {
    LabelledRunner {
        runner: ListedRunner {
            id: RunnerId(1),
            name: name.into(),
            online,
            busy: false,
            version: None,
        },
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    }
}

fn refused(kind: RegistryErrorKind, message: &str, advice: Option<&str>) -> RegistryError {
    RegistryError {
        operation: "list runners",
        kind,
        status: None,
        message: message.into(),
        advice: advice.map(str::to_owned),
        request_id: None,
        retry_after: None,
    }
}

fn facts(config: &Config, list: Vec<LabelledRunner>) -> ScopeFacts<'_> {
    ScopeFacts {
        config: &config.scopes[0],
        list: Ok(list),
        write: Ok(()),
        groups: None,
        clock_ahead_ms: Some(400),
    }
}

fn of_level(found: &[Finding], level: Level) -> Vec<&str> {
    let found = found.iter().filter(|found| found.level == level);
    found.map(|found| found.text.as_str()).collect()
}

#[test]
fn a_scope_in_order_has_no_problem() {
    let config = testing::config();
    let found = judge(&config, &facts(&config, vec![]), &Some(BTreeSet::new()));
    assert!(
        found.iter().all(|found| found.level == Level::Good),
        "{found:?}"
    );
}

#[test]
fn a_token_that_may_read_and_not_write_is_a_problem_with_its_permission() {
    let config = testing::config();
    let mut facts = facts(&config, vec![]);
    let advice = "the token needs administration=write";
    let message = "HTTP 403: Resource not accessible by personal access token";
    let error = refused(RegistryErrorKind::Forbidden, message, Some(advice));
    facts.write = Err(error.clone());
    let found = judge(&config, &facts, &None);
    assert!(
        found[0].text.starts_with("cannot change the runners of "),
        "{found:?}"
    );
    assert_eq!(found[0].hint.as_deref(), Some(advice));
    // Without a list, nothing else can be judged.
    facts.list = Err(error);
    assert_eq!(judge(&config, &facts, &None).len(), 1);
}

#[test]
fn a_clock_is_judged_by_what_depends_on_it() {
    let mut config = testing::config().scopes.remove(0);
    assert_eq!(clock(&config, -9_000).level, Level::Good);
    let late = clock(&config, 90_000);
    assert_eq!(late.level, Level::Warning);
    assert_eq!(late.text, "this host's clock is 90 s behind GitHub's");
    config.login = LoginConfig::App {
        id: "1".into(),
        key_file: "/key".into(),
    };
    assert_eq!(clock(&config, -90_000).level, Level::Problem);
}

#[test]
fn a_missing_group_stops_and_a_restriction_does_not() {
    let config = testing::config();
    let pools: Vec<&PoolConfig> = config.pools.iter().collect();
    let level = |groups: Vec<RunnerGroup>| {
        group_findings(&pools, GroupOwner::Organization, &Ok(groups))[0].level
    };
    let group = RunnerGroup {
        name: config.pools[0].runner_group.clone(),
        allows_public_repositories: true,
        ..RunnerGroup::default()
    };
    assert_eq!(level(vec![]), Level::Problem);
    assert_eq!(level(vec![group.clone()]), Level::Good);
    let closed = RunnerGroup {
        allows_public_repositories: false,
        ..group
    };
    assert_eq!(level(vec![closed]), Level::Note);
}

#[test]
fn runners_of_other_programs_with_a_pools_labels_are_told() {
    let mut config = testing::config();
    config.pools[0].labels = vec!["self-hosted".into(), "fuzz".into()];
    let list = vec![
        listed("laptop", false, &["Self-Hosted", "Linux", "fuzz"]),
        listed("other-ci-1-0000beef", true, &["self-hosted", "fuzz"]),
        listed("mac", true, &["self-hosted"]),
    ];
    let found = judge(&config, &facts(&config, list), &Some(BTreeSet::new()));
    let warned = of_level(&found, Level::Warning);
    assert!(
        warned.len() == 1 && warned[0].contains("ci: laptop, so"),
        "{found:?}"
    );
}

#[test]
fn pools_with_the_same_labels_compete_and_a_larger_set_takes_jobs_of_the_smaller() {
    let mut config = testing::config();
    config.pools.push(testing::pool("big", 4));
    config.pools[0].labels = vec!["a".into()];
    config.pools[1].labels = vec!["A".into()];
    assert_eq!(of_level(&pool_labels(&config), Level::Warning).len(), 1);
    config.pools[1].labels.push("b".into());
    let found = pool_labels(&config);
    assert_eq!(
        of_level(&found, Level::Note),
        ["pool big has all labels of pool ci, so it takes jobs of both"]
    );
    config.pools[0].labels.push("c".into());
    assert_eq!(pool_labels(&config), []);
}

#[test]
fn another_host_with_this_name_is_a_problem_and_a_stale_registration_a_warning() {
    let config = testing::config();
    let host = &config.host;
    let list = |online| vec![listed(&format!("{host}-ci-1-0000beef"), online, &[])];
    let judged = |online, owned: &Owned| judge(&config, &facts(&config, list(online)), owned);
    let none = Some(BTreeSet::new());
    assert_eq!(of_level(&judged(true, &none), Level::Problem).len(), 1);
    assert_eq!(of_level(&judged(false, &none), Level::Warning).len(), 1);
    let owned = Some(BTreeSet::from([format!("{host}-ci-1-0000beef")]));
    assert_eq!(
        of_level(&judged(true, &owned), Level::Problem),
        [] as [&str; 0]
    );
    assert_eq!(of_level(&judged(true, &None), Level::Skipped).len(), 1);
}
