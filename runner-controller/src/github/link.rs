//! Addresses that an answer refers to: `Link` headers and redirects. They are followed on the same
//! origin only.

use http::HeaderMap;
use url::Url;

/// The reason why an address is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotFollowed {
    /// It is not an address.
    Unreadable,
    /// It has another scheme, host or port, where the token must not go.
    OtherOrigin(Url),
}

/// Resolves `target` against the address it was found at.
pub(super) fn resolve(found_at: &Url, target: &str) -> Result<Url, NotFollowed> {
    let url = found_at.join(target).map_err(|_| NotFollowed::Unreadable)?;
    if url.origin() == found_at.origin() {
        Ok(url)
    } else {
        Err(NotFollowed::OtherOrigin(url))
    }
}

/// Returns the target of `rel="next"` as written.
///
/// The form is that of RFC 8288: `<target>; rel="next", <target>; rel="last"`.
pub(super) fn next(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all("link")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(next_in)
}

fn next_in(mut text: &str) -> Option<String> {
    // Split at angle brackets and not at commas, because a query may contain commas.
    while let Some((_, rest)) = text.split_once('<') {
        let (target, rest) = rest.split_once('>')?;
        let parameters = rest.split_once('<').map_or(rest, |(before, _)| before);
        if parameters.split([';', ',']).any(is_next) {
            return Some(target.trim().to_owned());
        }
        text = rest;
    }
    None
}

fn is_next(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        name.trim().eq_ignore_ascii_case("rel")
            && value
                .trim()
                .trim_matches('"')
                .split_ascii_whitespace()
                .any(|rel| rel.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        for (header, next) in [
            (
                r#"<https://a/x?page=1>; rel="prev", <https://a/x?page=3>; rel="next""#,
                Some("https://a/x?page=3"),
            ),
            (
                r#"<https://a/x?q=1,2>; title="t"; rel="next""#,
                Some("https://a/x?q=1,2"),
            ),
            ("</x?page=2>; rel=next", Some("/x?page=2")),
            (r#"<https://a/x>; rel="first next""#, Some("https://a/x")),
            (r#"<https://a/x>; rel="last""#, None),
            (r#"<https://a/next>; rel="prev""#, None),
            ("nonsense", None),
            ("<unclosed", None),
        ] {
            assert_eq!(next_in(header).as_deref(), next, "{header}");
        }
    }

    #[test]
    fn an_address_is_followed_only_on_its_origin() {
        let here: Url = "https://ghe.example/api/v3/orgs/a?page=1".parse().unwrap();
        assert_eq!(
            resolve(&here, "/api/v3/organizations/7?page=2")
                .unwrap()
                .as_str(),
            "https://ghe.example/api/v3/organizations/7?page=2"
        );
        for other in [
            "http://ghe.example/api",
            "https://ghe.example:8443/api",
            "https://ghe.example.evil/api",
            "//evil.example/api",
        ] {
            assert!(
                matches!(resolve(&here, other), Err(NotFollowed::OtherOrigin(_))),
                "{other}"
            );
        }
        assert_eq!(resolve(&here, "https://["), Err(NotFollowed::Unreadable));
    }
}
