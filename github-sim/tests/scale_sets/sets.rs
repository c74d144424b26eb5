//! Sets and runner groups.

use github_sim::{RunnerGroup, Settings};
use serde_json::{Value, json};

use crate::client::{Client, SETS, kind, quick, with};
use crate::common::Sim;

#[test]
fn a_set_is_created_found_changed_and_deleted() {
    let sim = Sim::start();
    let client = Client::connected(&sim, "acme");
    let body =
        json!({"name": "Linux", "runnerGroupId": 1, "RunnerSetting": {"disableUpdate": true}});
    let made = client.call("POST", SETS, Some(&body)).json();
    assert_eq!(
        made["labels"],
        json!([{"id": 0, "name": "Linux", "type": "System"}])
    );
    assert_eq!(made["RunnerSetting"]["disableUpdate"], true);
    assert_eq!(made["runnerGroupName"], "Default");
    assert_eq!(made["statistics"]["totalAssignedJobs"], 0);
    let id = made["id"].as_u64().unwrap();
    let found = client
        .call("GET", &format!("{SETS}?runnerGroupId=1&name=linux"), None)
        .json();
    assert_eq!(
        (&found["count"], &found["value"][0]["id"]),
        (&json!(1), &json!(id))
    );
    let none = client
        .call("GET", &format!("{SETS}?runnerGroupId=1&name=mac"), None)
        .json();
    assert_eq!(none["count"], 0);
    let path = format!("{SETS}/{id}");
    let change = json!({"RunnerSetting": {"disableUpdate": false}, "name": "linux-2"});
    let changed = client.call("PATCH", &path, Some(&change)).json();
    assert_eq!(
        (&changed["name"], &changed["RunnerSetting"]["disableUpdate"]),
        (&json!("linux-2"), &json!(false))
    );
    assert_eq!(client.call("DELETE", &path, None).status, 204);
    for method in ["GET", "DELETE"] {
        let gone = client.call(method, &path, None);
        assert_eq!(
            (gone.status, kind(&gone).as_str()),
            (404, "RunnerScaleSetNotFoundException")
        );
    }
    assert_ne!(client.create("linux-2", &["ci"]), id);
}

#[test]
fn a_name_is_unique_in_its_group_and_labels_are_not() {
    let sim = Sim::start();
    let client = Client::connected(&sim, "acme");
    client.create("a", &["ci"]);
    let other = client.create("b", &["ci"]);
    let twice = client.call(
        "POST",
        SETS,
        Some(&json!({"name": "A", "runnerGroupId": 1})),
    );
    assert_eq!(
        (twice.status, kind(&twice).as_str()),
        (400, "RunnerScaleSetExistsException")
    );
    let renamed = client.call(
        "PATCH",
        &format!("{SETS}/{other}"),
        Some(&json!({"name": "a"})),
    );
    assert_eq!(kind(&renamed), "RunnerScaleSetExistsException");
}

#[test]
fn labels_of_a_set_do_not_change() {
    let sim = Sim::start();
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["a", "ci", "gpu"]);
    let names = |set: &Value| -> Vec<String> {
        let labels = set["labels"].as_array().unwrap();
        labels
            .iter()
            .map(|label| label["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&client.set(set)), ["a", "ci", "gpu"]);
    let change = json!({"labels": [{"name": "other", "type": "System"}]});
    let changed = client.call("PATCH", &format!("{SETS}/{set}"), Some(&change));
    assert_eq!(
        (changed.status, names(&changed.json())),
        (200, names(&client.set(set)))
    );

    let old = Sim::with(with(|service| service.custom_labels = false));
    let client = Client::connected(&old, "acme");
    let set = client.create("a", &["a", "ci"]);
    assert_eq!(names(&client.set(set)), ["a"]);
}

#[test]
fn unknown_fields_and_empty_names_are_refused() {
    let sim = Sim::start();
    let client = Client::connected(&sim, "acme");
    for body in [
        json!({"name": ""}),
        json!({"runnerGroupId": 1}),
        json!({"name": "a", "maxRunners": 3}),
        json!({"name": "a", "labels": [{"name": " ", "type": "System"}]}),
        json!({"name": "a", "labels": [{"name": "x", "type": "Custom"}]}),
        json!({"name": "a", "labels": ["x"]}),
        json!({"name": "a", "RunnerSetting": {"disableUpdates": true}}),
    ] {
        let refused = client.call("POST", SETS, Some(&body));
        assert_eq!(refused.status, 400, "{body}");
    }
    let nowhere = client.call(
        "POST",
        SETS,
        Some(&json!({"name": "a", "runnerGroupId": 9})),
    );
    assert_eq!(nowhere.status, 404);
    // The whole record, as the reference client sends it.
    let whole = json!({"id": 0, "name": "a", "runnerGroupId": 1, "runnerGroupName": "", "labels": [],
        "createdOn": "0001-01-01T00:00:00Z", "runnerJitConfigUrl": "", "RunnerSetting": {}});
    assert_eq!(client.call("POST", SETS, Some(&whole)).status, 200);
}

#[test]
fn groups_are_found_by_name() {
    let settings = Settings {
        groups: [
            Settings::default().groups,
            vec![RunnerGroup {
                id: 5,
                name: "big".into(),
                visibility: "all".into(),
                repositories: vec![],
                allows_public_repositories: true,
                selected_workflows: None,
                hosted: false,
            }],
        ]
        .concat(),
        ..quick()
    };
    let sim = Sim::with(settings);
    let ask = |client: &Client<'_>, query: &str| {
        client
            .call("GET", &format!("/_apis/runtime/runnergroups/{query}"), None)
            .json()
    };
    let client = Client::connected(&sim, "acme");
    assert_eq!(
        ask(&client, "?groupName=big"),
        json!({"count": 1, "value": [{"id": 5, "name": "big", "size": 0, "isDefaultGroup": false}]})
    );
    assert_eq!(ask(&client, "?groupName=none")["count"], 0);
    assert_eq!(
        ask(&client, "?groupName=default")["value"][0]["isDefaultGroup"],
        true
    );
    let repository = Client::connected(&sim, "acme/widgets");
    assert_eq!(ask(&repository, "")["count"], 1);
    let set = json!({"name": "a", "runnerGroupId": 5});
    assert_eq!(
        client.call("POST", SETS, Some(&set)).json()["runnerGroupName"],
        "big"
    );
}

#[test]
fn a_deleted_set_leaves_its_runners_as_orphans() {
    let sim = Sim::start();
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let runner = client.mint(set, "r1").json()["runner"]["id"]
        .as_u64()
        .unwrap();
    let path = format!("/orgs/acme/actions/runners/{runner}");
    assert_eq!(
        sim.call("GET", &path, None).json()["labels"][0]["name"],
        "ci"
    );
    assert_eq!(
        client.call("DELETE", &format!("{SETS}/{set}"), None).status,
        204
    );
    let orphan = sim.call("GET", &path, None).json();
    assert_eq!(
        (&orphan["labels"], &orphan["os"]),
        (&json!([]), &json!("unknown"))
    );
}
