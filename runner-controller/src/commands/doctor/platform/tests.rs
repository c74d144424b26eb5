use super::super::finding::Level;
use super::*;

fn good() -> PlatformFacts {
    PlatformFacts {
        kernel: "6.12.30+deb13-amd64".into(),
        systemd: Some("systemd 257 (257.9-1)".into()),
        controllers: Some("cpuset cpu io memory hugetlb pids rdma misc\n".into()),
        user_namespaces: Some("95619\n".into()),
    }
}

fn problems(facts: &PlatformFacts) -> Vec<String> {
    let found = judge(facts).into_iter();
    let found = found.filter(|found| found.level == Level::Problem);
    found.map(|found| found.text).collect()
}

#[test]
fn a_host_of_the_tests_has_no_problem() {
    assert_eq!(problems(&good()), [] as [&str; 0]);
}

#[test]
fn each_missing_part_is_named() {
    type Change = fn(&mut PlatformFacts);
    let cases: [(Change, &str); 7] = [
        (
            |facts| facts.kernel = "6.1.0-38-amd64".into(),
            "Linux 6.1.0-38-amd64 is too old",
        ),
        (
            |facts| facts.systemd = Some("systemd 252 (252.39)".into()),
            "systemd 252 is too old",
        ),
        (
            |facts| facts.systemd = None,
            "cannot run `systemctl --version`",
        ),
        (
            |facts| facts.controllers = None,
            "cgroup v2) is not mounted",
        ),
        (
            |facts| facts.controllers = Some("cpu io\n".into()),
            "lacks the controllers memory, pids",
        ),
        (|facts| facts.user_namespaces = None, "no user namespaces"),
        (
            |facts| facts.user_namespaces = Some("0\n".into()),
            "max_user_namespaces is 0",
        ),
    ];
    for (change, words) in cases {
        let mut facts = good();
        change(&mut facts);
        let found = problems(&facts);
        assert!(
            found.len() == 1 && found[0].contains(words),
            "{words}: {found:?}"
        );
    }
    // A new major version has any minor one.
    assert_eq!(kernel("7.0.1").level, Level::Good);
    assert_eq!(kernel("next").level, Level::Skipped);
    assert_eq!(
        systemd(Some("systemd 258~rc2 (258~rc2)")).level,
        Level::Good
    );
}

#[test]
fn a_mount_without_an_id_map_is_a_problem() {
    let judge = |said: Result<&str, &str>| {
        let said = said.map(str::to_owned).map_err(str::to_owned);
        id_map(Path::new("/images/ci"), 268_435_456, &said)
    };
    assert_eq!(judge(Ok("268435456")).level, Level::Good);
    let ignored = judge(Ok("0"));
    assert!(ignored.text.contains("owner 0 after"), "{ignored:?}");
    let refused = judge(Err(
        "x\nmount: /images/ci: mount_setattr failed: Invalid argument.",
    ));
    assert!(refused.text.ends_with("Invalid argument."), "{refused:?}");
}
