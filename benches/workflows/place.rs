//! Where something is measured: in memory, or on a Redis that is started for this one measurement.

use std::{fmt, str::FromStr};

use hatchet::Hatchet;

use crate::{Result, server::Server};

/// A backend with its promise: what a crash of the machine loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Memory,
    /// Redis without an append-only file.
    Off,
    /// Redis with `appendfsync everysec`.
    Everysec,
    /// Redis with `appendfsync always`.
    Always,
}

impl Place {
    pub(crate) const ALL: [Self; 4] = [Self::Memory, Self::Off, Self::Everysec, Self::Always];

    pub(crate) const REDIS: [Self; 3] = [Self::Off, Self::Everysec, Self::Always];

    /// Starts what is needed.
    pub(crate) fn open(self) -> Site {
        let settings: &[&str] = match self {
            Self::Memory => return Site { server: None },
            Self::Off => &["--appendonly", "no"],
            Self::Everysec => &["--appendonly", "yes", "--appendfsync", "everysec"],
            Self::Always => &["--appendonly", "yes", "--appendfsync", "always"],
        };
        Site { server: Some(Server::start(settings)) }
    }

    /// How tables name it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Off => "Redis, AOF off",
            Self::Everysec => "Redis, everysec",
            Self::Always => "Redis, always",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Off => "off",
            Self::Everysec => "everysec",
            Self::Always => "always",
        })
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let place = Self::ALL.into_iter().find(|place| place.to_string() == text);
        place.ok_or_else(|| format!("{text:?} is none of memory, off, everysec, always"))
    }
}

/// A backend that is there, gone with this value.
#[derive(Debug)]
pub(crate) struct Site {
    server: Option<Server>,
}

impl Site {
    pub(crate) fn is_redis(&self) -> bool {
        self.server.is_some()
    }

    pub(crate) fn url(&self) -> String {
        self.server.as_ref().map_or_else(|| "memory://".to_owned(), Server::url)
    }

    pub(crate) async fn connect(&self) -> Result<Hatchet> {
        Ok(Hatchet::connect(&self.url()).await?)
    }

    /// A connection beside the SDK's, if this is Redis.
    pub(crate) async fn connection(&self) -> Result<Option<redis::aio::MultiplexedConnection>> {
        let Some(server) = &self.server else { return Ok(None) };
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let client = redis::Client::open(server.url())?;
        let info = client.get_connection_info().clone().set_tcp_settings(tcp);
        Ok(Some(redis::Client::open(info)?.get_multiplexed_async_connection().await?))
    }
}
