//! Pages, their links, and conditional requests.

use hyper::StatusCode;
use sha2::{Digest, Sha256};

use crate::{
    http::{Call, Reply},
    settings::PageGlitch,
};

const DEFAULT_PAGE: usize = 30;
const LARGEST_PAGE: usize = 100;

/// Which page of how many items a call asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) number: usize,
    pub(crate) size: usize,
}

impl Page {
    pub(crate) fn of(call: &Call) -> Self {
        let ask = |name| call.param(name).and_then(|text| text.parse::<usize>().ok());
        Self {
            number: ask("page").unwrap_or(1).max(1),
            // Larger sizes are cut down without a word, as GitHub does.
            size: match ask("per_page") {
                None | Some(0) => DEFAULT_PAGE,
                Some(size) => size.min(LARGEST_PAGE),
            },
        }
    }

    pub(crate) fn cut<T>(self, mut items: Vec<T>, glitch: PageGlitch) -> Vec<T> {
        let start = (self.number - 1).saturating_mul(self.size);
        let start = match glitch {
            _ if self.number == 1 => start,
            PageGlitch::None => start,
            PageGlitch::Skip => start + 1,
            PageGlitch::Repeat => start - 1,
        };
        let end = self.number.saturating_mul(self.size).min(items.len());
        items.truncate(end);
        items.split_off(start.min(end))
    }

    /// The `Link` header; none if everything fits on one page.
    pub(crate) fn link(self, call: &Call, base: &str, total: usize) -> Option<String> {
        let last = total.div_ceil(self.size).max(1);
        let mut links = vec![];
        let mut add = |page: usize, rel: &str| {
            links.push(format!("<{}>; rel=\"{rel}\"", self.url(call, base, page)));
        };
        if self.number > 1 {
            add((self.number - 1).min(last), "prev");
        }
        if self.number < last {
            add(self.number + 1, "next");
            add(last, "last");
        }
        if self.number > 1 {
            add(1, "first");
        }
        (!links.is_empty()).then(|| links.join(", "))
    }

    fn url(self, call: &Call, base: &str, page: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &call.query {
            if name != "page" && name != "per_page" {
                query.append_pair(name, value);
            }
        }
        query.append_pair("per_page", &self.size.to_string());
        query.append_pair("page", &page.to_string());
        format!("{base}{}?{}", call.path, query.finish())
    }
}

/// Gives an answer its weak tag, or turns it into 304 if the caller has it.
pub(crate) fn with_etag(reply: Reply, call: &Call) -> Reply {
    let digest = Sha256::digest(&reply.body);
    let tag = format!("W/\"{}\"", hex(&digest));
    let known = call.header("if-none-match").is_some_and(|tags| {
        tags.split(',')
            .any(|given| given.trim() == tag || given.trim() == "*")
    });
    let mut reply = reply
        .header("etag", &tag)
        .header("cache-control", "private, max-age=60, s-maxage=60");
    if known {
        reply.status = StatusCode::NOT_MODIFIED;
        reply.body = vec![].into();
        reply.headers.remove(hyper::header::CONTENT_TYPE);
    }
    reply
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(number: usize, glitch: PageGlitch) -> Vec<usize> {
        Page { number, size: 3 }.cut((0..8).collect(), glitch)
    }

    #[test]
    fn pages_cover_everything_once() {
        assert_eq!(cut(1, PageGlitch::None), [0, 1, 2]);
        assert_eq!(cut(3, PageGlitch::None), [6, 7]);
        assert_eq!(cut(4, PageGlitch::None), [0; 0]);
    }

    #[test]
    fn glitches_touch_later_pages_only() {
        assert_eq!(cut(1, PageGlitch::Skip), [0, 1, 2]);
        assert_eq!(cut(2, PageGlitch::Skip), [4, 5]);
        assert_eq!(cut(1, PageGlitch::Repeat), [0, 1, 2]);
        assert_eq!(cut(2, PageGlitch::Repeat), [2, 3, 4, 5]);
    }
}
