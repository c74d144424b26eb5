//! Credentials for GitHub: the file of a token, or an App and the file of its key.

use std::path::Path;

use super::section::Section;
use crate::config::github::LoginConfig;

/// Reads `token_file` or `app`. Exactly one of them must be there.
pub(super) fn read(section: &mut Section<'_>) -> Option<LoginConfig> {
    let has_app = section.has("app");
    if !has_app || section.has("token_file") {
        let example = "\"/run/agenix/github-runner\", or app = { id = …, key_file = … }";
        let file = section.required("token_file", example, Section::path);
        require_outside_store(section, "token_file", file.as_deref());
        if has_app {
            drop(section.section("app"));
            section.wrong(
                "app",
                "the file has token_file as well",
                "one of them: token_file for a personal access token, app for a GitHub App",
            );
        }
        return file.map(|file| LoginConfig::Token { file });
    }
    let mut app = section.section("app");
    let id = app.required("id", "\"Iv23liExample\" or 123456", Section::text_or_number);
    let is_valid = |id: &String| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
    };
    if let Some(id) = id.as_ref().filter(|id| !is_valid(id)) {
        app.wrong(
            "id",
            format!("{id:?} is not an id of a GitHub App"),
            "the client id or the App id from the App's settings page",
        );
    }
    let key_file = app.required("key_file", "\"/run/agenix/github-app\"", Section::path);
    require_outside_store(&app, "key_file", key_file.as_deref());
    app.finish();
    Some(LoginConfig::App {
        id: id.filter(is_valid)?,
        key_file: key_file?,
    })
}

fn require_outside_store(section: &Section<'_>, key: &str, file: Option<&Path>) {
    if file.is_some_and(|path| path.starts_with("/nix/store")) {
        section.wrong(
            key,
            "every user of the host can read /nix/store",
            "a path outside it, such as one below /run/agenix",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::section::Report;

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
    fn exactly_one_of_token_and_app_is_required() {
        let token = "token_file = \"/run/token\"";
        let app = "app = { id = 123456, key_file = \"/run/key\" }";
        let (login, mistakes) = read_from(token);
        let file = "/run/token".into();
        assert_eq!(
            (login, mistakes.len()),
            (Some(LoginConfig::Token { file }), 0)
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
    fn an_app_needs_an_id_and_a_key_outside_the_store() {
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
}
