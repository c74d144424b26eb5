//! What lets us in at GitHub: a token's file, or an App with its key's.

use std::path::Path;

use super::super::LoginConfig;
use super::super::section::{Report, Section};

/// Exactly one of `token_file` and `app`.
pub(super) fn read(section: &mut Section<'_>) -> Option<LoginConfig> {
    let has_app = section.has("app");
    if !has_app || section.has("token_file") {
        let example = "\"/run/agenix/github-runner\", or app = { id = …, key_file = … }";
        let file = section.required("token_file", example, Section::path);
        secret_outside_the_store(section, "token_file", file.as_deref());
        if has_app {
            drop(section.section("app"));
            section.wrong(
                "app",
                "there is a token_file as well",
                "one of them: token_file for a token of your own, app for a GitHub App",
            );
        }
        return file.map(|file| LoginConfig::Token { file });
    }
    let mut app = section.section("app");
    let id = app.required("id", "\"Iv23liExample\" or 123456", Section::text_or_number);
    let word = |id: &String| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
    };
    if let Some(id) = id.as_ref().filter(|id| !word(id)) {
        app.wrong(
            "id",
            format!("{id:?} is no App's id"),
            "the client id or the App id from the App's settings page",
        );
    }
    let key_file = app.required("key_file", "\"/run/agenix/github-app\"", Section::path);
    secret_outside_the_store(&app, "key_file", key_file.as_deref());
    app.finish();
    Some(LoginConfig::App {
        id: id.filter(word)?,
        key_file: key_file?,
    })
}

fn secret_outside_the_store(section: &Section<'_>, key: &str, file: Option<&Path>) {
    if file.is_some_and(|path| path.starts_with("/nix/store")) {
        section.wrong(
            key,
            "everything in /nix/store can be read by everybody on the host",
            "a path outside it, such as one below /run/agenix",
        );
    }
}

/// What only the host can tell: whether the file holds something of the kind.
pub(super) fn check_host(login: &LoginConfig, report: &Report) {
    let (file, is_token) = (login.file(), matches!(login, LoginConfig::Token { .. }));
    let (wrong, write) = match std::fs::read_to_string(file) {
        Err(why) => (
            Some(format!("cannot be read: {why}")),
            "a file that holds the secret alone",
        ),
        Ok(text) if text.trim().is_empty() => (
            Some("is empty".into()),
            "a file that holds the secret alone",
        ),
        Ok(text) if is_token && text.trim().lines().count() > 1 => (
            Some("has more than one line".into()),
            "a file that holds the token alone",
        ),
        Ok(text) if !is_token && !text.contains("-----BEGIN ") => (
            Some("is no key in PEM".into()),
            "the .pem file that GitHub gave for the App",
        ),
        Ok(_) => (None, ""),
    };
    if let Some(wrong) = wrong {
        report.add(login.key(), format!("{} {wrong}", file.display()), write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(text: &str) -> (Option<LoginConfig>, Vec<String>) {
        let report = Report::default();
        let mut section = Section::new("github", text.parse().unwrap(), &report);
        let login = read(&mut section);
        section.finish();
        let mistakes = report.into_list();
        (
            login,
            mistakes.into_iter().map(|mistake| mistake.key).collect(),
        )
    }

    #[test]
    fn exactly_one_of_the_two_is_given() {
        let token = "token_file = \"/run/token\"";
        let app = "app = { id = 123456, key_file = \"/run/key\" }";
        let (login, mistakes) = read_from(token);
        assert_eq!(
            (login.unwrap().credential(), mistakes.len()),
            ("github-token", 0)
        );
        let (login, mistakes) = read_from(app);
        let login = login.unwrap();
        assert_eq!(login.file(), Path::new("/run/key"));
        assert!(matches!(login, LoginConfig::App { ref id, .. } if id == "123456"));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!(read_from(&format!("{token}\n{app}")).1, ["github.app"]);
        assert_eq!(read_from("").1, ["github.token_file"]);
    }

    #[test]
    fn an_app_has_an_id_and_a_key_outside_the_store() {
        let bad = |app: &str| read_from(&format!("app = {app}")).1;
        assert_eq!(bad("{}"), ["github.app.id", "github.app.key_file"]);
        assert_eq!(
            bad("{ id = \"a b\", key_file = \"/k\" }"),
            ["github.app.id"]
        );
        assert_eq!(bad("{ id = -1, key_file = \"/k\" }"), ["github.app.id"]);
        assert_eq!(
            bad("{ id = 1, key_file = \"/nix/store/k\" }"),
            ["github.app.key_file"]
        );
        assert_eq!(
            bad("{ id = 1, key_file = \"/k\", key = 1 }"),
            ["github.app.key"]
        );
    }

    #[test]
    fn the_file_holds_what_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let wrong = |login: &LoginConfig| {
            let report = Report::default();
            check_host(login, &report);
            report
                .into_list()
                .into_iter()
                .map(|mistake| mistake.wrong)
                .collect::<String>()
        };
        let token = LoginConfig::Token { file: file.clone() };
        let app = LoginConfig::App {
            id: "1".into(),
            key_file: file.clone(),
        };
        assert!(wrong(&token).contains("cannot be read"));
        std::fs::write(&file, "ghp_one\nghp_two\n").unwrap();
        assert!(wrong(&token).contains("more than one line"));
        assert!(wrong(&app).contains("no key in PEM"));
        std::fs::write(&file, "-----BEGIN RSA PRIVATE KEY-----\n").unwrap();
        assert_eq!(wrong(&app), "");
    }
}
