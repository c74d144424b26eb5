//! Answers of `webhook-test`, and its deliveries at a listener.

use super::*;
use crate::pool::ScopeId;

const TWO: &str = r#"
host = "box"
[scopes.widgets]
url = "https://github.com/acme/widgets"
token_file = "/t"
[scopes.umbrella]
url = "https://github.com/umbrella"
token_file = "/t"
[network]
block = "10.200.0.0/16"
resolvers = ["9.9.9.9"]
[pools.ci]
scope = "widgets"
labels = ["linux", "x64"]
max_runners = 4
image = { kind = "directory", path = "/i" }
[pools.gpu]
scope = "widgets"
offset = 10
labels = ["linux", "x64", "gpu"]
max_runners = 4
image = { kind = "directory", path = "/i" }
[pools.other]
scope = "umbrella"
offset = 20
labels = ["linux"]
max_runners = 4
image = { kind = "directory", path = "/i" }
"#;

fn config() -> Config {
    config::parse(Path::new("config.toml"), TWO).unwrap()
}

fn test(labels: &[&str], repository: Option<&str>) -> WebhookTest {
    WebhookTest {
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        event: None,
        repository: repository.map(str::to_owned),
        send: false,
    }
}

fn answers(test: &WebhookTest) -> Vec<(String, bool)> {
    let config = config();
    let samples = samples_of(&config, test).unwrap();
    let answers = samples
        .iter()
        .map(|sample| answer(&config, sample).unwrap());
    answers
        .map(|answer| (answer.text, answer.is_served))
        .collect()
}

#[test]
fn the_answer_names_the_pool_and_why_not_others() {
    let found = answers(&test(&["Linux"], Some("acme/widgets")));
    let wanted = "a job of acme/widgets with the labels Linux:\n  \
                  pool ci serves it\n  \
                  pool gpu fits, and is not the nearest one: it has 2 further labels\n  \
                  pool other does not: it registers in another scope\n";
    assert_eq!(found, [(wanted.to_owned(), true)]);
    let found = answers(&test(&["linux", "arm64"], Some("umbrella/app")));
    let wanted = "a job of umbrella/app with the labels linux, arm64:\n  \
                  pool ci does not: it registers in another scope\n  \
                  pool gpu does not: it registers in another scope\n  \
                  pool other does not: it lacks arm64\n";
    assert_eq!(found, [(wanted.to_owned(), false)]);
    let found = answers(&test(&["linux"], Some("stranger/app")));
    assert!(
        !found[0].1 && found[0].0.contains("has no effect"),
        "{found:?}"
    );
}

#[test]
fn without_labels_each_pool_is_tested_with_its_own() {
    let found = answers(&test(&[], None));
    assert_eq!(found.len(), 3);
    for ((text, is_served), pool) in found.iter().zip(["ci", "gpu", "other"]) {
        let line = format!("  pool {pool} serves it\n");
        assert!(*is_served && text.contains(&line), "{pool}: {text}");
    }
}

#[test]
fn a_host_with_several_scopes_asks_for_the_repository() {
    let error = samples_of(&config(), &test(&["linux"], None)).unwrap_err();
    assert!(error.to_string().contains("--repository"), "{error}");
}

#[test]
fn a_recorded_delivery_is_read_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("event.json");
    let with_file = || WebhookTest {
        event: Some(file.clone()),
        ..test(&[], None)
    };
    let error = samples_of(&config(), &with_file()).unwrap_err();
    assert!(error.to_string().contains("event.json"), "{error}");
    let sample = Sample::queued("acme/widgets", None, &["gpu".into()], 1, 5_000);
    std::fs::write(&file, sample.body()).unwrap();
    let found = answers(&with_file());
    assert!(
        found[0].1 && found[0].0.contains("pool gpu serves it"),
        "{found:?}"
    );
}

/// A listener with records, which refuses every delivery that is not signed with `secret`.
mod listener {
    use tokio::net::TcpListener;
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::config::HistoryConfig;
    use crate::store::Store;
    use crate::webhook::{Counts, Receiver, limits, router};
    use crate::world::Event;

    async fn listen(
        webhook: &mut WebhookConfig,
    ) -> (Store, mpsc::Receiver<Event>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("records.db");
        let host = "host".parse().unwrap();
        let (store, _) = Store::open(&records, host, HistoryConfig::default()).unwrap();
        let (sender, events) = mpsc::channel(16);
        let router = router(Receiver {
            secrets: Secrets::load(webhook).unwrap(),
            scopes: vec![ScopeId::new("https://api.github.com", "acme/widgets")],
            inbox: store.clone(),
            events: sender,
            counts: Counts::default(),
            hooks: watch::Sender::default(),
            unix_ms,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        webhook.listen = listener.local_addr().unwrap();
        tokio::spawn(crate::http::serve_tcp(listener, router, None, limits()));
        (store, events, dir)
    }

    fn webhook(dir: &Path, secret: &str) -> WebhookConfig {
        let file = dir.join("secret");
        std::fs::write(&file, secret).unwrap();
        WebhookConfig {
            listen: "127.0.0.1:1".parse().unwrap(),
            secret_file: file,
            next_secret_file: None,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dry_run_changes_no_record_and_a_job_that_is_sent_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut webhook = webhook(dir.path(), "a-long-secret-of-a-hook");
        let (store, mut events, _records) = listen(&mut webhook).await;
        let secrets = Secrets::load(&webhook).unwrap();
        try_listener(&webhook, &secrets).await.unwrap();
        assert_eq!(store.jobs().await.unwrap(), []);

        let sample = Sample::queued("acme/widgets", None, &["linux".into()], 1, 5_000);
        let scope = ScopeId::new("https://api.github.com", "acme/widgets");
        let job = sample.job(&[scope], 0).unwrap();
        // No daemon answers here, so the command fails, and the job leaves all the same.
        let absent = dir.path().join("api.sock");
        let told = tell(&webhook, &secrets, &sample, job.as_ref(), &absent).await;
        assert!(told.is_err());
        let jobs = store.jobs().await.unwrap();
        assert_eq!(jobs.len(), 1);
        assert!(jobs[0].end.is_some(), "{jobs:?}");
        assert!(matches!(events.recv().await, Some(Event::Job(_))));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_secret_that_the_daemon_does_not_have_is_told_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mut webhook = webhook(dir.path(), "a-long-secret-of-a-hook");
        let (_store, _events, _records) = listen(&mut webhook).await;
        std::fs::write(&webhook.secret_file, "another-secret-of-a-hook").unwrap();
        let secrets = Secrets::load(&webhook).unwrap();
        let error = try_listener(&webhook, &secrets).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("401") && text.contains("restart"), "{text}");
        assert!(!text.contains("secret-of-a-hook"), "{text}");
    }

    #[tokio::test]
    async fn a_listener_that_is_away_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut webhook = webhook(dir.path(), "a-long-secret-of-a-hook");
        webhook.listen = closed.local_addr().unwrap();
        drop(closed);
        let secrets = Secrets::load(&webhook).unwrap();
        let error = try_listener(&webhook, &secrets).await.unwrap_err();
        assert!(error.to_string().contains("webhook.listen"), "{error}");
    }
}
