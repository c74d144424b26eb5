//! The type of the stack between two layers.

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use octocrab::OctoBody;
use tower::util::BoxCloneService;

use crate::world::RegistryError;

/// The transport and the layers around it so far. It can be copied for another attempt.
pub(super) type Stack = BoxCloneService<Request<OctoBody>, Response<Full<Bytes>>, RegistryError>;
