use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::retention::{MAX_BUNDLES, surplus};
use super::*;
use crate::world::Invocation;

const HOUR_MS: u64 = 3_600_000;

fn name(slot: &str, ended_unix_ms: u64) -> BundleName {
    BundleName {
        ended_unix_ms,
        slot: slot.parse().unwrap(),
        invocation: Invocation::parse(&format!("{ended_unix_ms:032x}")).unwrap(),
    }
}

fn bundle(ended_unix_ms: u64, bytes: u64) -> Bundle {
    Bundle {
        name: name("ci-3", ended_unix_ms),
        bytes,
    }
}

fn limits(space: u64) -> Limits {
    Limits {
        space,
        age: Duration::from_hours(24),
        free: 1 << 40,
        floor: 0,
    }
}

fn ends(bundles: &[&Bundle]) -> Vec<u64> {
    bundles
        .iter()
        .map(|bundle| bundle.name.ended_unix_ms)
        .collect()
}

#[test]
fn a_name_has_one_spelling() {
    let name = name("ci-3", 1_796_000_075_300);
    let text = name.to_string();
    assert_eq!(
        text,
        "ci-3.1796000075300.0000000000000000000001a229f24e24.log.gz"
    );
    assert_eq!(text.parse(), Ok(name));
    for bad in [
        text.replace("ci-3", "ci-03"),
        text.replace(".179", ".+179"),
        text.replace(".179", ".0179"),
        text.replace(".log", ".x.log"),
        text.replace(".gz", ""),
        format!("../{text}"),
        format!(".{text}"),
        ".new.x".into(),
    ] {
        assert_eq!(bad.parse::<BundleName>(), Err(()), "{bad}");
    }
}

#[test]
fn the_oldest_bundles_go_first_when_space_is_short() {
    let bundles = [
        bundle(400, 10),
        bundle(100, 10),
        bundle(300, 10),
        bundle(200, 10),
    ];
    assert_eq!(ends(&surplus(&bundles, &limits(40), 400)), [0_u64; 0]);
    assert_eq!(ends(&surplus(&bundles, &limits(25), 400)), [200, 100]);
    assert_eq!(
        ends(&surplus(&bundles, &limits(9), 400)),
        [400, 300, 200, 100]
    );
}

#[test]
fn a_bundle_goes_when_it_is_too_old_however_much_space_there_is() {
    let now = 100 * HOUR_MS;
    let bundles = [
        bundle(now, 1),
        bundle(now - 24 * HOUR_MS, 1),
        bundle(now - 24 * HOUR_MS - 1, 1),
    ];
    assert_eq!(
        ends(&surplus(&bundles, &limits(100), now)),
        [now - 24 * HOUR_MS - 1]
    );
    // A clock that was set back makes no bundle old.
    assert_eq!(ends(&surplus(&bundles, &limits(100), 0)), [0_u64; 0]);
}

#[test]
fn bundles_give_way_when_the_file_system_is_short_of_space() {
    let bundles = [bundle(3, 10), bundle(2, 10), bundle(1, 10)];
    let short = |free| Limits {
        free,
        floor: 100,
        ..limits(1_000)
    };
    assert_eq!(ends(&surplus(&bundles, &short(110), 3)), [0_u64; 0]);
    assert_eq!(ends(&surplus(&bundles, &short(100), 3)), [1]);
    assert_eq!(ends(&surplus(&bundles, &short(90), 3)), [2, 1]);
    assert_eq!(ends(&surplus(&bundles, &short(0), 3)), [3, 2, 1]);
}

#[test]
fn the_number_of_bundles_is_bounded() {
    let count = u64::try_from(MAX_BUNDLES).unwrap() + 2;
    let bundles: Vec<Bundle> = (1..=count).rev().map(|at| bundle(at, 0)).collect();
    assert_eq!(ends(&surplus(&bundles, &limits(1), count)), [2, 1]);
}

proptest! {
    #[test]
    fn bundles_that_stay_fit_and_are_newer_than_those_that_go(
        sizes in proptest::collection::vec((0_u64..50, 0_u64..100), 1..30),
        space in 0_u64..500,
        free in 0_u64..300,
        floor in 0_u64..300,
    ) {
        let bundles: Vec<Bundle> = sizes.iter().map(|(at, bytes)| bundle(*at, *bytes)).collect();
        let limits = Limits { free, floor, ..limits(space) };
        let gone = surplus(&bundles, &limits, 50);
        let stay: Vec<&Bundle> = bundles.iter().filter(|one| !gone.contains(one)).collect();
        let left: u64 = stay.iter().map(|one| one.bytes).sum();
        let there: u64 = bundles.iter().skip(1).map(|one| one.bytes).sum();
        prop_assert!(left <= space);
        prop_assert!(left == 0 || left + floor <= there + free);
        for gone in gone {
            prop_assert!(stay.iter().all(|stays| stays.name >= gone.name));
        }
    }
}

#[test]
fn a_bundle_is_read_as_it_was_written_and_controls_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let one = name("ci-3", 1_000);
    assert!(
        write(
            dir.path(),
            &one,
            "first\nsecond \u{1b}[2J\n",
            &limits(1 << 20)
        )
        .unwrap()
    );
    let text = read(dir.path(), &one).unwrap();
    assert_eq!(text, "first\nsecond \\u{1b}[2J\n");
    let file = path(dir.path(), &one);
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o7777,
        0o640
    );
    let listed = list(dir.path()).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].name, one);
    assert_eq!(list(&dir.path().join("absent")).unwrap(), []);
}

#[test]
fn a_new_bundle_removes_the_oldest_ones_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("note.txt"), "an operator's").unwrap();
    let space = limits(3 * 4096);
    for at in 1..=5 {
        assert!(write(dir.path(), &name("ci-3", at), "text", &space).unwrap());
    }
    let left: Vec<u64> = list(dir.path())
        .unwrap()
        .iter()
        .map(|bundle| bundle.name.ended_unix_ms)
        .collect();
    assert_eq!(left, [5, 4, 3]);
    assert!(dir.path().join("note.txt").exists());
    // Without any place, nothing is written.
    assert!(!write(dir.path(), &name("ci-3", 6), "text", &limits(0)).unwrap());
    assert_eq!(list(dir.path()).unwrap(), []);
}

#[test]
fn a_file_that_a_killed_writer_left_goes_after_an_hour() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join(".new.old"), dir.path().join(".new.new"));
    for file in [&old, &new] {
        File::create(file).unwrap();
    }
    let at = SystemTime::now() - 2 * UNFINISHED;
    File::options()
        .write(true)
        .open(&old)
        .unwrap()
        .set_modified(at)
        .unwrap();
    assert!(write(dir.path(), &name("ci-3", 1), "text", &limits(1 << 20)).unwrap());
    assert!(!old.exists() && new.exists());
}
