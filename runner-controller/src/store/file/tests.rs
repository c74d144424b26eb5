//! Tests of damaged, full, read-only and absent files.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::HistoryConfig;
use crate::store::tests::{file, full_runner, host, open, verdict};
use crate::store::{Store, rows, verdicts};
use crate::world::{Failure, Records};

#[tokio::test]
async fn a_damaged_file_is_renamed_and_a_new_one_made() {
    let (_dir, path) = file();
    let aside = |n| path.with_file_name(format!("records.sqlite.corrupt-{n}"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(aside(1), "from an earlier time").unwrap();
    std::fs::write(&path, "this is not a database, however it is read").unwrap();

    let (store, warning) = Store::open(&path, host(), HistoryConfig::default()).unwrap();
    assert!(warning.unwrap().contains(aside(2).to_str().unwrap()));
    let kept = |n| std::fs::read_to_string(aside(n)).unwrap();
    assert!(kept(1).starts_with("from") && kept(2).starts_with("this"));
    store.put(full_runner("ci-1")).await.unwrap();
    assert_eq!(store.load().await.unwrap().len(), 1);
}

#[tokio::test]
async fn damage_deep_in_the_file_is_found_at_the_start() {
    let (_dir, path) = file();
    let connection = try_open(&path).unwrap();
    for ended in 0..500 {
        verdicts::add(&connection, &verdict("ci-1", None, ended)).unwrap();
    }
    // Closing writes the log back into the file.
    drop(connection);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xaa);
    std::fs::write(&path, bytes).unwrap();
    let (store, warning) = Store::open(&path, host(), HistoryConfig::default()).unwrap();
    assert!(warning.unwrap().contains("damaged"));
    assert_eq!(store.recent(1).await.unwrap(), []);
}

#[test]
fn a_file_with_a_newer_schema_is_refused_and_left_alone() {
    let (_dir, path) = file();
    drop(try_open(&path).unwrap());
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let error = Store::open(&path, host(), HistoryConfig::default()).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }));
    assert!(error.to_string().contains("move the file away"), "{error}");
    assert!(!error.is_transient());
    assert!(path.exists());
}

#[test]
fn the_file_is_private() {
    let (_dir, path) = file();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _store = open(&path);
    for suffix in ["", "-wal", "-shm"] {
        let file = path.with_file_name(format!("records.sqlite{suffix}"));
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

/// Makes a path that not even root can write to: the directory is a file.
fn block_directory(path: &Path) {
    std::fs::write(path.parent().unwrap(), "").unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_reported_with_its_path_and_tried_again() {
    let (_dir, path) = file();
    block_directory(&path);
    let (store, warning) = Store::open(&path, host(), HistoryConfig::default()).unwrap();
    assert!(warning.unwrap().contains(path.to_str().unwrap()));
    assert!(store.load().await.unwrap_err().is_transient());
    let error = store.put(full_runner("ci-1")).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    std::fs::remove_file(path.parent().unwrap()).unwrap();
    let patience = Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.put(full_runner("ci-1")).await {
        assert!(Instant::now() < patience, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(open(&path).load().await.unwrap(), [full_runner("ci-1")]);
}

#[tokio::test]
async fn a_copy_has_the_last_writes() {
    let (_dir, path) = file();
    let store = open(&path);
    store.put(full_runner("ci-1")).await.unwrap();
    store.put(full_runner("ci-2")).await.unwrap();
    // As after a kill, the log is there and was not merged into the file.
    let copy = Snapshot::of(&path).unwrap();
    let runners = rows::runners(&copy.connection, &host()).unwrap();
    assert_eq!(runners, [full_runner("ci-1"), full_runner("ci-2")]);
    drop(store);
    assert!(Snapshot::of(&path.with_file_name("none")).is_err());
}

#[tokio::test]
async fn a_full_disk_is_a_transient_error() {
    let (_dir, path) = file();
    let store = open(&path);
    let limit = |pages: i64| {
        store.call(Access::Write, "limit pages", move |connection| {
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        })
    };
    limit(1).await.unwrap();
    let huge = "x".repeat(1 << 20);
    let error = store
        .set_setting("k", Some(huge.clone()))
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    // The store works on, and a write succeeds once there is space.
    assert_eq!(store.setting("k").await.unwrap(), None);
    limit(1 << 20).await.unwrap();
    store.set_setting("k", Some(huge)).await.unwrap();
}

#[tokio::test]
async fn a_file_that_becomes_read_only_is_a_transient_error() {
    let (_dir, path) = file();
    let store = open(&path);
    store
        .call(Access::Write, "turn read-only", |connection| {
            connection.pragma_update(None, "query_only", true)
        })
        .await
        .unwrap();
    let error = store.close(verdict("ci-1", None, 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot write a verdict in the records");
    assert!(error.is_transient(), "an operator may remount the disk");
    assert_eq!(store.recent(1).await.unwrap(), []);
}

#[tokio::test]
async fn a_closed_file_has_no_log_beside_it_and_refuses_calls() {
    let (_dir, path) = file();
    let store = open(&path);
    let other = store.clone();
    store.put(full_runner("ci-1")).await.unwrap();
    assert!(beside(&path, "-wal").exists());
    store.close_file().await;
    assert!(!beside(&path, "-wal").exists());
    let error = other.put(full_runner("ci-2")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot write a runner: the records are closed"
    );
    assert_eq!(open(&path).load().await.unwrap(), [full_runner("ci-1")]);
}
