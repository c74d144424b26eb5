use super::*;

const HOOK: &str = "webhook_testbed_8f0d3c6b5a9e4172";

fn redactor() -> Redactor {
    let contents = [
        HOOK,
        "user:pass-word\n",
        "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA\n",
    ];
    Redactor::new(contents.into_iter()).unwrap()
}

#[test]
fn a_secret_of_the_host_is_removed_in_every_form() {
    let redactor = redactor();
    for secret in [
        HOOK.to_owned(),
        BASE64_STANDARD.encode(HOOK),
        "pass-word".to_owned(),
        BASE64_STANDARD.encode("user:pass-word"),
        "MIIEowIBAAKCAQEA".to_owned(),
    ] {
        let text = redactor.redact(&format!("before x{secret}y after"));
        assert!(!text.contains(&secret), "{secret}: {text}");
        assert!(
            text.starts_with("before ") && text.ends_with(" after"),
            "{text}"
        );
    }
}

#[test]
fn secrets_are_removed_by_their_shape() {
    let jwt = format!(
        "eyJ{}.eyJ{}.{}",
        "a".repeat(30),
        "b".repeat(30),
        "c".repeat(30)
    );
    let config = BASE64_STANDARD.encode(format!("{{\".runner\":\"{}\"}}", "x".repeat(300)));
    for secret in [
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "ghs_123456_eyJhbGciOi.JSUzI1NiIsInR5cCI",
        "github_pat_11ABCDEFG0abcdefghij_0123456789",
        &jwt,
        &config,
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/IBAAK\nCAQEA\n-----END RSA PRIVATE KEY-----",
        "https://user:hunter2@proxy.example",
        "Authorization: Bearer abc",
        "authorization: basic dXNlcg==",
        "{\"token\": \"short\"}",
        "PASSWORD=short",
        &"AbCd0123".repeat(20),
    ] {
        let text = redactor().redact(&format!("before\n{secret}\nafter"));
        assert!(text.contains(REDACTED), "{secret}: {text}");
        let tail = &secret[secret.len().saturating_sub(3)..];
        for part in [
            tail,
            "hunter2",
            "Bearer abc",
            "dXNlcg",
            "short",
            "MIIE",
            "CAQEA",
        ] {
            let is_host = part == "ple";
            assert!(
                is_host || !text.contains(part),
                "{part} of {secret}: {text}"
            );
        }
        assert!(
            text.starts_with("before\n") && text.ends_with("\nafter"),
            "{text}"
        );
    }
}

#[test]
fn paths_permissions_and_reasons_stay() {
    let text = "2026-11-29 runner-controller[7]: ci-1: registering a spare as host-ci-1-0a1b2c3d\n\
        token_file = /etc/runner-controller/token\n\
        HTTP 403: Resource not accessible by personal access token (administration=write)\n\
        /sys/fs/cgroup/runners.slice/runners-ci.slice/runner-ci@1.service/payload/system.slice/github-runner.service/job\n";
    assert_eq!(redactor().redact(text), text);
}
