use super::*;

const DAY: u64 = 24 * 3_600_000;

#[test]
fn a_version_is_three_plain_numbers() {
    for text in ["2.336.0", "0.0.0", "99999.1.10"] {
        let version: RunnerVersion = text.parse().unwrap();
        assert_eq!(version.to_string(), text);
    }
    for text in [
        "",
        "2",
        "2.336",
        "2.336.",
        "2.336.0.1",
        "2.336.0 ",
        "v2.336.0",
        "2.336.0-beta",
        "+2.336.0",
        "2.0336.0",
        "2.336.100000",
        "2.336.\u{1b}",
        "\u{0662}.336.0",
    ] {
        assert_eq!(
            text.parse::<RunnerVersion>(),
            Err(InvalidVersion),
            "{text:?}"
        );
    }
}

#[test]
fn versions_are_ordered_by_number_and_are_text_in_json() {
    let [old, new] = ["2.99.0", "2.336.0"].map(|text| text.parse::<RunnerVersion>().unwrap());
    assert!(old < new);
    assert_eq!(serde_json::to_value(new).unwrap(), "2.336.0");
    assert_eq!(
        serde_json::from_str::<RunnerVersion>("\"2.99.0\"").unwrap(),
        old
    );
    assert!(serde_json::from_str::<RunnerVersion>("\"<b>\"").is_err());
}

#[test]
fn the_earlier_date_decides() {
    let end = |registration_unix_ms, runtime_unix_ms| VersionEnd {
        registration_unix_ms,
        runtime_unix_ms,
    };
    for (end, unix_ms) in [
        (end(None, None), None),
        (end(Some(2), None), Some(2)),
        (end(None, Some(3)), Some(3)),
        (end(Some(2), Some(3)), Some(2)),
        (end(Some(4), Some(3)), Some(3)),
    ] {
        assert_eq!(end.unix_ms(), unix_ms);
    }
}

#[test]
fn a_version_is_near_its_end_for_ten_days() {
    let end = VersionEnd {
        runtime_unix_ms: Some(100 * DAY),
        ..VersionEnd::default()
    };
    for (now, freshness) in [
        (0, Freshness::Fresh),
        (90 * DAY - 1, Freshness::Fresh),
        (90 * DAY, Freshness::NearEnd),
        (100 * DAY - 1, Freshness::NearEnd),
        (100 * DAY, Freshness::Over),
        (u64::MAX, Freshness::Over),
    ] {
        assert_eq!(end.at(now), freshness, "{now}");
    }
    assert_eq!(VersionEnd::default().at(u64::MAX), Freshness::Fresh);
}
