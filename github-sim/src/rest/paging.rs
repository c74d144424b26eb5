//! Pages, their links, and conditional requests.

use axum::http::{StatusCode, header::CONTENT_TYPE};
use sha2::{Digest, Sha256};

use crate::{
    http::{ApiReply, ApiRequest},
    settings::PagingFault,
};

const DEFAULT_PAGE: usize = 30;
const LARGEST_PAGE: usize = 100;

/// The page that a request asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageRequest {
    pub(crate) number: usize,
    pub(crate) size: usize,
}

impl PageRequest {
    pub(crate) fn of(request: &ApiRequest) -> Self {
        let ask = |name| {
            request
                .query_param(name)
                .and_then(|text| text.parse::<usize>().ok())
        };
        Self {
            number: ask("page").unwrap_or(1).max(1),
            // GitHub reduces larger sizes silently.
            size: match ask("per_page") {
                None | Some(0) => DEFAULT_PAGE,
                Some(size) => size.min(LARGEST_PAGE),
            },
        }
    }

    /// Returns the items of the page.
    pub(crate) fn cut<T>(self, mut items: Vec<T>, fault: PagingFault) -> Vec<T> {
        let start = (self.number - 1).saturating_mul(self.size);
        let start = match fault {
            _ if self.number == 1 => start,
            PagingFault::None => start,
            PagingFault::Skip => start + 1,
            PagingFault::Repeat => start - 1,
        };
        let end = self.number.saturating_mul(self.size).min(items.len());
        items.truncate(end);
        items.split_off(start.min(end))
    }

    /// Returns the `Link` header, or `None` if all items fit on one page.
    pub(crate) fn link(self, request: &ApiRequest, base: &str, total: usize) -> Option<String> {
        let last = total.div_ceil(self.size).max(1);
        let mut links = vec![];
        let mut add = |page: usize, rel: &str| {
            links.push(format!(
                "<{}>; rel=\"{rel}\"",
                self.url(request, base, page)
            ));
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

    fn url(self, request: &ApiRequest, base: &str, page: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &request.query {
            if name != "page" && name != "per_page" {
                query.append_pair(name, value);
            }
        }
        query.append_pair("per_page", &self.size.to_string());
        query.append_pair("page", &page.to_string());
        format!("{base}{}?{}", request.path, query.finish())
    }
}

/// Returns the answer with its weak tag, or 304 if the client already has it.
pub(crate) fn with_etag(reply: ApiReply, request: &ApiRequest) -> ApiReply {
    let digest = Sha256::digest(&reply.body);
    let tag = format!("W/\"{}\"", hex::encode(digest));
    let known = request.header("if-none-match").is_some_and(|tags| {
        tags.split(',')
            .any(|given| given.trim() == tag || given.trim() == "*")
    });
    let mut reply = reply
        .header("etag", &tag)
        .header("cache-control", "private, max-age=60, s-maxage=60");
    if known {
        reply.status = StatusCode::NOT_MODIFIED;
        reply.body = vec![].into();
        reply.headers.remove(CONTENT_TYPE);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(number: usize, fault: PagingFault) -> Vec<usize> {
        PageRequest { number, size: 3 }.cut((0..8).collect(), fault)
    }

    #[test]
    fn pages_hold_every_item_once() {
        assert_eq!(cut(1, PagingFault::None), [0, 1, 2]);
        assert_eq!(cut(3, PagingFault::None), [6, 7]);
        assert_eq!(cut(4, PagingFault::None), [0; 0]);
    }

    #[test]
    fn a_paging_fault_leaves_the_first_page_alone() {
        assert_eq!(cut(1, PagingFault::Skip), [0, 1, 2]);
        assert_eq!(cut(2, PagingFault::Skip), [4, 5]);
        assert_eq!(cut(1, PagingFault::Repeat), [0, 1, 2]);
        assert_eq!(cut(2, PagingFault::Repeat), [2, 3, 4, 5]);
    }
}
