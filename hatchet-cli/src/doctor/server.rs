//! The questions to Redis servers. What a server refuses to tell, as managed services do, is said to be unknown.

use std::time::{Duration, Instant, SystemTime};

use super::{
    Check, Findings,
    address::{Address, Connection},
    settings,
};
use crate::failure::Outcome;

/// Looks at all servers. Returns whether the namespace exists.
pub(super) async fn examine(findings: &mut Findings, address: &Address) -> Outcome<bool> {
    let mut masters = address.masters().await?;
    let many = masters.len() > 1;
    for master in &mut masters {
        let mut checks = examine_one(master, address).await;
        if many {
            let place = master.address.clone();
            checks.iter_mut().for_each(|check| check.name = format!("{place} {}", check.name));
        }
        findings.add(checks)?;
    }
    let format = format_of(&mut masters, &address.namespace).await;
    let is_known = format.is_some();
    if !is_known {
        findings.add([Check::warn(
            "namespace",
            format!("{:?} is not used yet", address.namespace),
            "start a worker on it; if there is one already, compare namespace= in its URL with this one",
        )])?;
    }
    Ok(is_known)
}

async fn examine_one(server: &mut Connection, address: &Address) -> Vec<Check> {
    let began = Instant::now();
    let pong = server.ask::<String>(&redis::cmd("PING")).await;
    let trip = began.elapsed();
    let mut checks = vec![match pong {
        Ok(_) => {
            Check::ok("server", format!("redis at {} answers in {:.1} ms", server.address, trip.as_secs_f64() * 1e3))
        }
        Err(error) => Check::fail("server", error.to_string(), "look at the server and at its log"),
    }];
    let info = server.info("server").await;
    checks.push(settings::version(info.as_ref()));
    let replication = server.info("replication").await;
    checks.push(settings::role(replication.as_ref()));
    checks.push(settings::replicas(replication.as_ref(), address.replicas));
    checks.extend(settings::memory(server.info("memory").await.as_ref()));
    let appendfsync = setting(server, "appendfsync").await;
    checks.extend(settings::persistence(server.info("persistence").await.as_ref(), appendfsync.as_deref()));
    checks.push(clock(server).await);
    checks.push(library(server).await);
    checks
}

/// A setting of the server, if it tells.
async fn setting(server: &mut Connection, name: &str) -> Option<String> {
    let pair: Vec<String> = server.ask(redis::cmd("CONFIG").arg("GET").arg(name)).await.ok()?;
    pair.into_iter().nth(1)
}

async fn clock(server: &mut Connection) -> Check {
    let (before, began) = (SystemTime::now(), Instant::now());
    let Ok((seconds, micros)) = server.ask::<(u64, u64)>(&redis::cmd("TIME")).await else {
        return Check::unknown("clock");
    };
    let trip = began.elapsed();
    let ours = before.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + trip / 2;
    settings::clock(Duration::from_secs(seconds) + Duration::from_micros(micros), ours, trip)
}

/// Whether the server can have functions at all. That those of this version can be loaded is seen when the store is used.
async fn library(server: &mut Connection) -> Check {
    let name = "functions";
    let mut list = redis::cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg("hatchet_*");
    match server.ask::<Vec<redis::Value>>(&list).await {
        Ok(libraries) if libraries.is_empty() => Check::ok(name, "none is loaded yet: the first program loads them"),
        Ok(libraries) if libraries.len() == 1 => Check::ok(name, "loaded"),
        Ok(libraries) => Check::ok(name, format!("loaded, for {} versions of programs", libraries.len())),
        Err(_) => Check::unknown(name),
    }
}

/// The format of what is stored, from whichever server has the first partition.
async fn format_of(masters: &mut [Connection], namespace: &str) -> Option<String> {
    for master in masters {
        let mut get = redis::cmd("HGET");
        get.arg(format!("{{{namespace}:0}}")).arg("format");
        // The other servers of a cluster say where it is instead.
        if let Ok(Some(format)) = master.ask::<Option<String>>(&get).await {
            return Some(format);
        }
    }
    None
}
