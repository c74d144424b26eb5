//! Jobs reach sets by labels, groups and capacity.

use github_sim::{JobSpec, JobState, RunnerGroup, Settings};
use serde_json::json;

use crate::client::{Client, SETS, job, quick, told, with};
use crate::common::{PATIENCE, Sim};

#[test]
fn a_set_is_assigned_no_more_than_its_last_capacity() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    for name in ["one", "two", "three"] {
        sim.control().add_job(job(name));
    }
    // Before the first poll, and with capacity 0, nothing is assigned.
    assert_eq!(session.poll(0, 0).status, 202);
    assert_eq!(
        told(&session.drain(2)),
        [("JobAssigned", "one"), ("JobAssigned", "two")]
    );
    // A smaller capacity revokes nothing, and a larger one brings the backlog.
    assert_eq!(session.drain(1), [json!(null); 0]);
    assert_eq!(sim.control().scale_sets()[0].jobs.len(), 2);
    assert_eq!(told(&session.drain(3)), [("JobAssigned", "three")]);
}

#[test]
fn a_job_reaches_only_a_set_with_all_its_labels() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["CI", "linux"]));
    session.poll(0, 9);
    sim.control()
        .add_job(JobSpec::new("gpu", &["ci", "gpu"], "true"));
    sim.control()
        .add_job(JobSpec::new("both", &["Linux", "ci"], "true"));
    sim.control().add_job(
        JobSpec::new("elsewhere", &["ci"], "true")
            .tap(|job| job.scope = Some("other/widgets".parse().unwrap())),
    );
    assert_eq!(told(&session.drain(9)), [("JobAssigned", "both")]);
}

trait Tap {
    fn tap(self, change: impl FnOnce(&mut Self)) -> Self;
}

impl Tap for JobSpec {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

#[test]
fn sets_with_equal_labels_fill_in_proportion_to_their_capacity() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let small = client.open(client.create("small", &["ci"]));
    let large = client.open(client.create("large", &["ci"]));
    small.poll(0, 1);
    large.poll(0, 5);
    for _ in 0..4 {
        sim.control().add_job(job("one"));
    }
    let held = || {
        sim.control()
            .scale_sets()
            .iter()
            .map(|set| set.jobs.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(held(), [1, 3]);
    for _ in 0..4 {
        sim.control().add_job(job("more"));
    }
    // Both are full, and two jobs wait.
    assert_eq!(held(), [1, 5]);
    small.poll(0, 3);
    assert_eq!(held(), [3, 5]);
}

#[test]
fn a_group_without_public_repositories_gets_no_public_job() {
    let open = RunnerGroup {
        id: 5,
        name: "open".into(),
        visibility: "all".into(),
        repositories: vec![],
        allows_public_repositories: true,
        selected_workflows: None,
        hosted: false,
    };
    let sim = Sim::with(Settings {
        groups: [Settings::default().groups, vec![open]].concat(),
        ..quick()
    });
    let public = || job("public").tap(|job| job.public = true);
    let client = Client::connected(&sim, "acme");
    let closed = client.open(client.create("closed", &["ci"]));
    closed.poll(0, 5);
    sim.control().add_job(public());
    assert_eq!(closed.drain(5), [json!(null); 0]);
    let body =
        json!({"name": "open", "runnerGroupId": 5, "labels": [{"name": "ci", "type": "System"}]});
    let set = client.call("POST", SETS, Some(&body)).json()["id"]
        .as_u64()
        .unwrap();
    assert_eq!(
        told(&client.open(set).drain(5)),
        [("JobAssigned", "public")]
    );
    // A set of a repository is outside of groups.
    let repository = Client::connected(&sim, "acme/widgets");
    let own = repository.open(repository.create("own", &["ci", "own"]));
    own.poll(0, 5);
    sim.control()
        .add_job(public().tap(|job| job.labels = vec!["own".into()]));
    assert_eq!(told(&own.drain(5)), [("JobAssigned", "public")]);
}

#[test]
fn a_group_of_selected_workflows_gets_no_job_of_others() {
    let group = |id, workflow: &str| RunnerGroup {
        id,
        name: workflow.into(),
        visibility: "all".into(),
        repositories: vec![],
        allows_public_repositories: true,
        selected_workflows: Some(vec![format!(
            "acme/widgets/.github/workflows/{workflow}@refs/heads/main"
        )]),
        hosted: false,
    };
    let groups = vec![group(5, "release.yml"), group(6, "ci.yml")];
    let sim = Sim::with(Settings {
        groups: [Settings::default().groups, groups].concat(),
        ..quick()
    });
    let client = Client::connected(&sim, "acme");
    let set = |name: &str, group: u64| {
        let body = json!({"name": name, "runnerGroupId": group, "labels": [{"name": "ci", "type": "System"}]});
        client.call("POST", SETS, Some(&body)).json()["id"]
            .as_u64()
            .unwrap()
    };
    let release = client.open(set("release", 5));
    release.poll(0, 5);
    sim.control().add_job(job("of ci.yml"));
    assert_eq!(release.drain(5), [json!(null); 0]);
    let ci = client.open(set("ci", 6));
    assert_eq!(told(&ci.drain(5)), [("JobAssigned", "of ci.yml")]);
}

#[test]
fn a_job_that_nothing_starts_is_assigned_anew_three_times() {
    let sim = Sim::with(with(|service| service.reassign_after_ms = 0));
    let defaults = github_sim::ScaleSetSettings::default();
    assert_eq!(
        (defaults.reassign_after_ms, defaults.reassign_times),
        (300_000, 3)
    );
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    session.poll(0, 1);
    let id = sim.control().add_job(job("one"));
    let mut items = vec![];
    let since = std::time::Instant::now();
    while items.len() < 7 {
        assert!(since.elapsed() < PATIENCE, "{:?}", told(&items));
        items.extend(session.drain(1));
    }
    let round = [("JobCompleted", "one"), ("JobAssigned", "one")];
    let expected = [vec![("JobAssigned", "one")], round.repeat(3)].concat();
    assert_eq!(told(&items), expected);
    assert!(
        items
            .iter()
            .filter(|item| item["messageType"] == "JobCompleted")
            .all(|item| {
                item["result"] == "canceled" && item["runnerId"] == 0 && item["runnerName"] == ""
            })
    );
    assert_eq!(session.drain(1), [json!(null); 0]);
    assert_eq!(sim.control().job(id).unwrap().status, JobState::Queued);
}

#[test]
fn a_job_that_is_cancelled_before_it_starts_has_an_end() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    session.poll(0, 1);
    let id = sim.control().add_job(job("one"));
    assert!(sim.control().cancel_job(id));
    let answer = session.poll(0, 1);
    assert_eq!(answer.json()["statistics"]["totalAssignedJobs"], 0);
    let items = session.drain(1);
    assert_eq!(
        told(&items),
        [("JobAssigned", "one"), ("JobCompleted", "one")]
    );
    assert_eq!(
        (&items[1]["result"], &items[1]["runnerId"]),
        (&json!("canceled"), &json!(0))
    );
}

#[test]
fn jobs_of_a_lost_set_go_back_to_the_queue() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    client.open(set).poll(0, 1);
    sim.control().add_job(job("one"));
    assert!(sim.control().lose_scale_set(set));
    let session = client.open(client.create("a", &["ci"]));
    session.poll(0, 1);
    assert_eq!(told(&session.drain(1)), [("JobAssigned", "one")]);
}
