use super::*;

const ACCOUNT: &str = "https://api.github.com token";

fn at(seconds: u64) -> Timestamp {
    // Long after the boot.
    Timestamp::from_millis((100_000 + seconds) * 1000)
}

/// Begins as many mints as the bound allows at a time.
fn burst(pace: &mut Pace, now: Timestamp) -> usize {
    let (bound, _) = pace.bound(now);
    let quota = pace.quota(bound, now);
    (0..quota).for_each(|_| pace.begin(now));
    quota
}

#[test]
fn no_minute_has_more_mints_than_configured() {
    let mut pace = Pace::new(150);
    assert!(!pace.is_felt(at(0)));
    assert_eq!(burst(&mut pace, at(0)), 150);
    assert_eq!(burst(&mut pace, at(59)), 0);
    assert_eq!(pace.next_mint(150, at(59)), Some(at(60)));
    assert!(pace.is_felt(at(59)));
    assert_eq!(burst(&mut pace, at(60)), 150);
}

#[test]
fn the_default_stays_within_every_documented_limit() {
    // Points of one endpoint in a minute, the window of registrations, registrations in five minutes.
    for (mints, limit) in [(5, 900), (60, 10_000), (5, 1_500)] {
        assert!(DEFAULT_MINTS_PER_MINUTE * mints <= limit, "{limit}");
    }
}

#[test]
fn a_refusal_halves_the_pace_and_each_minute_without_one_raises_it() {
    let mut pace = Pace::new(150);
    burst(&mut pace, at(0));
    for _ in 0..4 {
        pace.refused(at(1));
    }
    assert_eq!(pace.bound(at(1)), (75, PaceReason::Refused));
    assert_eq!(pace.bound(at(61)), (80, PaceReason::Refused));
    assert_eq!(pace.next_mint(75, at(1)), Some(at(60)));
    // Another client may use most of the limit, so the number of sent mints counts.
    pace.begin(at(120));
    pace.refused(at(121));
    assert_eq!(pace.bound(at(121)), (SLOWEST, PaceReason::Refused));
    assert!(pace.is_felt(at(121 + 600)));
    assert_eq!(pace.bound(at(121 + 1800)), (150, PaceReason::Configured));
    assert!(!pace.is_felt(at(121 + 1800)));
}

#[test]
fn a_bound_that_github_does_not_document_is_met_a_few_times_an_hour() {
    // GitHub counts 80 in a minute and refuses for a minute above it.
    let (mut pace, mut accepted) = (Pace::new(150), Vec::new());
    let (mut limited_until, mut refusals) = (0, 0);
    for second in 0..3600 {
        if second < limited_until {
            continue;
        }
        let now = at(second);
        let (bound, _) = pace.bound(now);
        // Four at once, as the client sends them.
        for _ in 0..pace.quota(bound, now).min(4) {
            pace.begin(now);
            let recent = accepted.iter().filter(|at| second - **at < 60).count();
            if recent >= 80 {
                pace.refused(now);
                limited_until = second + 60;
                refusals += 1;
                break;
            }
            accepted.push(second);
        }
    }
    assert!(refusals <= 8, "{refusals} refusals");
    assert!(accepted.len() > 3000, "{} mints", accepted.len());
}

#[test]
fn the_rest_of_a_window_is_spread_until_its_reset() {
    let mut pace = Pace::new(150);
    let window = |remaining| {
        Some(MintWindow {
            limit: 10_000,
            remaining,
            resets_in: Duration::from_mins(19),
        })
    };
    pace.window(window(2_000), at(0));
    assert_eq!(pace.bound(at(0)), (150, PaceReason::Configured));
    pace.window(window(200), at(0));
    assert_eq!(pace.bound(at(0)), (10, PaceReason::Window));
    pace.window(window(0), at(0));
    assert_eq!(pace.bound(at(0)), (1, PaceReason::Window));
    assert_eq!(pace.bound(at(19 * 60)), (150, PaceReason::Configured));
}

/// Returns the pace of the next daemon, from the text on record.
fn next(record: &PaceRecord, boot_id: &str, now: Timestamp, unix_ms: u64) -> Pace {
    let read = record.to_string().parse().unwrap();
    assert_eq!(*record, read);
    let mut next = Pace::new(150);
    next.restore(&read, ACCOUNT, boot_id, now, unix_ms);
    next
}

#[test]
fn the_bound_holds_for_the_next_daemon() {
    let mut first = Pace::new(150);
    burst(&mut first, at(0));
    let record = first.record(ACCOUNT, "b1", at(20), 1_000_000);
    assert_eq!(burst(&mut next(&record, "b1", at(59), 0), at(59)), 0);
    assert_eq!(burst(&mut next(&record, "b1", at(60), 0), at(60)), 150);
    first.refused(at(20));
    let record = first.record(ACCOUNT, "b1", at(20), 0);
    let restored = next(&record, "b1", at(80), 0);
    assert_eq!(restored.bound(at(80)), (80, PaceReason::Refused));
}

#[test]
fn the_wall_clock_tells_how_much_time_a_reboot_took() {
    let mut first = Pace::new(150);
    burst(&mut first, at(0));
    let record = first.record(ACCOUNT, "b1", at(20), 1_000_000);
    let rebooted = |unix_ms| {
        let now = Timestamp::from_millis(5_000);
        burst(&mut next(&record, "b2", now, unix_ms), now)
    };
    assert_eq!(rebooted(1_000_000 + 39_000), 0);
    assert_eq!(rebooted(1_000_000 + 40_000), 150);
    assert_eq!(rebooted(0), 0, "the wall clock was set back");
}

#[test]
fn the_pace_of_another_account_is_not_continued() {
    let mut first = Pace::new(150);
    burst(&mut first, at(0));
    let record = first.record("https://api.github.com acme app 7", "b1", at(0), 0);
    assert_eq!(burst(&mut next(&record, "b1", at(1), 0), at(1)), 150);
}

#[test]
fn other_text_is_not_a_pace() {
    let texts = [
        "",
        "b1",
        "b1 1 2 3 4",
        "b1 1 2 3 4 5",
        "b1 1 2 3 x 5 a",
        "b1 1 2 3 4 5,x a",
    ];
    for text in texts {
        assert_eq!(text.parse::<PaceRecord>(), Err(()), "{text}");
    }
}
