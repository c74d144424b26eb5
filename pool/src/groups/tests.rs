//! Problems of runner groups.

use super::*;

fn open(name: &str) -> RunnerGroup {
    RunnerGroup {
        name: name.into(),
        allows_public_repositories: true,
        ..RunnerGroup::default()
    }
}

fn problems(group: RunnerGroup, owner: GroupOwner) -> Vec<GroupProblem> {
    let name = group.name.clone();
    group_problems(&[open("other"), group], &name, owner)
}

#[test]
fn a_group_for_all_jobs_has_no_problem() {
    for owner in [GroupOwner::Organization, GroupOwner::Enterprise] {
        assert_eq!(problems(open("Default"), owner), []);
    }
}

#[test]
fn each_restriction_is_a_problem() {
    use GroupOwner::{Enterprise, Organization};
    use GroupProblem as P;
    let workflows = vec!["acme/widgets/.github/workflows/ci.yml@main".to_owned()];
    let restricted = RunnerGroup {
        workflows: Some(workflows.clone()),
        ..open("fast")
    };
    let closed = RunnerGroup {
        allows_public_repositories: false,
        ..open("fast")
    };
    let with = |visibility| RunnerGroup {
        visibility,
        ..open("fast")
    };
    for (group, owner, expected) in [
        (closed.clone(), Organization, vec![P::NoPublicRepositories]),
        (
            with(GroupVisibility::Selected),
            Organization,
            vec![P::SelectedRepositories],
        ),
        (
            with(GroupVisibility::Selected),
            Enterprise,
            vec![P::SelectedOrganizations],
        ),
        (
            RunnerGroup {
                visibility: GroupVisibility::Private,
                ..closed.clone()
            },
            Organization,
            vec![P::PrivateRepositories],
        ),
        (
            restricted,
            Organization,
            vec![P::SelectedWorkflows { workflows }],
        ),
        (
            RunnerGroup {
                visibility: GroupVisibility::Selected,
                workflows: Some(vec![]),
                ..closed
            },
            Organization,
            vec![
                P::SelectedRepositories,
                P::NoPublicRepositories,
                P::SelectedWorkflows { workflows: vec![] },
            ],
        ),
    ] {
        let found = problems(group.clone(), owner);
        assert_eq!(found, expected, "{group:?}");
        assert!(!found.iter().any(GroupProblem::stops_the_pool));
    }
}

#[test]
fn a_missing_group_is_told_with_a_bounded_number_of_those_that_exist() {
    let groups: Vec<RunnerGroup> = (0..100).map(|n| open(&format!("g{n}"))).collect();
    let found = group_problems(&groups, "fast", GroupOwner::Organization);
    let [problem] = &found[..] else {
        panic!("{found:?}")
    };
    assert!(problem.stops_the_pool());
    let text = problem.to_string();
    assert!(
        text.contains("\"g0\"") && text.contains("\"g9\"") && !text.contains("g10"),
        "{text}"
    );
}

#[test]
fn an_exact_group_name_takes_precedence() {
    let closed = RunnerGroup {
        allows_public_repositories: false,
        ..open("ci")
    };
    let groups = [open("CI"), closed];
    let of = |name| group_problems(&groups, name, GroupOwner::Organization);
    assert_eq!(of("ci"), [GroupProblem::NoPublicRepositories]);
    assert_eq!(of("CI"), []);
    assert_eq!(of("Ci"), []);
}

#[test]
fn a_name_from_github_cannot_control_a_terminal() {
    let groups = [open("a\u{1b}[2Jb")];
    let found = group_problems(&groups, "fast", GroupOwner::Organization);
    assert!(!found[0].to_string().contains('\u{1b}'), "{found:?}");
}

#[test]
fn problems_survive_the_status_document() {
    let all = [
        GroupProblem::Missing {
            seen: vec!["a".into()],
        },
        GroupProblem::NoPublicRepositories,
        GroupProblem::SelectedWorkflows { workflows: vec![] },
    ];
    let text = serde_json::to_string(&all).unwrap();
    assert!(
        text.contains(r#"{"problem":"no_public_repositories"}"#),
        "{text}"
    );
    let read: Vec<GroupProblem> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, all);
}
