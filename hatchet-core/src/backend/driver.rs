//! How backends are found by URL.

use std::sync::Arc;

use super::{Backend, BackendResult};
use crate::definition::BoxFuture;

/// Connects to the backend that a URL names.
pub type Connect = fn(&str) -> BoxFuture<'_, BackendResult<Arc<dyn Backend>>>;

/// A way to reach a backend by URL. Backend crates submit one to `inventory`.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// The accepted URL schemes, such as `["redis", "rediss"]`.
    pub schemes: &'static [&'static str],
    /// The URL that is used if none is given; `None` if a URL is required.
    pub default_url: Option<&'static str>,
    /// The order of the default URLs: the driver with the smallest number is used.
    pub rank: u8,
    /// The function that connects.
    pub connect: Connect,
}

inventory::collect!(Driver);
