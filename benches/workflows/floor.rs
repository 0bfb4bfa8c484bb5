//! The same work without the SDK: what is left of the machine's speed when nothing is promised.

pub(crate) mod memory;
pub(crate) mod redis;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use self::redis::{Bare, Service};
use crate::{Result, flows::Page, place::Site};

/// Does the work of one child at a time for whoever asks.
#[derive(Clone)]
pub(crate) struct Worker {
    service: Option<Arc<Service>>,
    last: Arc<AtomicU32>,
}

impl Worker {
    pub(crate) async fn at(site: &Site) -> Result<Self> {
        let service = site.connection().await?.map(|connection| Arc::new(Service::start(&Bare::new(connection))));
        Ok(Self { service, last: Arc::default() })
    }

    pub(crate) async fn run(&self) -> Result<()> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let page = Page::numbered(number as usize);
        match &self.service {
            Some(service) => service.run(number, page).await.map(drop),
            None => memory::run(page).await.map(drop),
        }
    }
}
