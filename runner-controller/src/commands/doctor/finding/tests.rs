use super::*;

fn problem(text: &str) -> Finding {
    Finding::problem("firewall", text, "do this")
}

#[test]
fn the_exit_status_is_that_of_the_status_command() {
    let good = || vec![Finding::good("kernel", "Linux 6.12")];
    assert_eq!(Report::new(good(), true).exit_status(), 0);
    let warned = vec![Finding::warning("clock", "late", "set it")];
    assert_eq!(Report::new(warned, true).exit_status(), 0);
    assert_eq!(Report::new(vec![problem("x")], true).exit_status(), 1);
    assert_eq!(Report::new(good(), false).exit_status(), 2);
}

#[test]
fn a_cause_that_two_checks_find_is_told_once_and_problems_come_first() {
    let found = vec![
        Finding::good("kernel", "Linux 6.12"),
        problem("the table is gone"),
        Finding::problem("daemon", "firewall: the table is gone; restart it", ""),
        Finding::note("images", "the table is gone"),
    ];
    let report = Report::new(found, true);
    let levels: Vec<Level> = report.findings.iter().map(|found| found.level).collect();
    assert_eq!(levels, [Level::Problem, Level::Note, Level::Good]);
    assert_eq!(report.findings[0].area, "firewall");
}

#[test]
fn the_text_ends_with_a_count_and_names_each_fix() {
    let found = vec![problem("gone\u{1b}[2J").fixed_by(Fix::Firewall)];
    let text = Report::new(found, true).text();
    assert_eq!(
        text,
        "problem  firewall: gone\\u{1b}[2J\n         fix: do this\n\
         1 finding: 1 problem, 0 warnings, 0 not checked; `runner-controller doctor --fix` offers repairs\n"
    );
}

#[test]
fn an_installation_of_the_host_files_includes_the_smaller_repairs() {
    let fixes = |list: &[Fix]| {
        let found = list.iter().map(|fix| problem("x").fixed_by(*fix));
        let found = found.enumerate().map(|(number, found)| Finding {
            text: format!("{number}"),
            ..found
        });
        Report::new(found.collect(), true).fixes()
    };
    assert_eq!(
        fixes(&[Fix::Sweep, Fix::Firewall, Fix::Firewall]),
        [Fix::Firewall, Fix::Sweep]
    );
    assert_eq!(
        fixes(&[Fix::Firewall, Fix::Sweep, Fix::Apply, Fix::KernelSettings]),
        [Fix::Apply, Fix::Sweep]
    );
}

#[test]
fn the_shared_checks_keep_key_cause_and_remedy() {
    let found = HostFindings {
        mistakes: vec![Mistake {
            key: "github.token_file".into(),
            wrong: "/t is empty".into(),
            write: "a file that holds the token alone".into(),
        }],
        notes: vec!["runner 2.338.2 starts".into()],
    };
    let found = of_host_check("configuration", found);
    assert_eq!(found[0].text, "github.token_file: /t is empty");
    assert_eq!(
        found[0].hint.as_deref(),
        Some("a file that holds the token alone")
    );
    assert_eq!(found[1].level, Level::Note);
}
