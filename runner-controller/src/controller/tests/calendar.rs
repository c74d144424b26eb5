//! Pools whose numbers depend on the hour.

use super::*;

/// Returns the configuration with a pool that is warm from 00:30 to 01:00.
fn config() -> Config {
    let text = r#"
host = "fuzz"
[github]
url = "https://github.com/acme/widgets"
token_file = "/t"
[network]
block = "10.200.0.0/24"
resolvers = ["9.9.9.9"]
[pools.ci]
labels = ["ci"]
max_runners = 3
min_spare = 0
image = { kind = "directory", path = "/i" }
[[pools.ci.schedule]]
hours = "00:30-01:00"
time_zone = "UTC"
min_idle = 2
min_spare = 1
"#;
    crate::config::parse(std::path::Path::new("test"), text).unwrap()
}

fn wanted(status: &Status) -> (u16, u16, Option<&str>) {
    let wanted = &status.pools[0].wanted;
    (wanted.idle, wanted.spare, wanted.schedule.as_deref())
}

fn numbers(status: &Status) -> (u64, u64) {
    (
        count(status, PhaseKind::Idle),
        count(status, PhaseKind::Spare),
    )
}

#[tokio::test(start_paused = true)]
async fn the_numbers_of_a_pool_follow_its_schedule() {
    let mut daemon = Daemon::start(shared(World {
        config: Some(config()),
        ..World::default()
    }))
    .await;
    let status = daemon.until("small", |s| numbers(s) == (1, 0)).await;
    assert_eq!(wanted(&status), (1, 0, None));
    let status = daemon.until("warm", |s| numbers(s) == (2, 1)).await;
    let entry = "mon,tue,wed,thu,fri,sat,sun 00:30-01:00 UTC";
    assert_eq!(wanted(&status), (2, 1, Some(entry)));
    assert!((1800..1800 + 120).contains(&(now().millis() / 1000)));
    let status = daemon.until("small again", |s| numbers(s) == (1, 0)).await;
    assert_eq!(wanted(&status), (1, 0, None));
    assert!((3600..3600 + 120).contains(&(now().millis() / 1000)));
    let scaled = verdict(&status, Verdict::ScaledDown);
    assert!(scaled > 0, "{status:#?}");
    daemon.stop().await;
}
