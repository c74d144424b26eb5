//! Records that fail.

use super::*;

async fn a_write_that_failed_is_repeated_before_any_later_one() {
    let mut daemon = Daemon::start(shared(Inner {
        disk_full: true,
        ..Inner::default()
    }))
    .await;
    daemon
        .until("at rest", |s| waits(s) && s.records_error.is_some())
        .await;
    daemon.fake.with(|inner| {
        assert!(inner.records.is_empty());
        inner.disk_full = false;
    });
    daemon.until("written", |s| s.records_error.is_none()).await;
    let phases: Vec<String> = daemon.fake.with(|inner| {
        let records = inner.records.values();
        records.map(|record| record.phase.clone()).collect()
    });
    assert_eq!(phases, ["idle", "spare"]);
}

fn shared(inner: Inner) -> Arc<Mutex<Inner>> {
    Arc::new(Mutex::new(inner))
}
