//! The same work without the SDK: what is left of the machine's speed when nothing is promised.

pub(crate) mod memory;
pub(crate) mod redis;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use self::redis::{Bare, Service};
use crate::{
    Result,
    flows::{Page, Summary},
    place::Site,
};

/// Does the work of one child at a time for whoever asks.
#[derive(Clone)]
pub(crate) struct Worker {
    service: Option<Arc<Service>>,
    next: Arc<AtomicUsize>,
}

impl Worker {
    pub(crate) async fn at(site: &Site) -> Result<Self> {
        let service = site.connection().await?.map(|connection| Arc::new(Service::start(&Bare::new(connection))));
        Ok(Self { service, next: Arc::default() })
    }

    /// Two children at a time must not have the same number.
    pub(crate) async fn run(&self, number: usize) -> Result<Summary> {
        let page = Page::numbered(number);
        match &self.service {
            Some(service) => service.run(number as u32, page).await,
            None => memory::run(page).await,
        }
    }

    pub(crate) async fn run_next(&self) -> Result<()> {
        self.run(self.next.fetch_add(1, Ordering::Relaxed)).await.map(drop)
    }
}
