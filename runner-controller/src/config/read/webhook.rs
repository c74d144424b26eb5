//! The `[webhook]` table.

use std::net::SocketAddr;

use super::section::Section;
use crate::config::webhook::WebhookConfig;

/// Reads the listener for GitHub's deliveries; `None` without the table. `api` has the addresses of the API.
pub(super) fn webhook(top: &mut Section<'_>, api: &[SocketAddr]) -> Option<WebhookConfig> {
    if !top.has("webhook") {
        // The table is a known key, whether or not it is there.
        top.section("webhook").finish();
        return None;
    }
    let mut section = top.section("webhook");
    let example = "\"127.0.0.1:9818\"";
    let listen: Option<SocketAddr> = section.required("listen", example, Section::parsed);
    if listen.is_some_and(|listen| api.contains(&listen)) {
        section.wrong(
            "listen",
            "the API listens on this address",
            "another port, such as listen = \"127.0.0.1:9818\"",
        );
    }
    let example = "\"/run/agenix/runner-controller-webhook\"";
    let secret_file = section.required("secret_file", example, Section::path);
    let next_secret_file = section.path("next_secret_file", example);
    for (key, file) in [
        ("secret_file", &secret_file),
        ("next_secret_file", &next_secret_file),
    ] {
        if file
            .as_ref()
            .is_some_and(|file| file.starts_with("/nix/store"))
        {
            section.wrong(
                key,
                "every user of the host can read /nix/store",
                format!("a path outside it, such as {example}"),
            );
        }
    }
    section.finish();
    Some(WebhookConfig {
        listen: listen?,
        secret_file: secret_file?,
        next_secret_file,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, Mistakes, parse, testing};

    fn with(lines: &str) -> Result<Config, Mistakes> {
        parse(Path::new("x"), &format!("{}{lines}\n", testing::TEXT))
    }

    #[test]
    fn deliveries_are_not_taken_unless_the_table_is_there() {
        assert_eq!(with("").unwrap().webhook, None);
        let webhook = with(
            "[webhook]\nlisten = \"127.0.0.1:9818\"\nsecret_file = \"/run/a\"\nnext_secret_file = \"/run/b\"",
        );
        let webhook = webhook.unwrap().webhook.unwrap();
        assert_eq!(webhook.listen.port(), 9818);
        let files: Vec<&Path> = webhook.secret_files().collect();
        assert_eq!(files, [Path::new("/run/a"), Path::new("/run/b")]);
    }

    #[test]
    fn each_mistake_of_the_table_is_told_by_its_key() {
        for (lines, keys) in [
            ("", vec!["webhook.listen", "webhook.secret_file"]),
            (
                "listen = \"9818\"\nsecret_file = \"/run/a\"",
                vec!["webhook.listen"],
            ),
            (
                "listen = \"127.0.0.1:9818\"\nsecret_file = \"a\"",
                vec!["webhook.secret_file"],
            ),
            (
                "listen = \"127.0.0.1:9818\"\nsecret_file = \"/nix/store/x\"\nnext_secret_file = \"/nix/store/y\"",
                vec!["webhook.secret_file", "webhook.next_secret_file"],
            ),
            (
                "listen = \"127.0.0.1:9818\"\nsecret_file = \"/run/a\"\npath = \"/hook\"",
                vec!["webhook.path"],
            ),
        ] {
            let list = with(&format!("[webhook]\n{lines}")).unwrap_err().list;
            let found: Vec<&str> = list.iter().map(|mistake| mistake.key.as_str()).collect();
            assert_eq!(found, keys, "{lines}");
        }
    }

    #[test]
    fn deliveries_and_the_api_have_two_addresses() {
        let text = format!(
            "listen = [\"127.0.0.1:9818\"]\n{}[webhook]\nlisten = \"127.0.0.1:9818\"\nsecret_file = \"/run/a\"\n",
            testing::TEXT
        );
        let list = parse(Path::new("x"), &text).unwrap_err().list;
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].key, "webhook.listen");
    }
}
