//! How backends are found by URL.

use std::sync::Arc;

use super::{Backend, BackendResult};
use crate::workflow::BoxFuture;

/// Connects to the backend that a URL names.
pub type Connect = fn(&str) -> BoxFuture<'_, BackendResult<Arc<dyn Backend>>>;

/// A way to reach a backend by URL. Backend crates submit one to `inventory`.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// The schemes of the URLs that it takes, such as `["redis", "rediss"]`.
    pub schemes: &'static [&'static str],
    /// Where to connect when no URL is given; `None` if there must be one.
    pub default_url: Option<&'static str>,
    /// Which default is taken where several drivers have one: the smallest number.
    pub rank: u8,
    /// Connects.
    pub connect: Connect,
}

inventory::collect!(Driver);
