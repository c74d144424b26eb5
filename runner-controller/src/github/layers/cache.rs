//! The pages of the list of runners as they were last answered, for octocrab's cache.
//!
//! octocrab's `InMemoryCache` keeps every page for ever, and also keeps an answer of which only a
//! part was read (octocrab 0.54.9, src/service/middleware/cache/mem.rs:71).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::LINK;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use http_body_util::combinators::BoxBody;
use hyper::body::Bytes;
use octocrab::OctoBody;
use octocrab::service::middleware::cache::{CacheKey, CacheStorage, CacheWriter, CachedResponse};
use tower::util::BoxCloneService;
use tower::{ServiceExt as _, service_fn};

use super::stack::Stack;
use crate::world::RegistryError;

/// The remembered pages, by address. Copies share them.
#[derive(Clone, Default)]
pub(in crate::github) struct Pages(Arc<Mutex<HashMap<Uri, Page>>>);

struct Page {
    key: CacheKey,
    response: CachedResponse,
}

impl Pages {
    /// Forgets the pages that `keep` refuses. Must not be called while a page is asked for, because
    /// octocrab panics when a page is gone that it offered to GitHub.
    pub(in crate::github) fn retain(&self, keep: impl Fn(&Uri) -> bool) {
        self.pages().retain(|uri, _| keep(uri));
    }

    /// Forgets the largest pages until the others have `max_bytes` together. Must not be called while a page is asked
    /// for, as [`Pages::retain`].
    pub(in crate::github) fn bound(&self, max_bytes: usize) {
        let mut pages = self.pages();
        let mut sizes: Vec<(usize, Uri)> = pages
            .iter()
            .map(|(uri, page)| (page.response.body.len(), uri.clone()))
            .collect();
        sizes.sort_unstable_by_key(|(size, _)| *size);
        let mut kept: usize = sizes.iter().map(|(size, _)| size).sum();
        while kept > max_bytes
            && let Some((size, uri)) = sizes.pop()
        {
            pages.remove(&uri);
            kept -= size;
        }
    }

    /// Remembers that another page follows `uri`, which GitHub said beside a 304.
    fn remember_link(&self, uri: &Uri, link: &HeaderValue) {
        if let Some(page) = self.pages().get_mut(uri) {
            page.response.headers.insert(LINK, link.clone());
        }
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<Uri, Page>> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheStorage for Pages {
    fn try_hit(&self, uri: &Uri) -> Option<CacheKey> {
        self.pages().get(uri).map(|page| page.key.clone())
    }

    fn load(&self, uri: &Uri) -> Option<CachedResponse> {
        self.pages().get(uri).map(|page| page.response.clone())
    }

    fn writer(&self, uri: &Uri, key: CacheKey, headers: HeaderMap) -> Box<dyn CacheWriter> {
        Box::new(Writer {
            pages: self.clone(),
            uri: uri.clone(),
            key,
            headers,
        })
    }
}

struct Writer {
    pages: Pages,
    uri: Uri,
    key: CacheKey,
    headers: HeaderMap,
}

impl CacheWriter for Writer {
    /// Takes a whole body: the layers below pass it on in one piece, and not at all if it was cut off.
    /// A page without a tag is not remembered, because the 304 for its date is not taken.
    fn write_body(&mut self, data: &[u8]) {
        if !matches!(self.key, CacheKey::ETag(_)) {
            return;
        }
        let page = Page {
            key: self.key.clone(),
            response: CachedResponse {
                body: data.to_vec(),
                headers: self.headers.clone(),
            },
        };
        self.pages.pages().insert(self.uri.clone(), page);
    }
}

/// The type that octocrab's cache takes.
type Cacheable =
    BoxCloneService<Request<OctoBody>, Response<BoxBody<Bytes, octocrab::Error>>, RegistryError>;

/// Remembers the link to the next page that a 304 brings, for the 304s after it.
pub(super) fn links(inner: Stack, pages: Pages) -> Cacheable {
    let remembered = move |request: Request<OctoBody>| {
        let (inner, pages) = (inner.clone(), pages.clone());
        async move {
            let uri = request.uri().clone();
            let response = inner.oneshot(request).await?;
            if response.status() == StatusCode::NOT_MODIFIED
                && let Some(link) = response.headers().get(LINK)
            {
                pages.remember_link(&uri, link);
            }
            Ok(response.map(|body| body.map_err(|never| match never {}).boxed()))
        }
    };
    service_fn(remembered).boxed_clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_pages_are_forgotten_first() {
        let pages = Pages::default();
        for (path, size) in [("/a", 10), ("/b", 30), ("/c", 20)] {
            let uri: Uri = path.parse().unwrap();
            let key = CacheKey::ETag("\"x\"".into());
            let mut writer = pages.writer(&uri, key, HeaderMap::new());
            writer.write_body(&vec![0; size]);
        }
        let kept = |max_bytes| {
            pages.bound(max_bytes);
            let pages = pages.pages();
            let mut paths: Vec<String> = pages.keys().map(ToString::to_string).collect();
            paths.sort();
            paths.join(" ")
        };
        assert_eq!(kept(60), "/a /b /c");
        assert_eq!(kept(59), "/a /c");
        assert_eq!(kept(0), "");
    }
}
