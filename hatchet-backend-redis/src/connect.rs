//! What is checked when a backend is made: that the server can hold runs at all, and what it promises about them.

use std::collections::HashMap;

use redis::Cmd;

use crate::{
    client::Client,
    codec::{Values, bytes_text},
    error::Error,
    keys::Keys,
    options::Options,
};

/// The number of this layout. Programs with another one must not share a namespace.
const FORMAT: &str = "1";
const OLDEST_MAJOR: u32 = 7;

pub(crate) async fn check(client: &Client, keys: &Keys, options: &Options) -> Result<(), Error> {
    let server = section(client, "server").await?;
    check_version(server.get("redis_version").map_or("", String::as_str))?;
    let replication = section(client, "replication").await?;
    if replication.get("role").is_some_and(|role| role != "master") {
        return Err(Error::Settings("the server is a replica: connect to its master".to_owned()));
    }
    let memory = section(client, "memory").await?;
    check_eviction(&memory)?;
    let persistence = section(client, "persistence").await?;
    warn_of_loss(client, &persistence).await;
    check_namespace(client, keys, options).await
}

async fn section(client: &Client, name: &str) -> Result<HashMap<String, String>, Error> {
    let mut command = redis::cmd("INFO");
    command.arg(name);
    let text = bytes_text(client.query(&command).await?)?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
}

fn check_version(version: &str) -> Result<(), Error> {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
    if major >= OLDEST_MAJOR {
        return Ok(());
    }
    Err(Error::Settings(format!("the server has version {version:?}, and {OLDEST_MAJOR}.0 or later is needed")))
}

fn check_eviction(memory: &HashMap<String, String>) -> Result<(), Error> {
    match memory.get("maxmemory_policy").map(String::as_str) {
        None | Some("noeviction") => Ok(()),
        Some(policy) => Err(Error::Settings(format!(
            "the server may drop data when memory is short (maxmemory-policy is {policy}): set it to noeviction"
        ))),
    }
}

/// Says once what a crash of the server can cost.
async fn warn_of_loss(client: &Client, persistence: &HashMap<String, String>) {
    if persistence.get("aof_enabled").is_none_or(|enabled| enabled != "1") {
        tracing::warn!("the server keeps no append-only file: a crash of it loses runs; set appendonly to yes");
        return;
    }
    let mut command: Cmd = redis::cmd("CONFIG");
    command.arg("GET").arg("appendfsync");
    // A user without the right to ask gets no warning; the documentation says what each setting promises.
    let Ok(mut reply) = client.query(&command).await.and_then(Values::of) else { return };
    let policy = reply.bytes().and_then(|_| reply.bytes()).unwrap_or_default();
    if &policy[..] != b"always" {
        tracing::warn!(
            appendfsync = %String::from_utf8_lossy(&policy),
            "a crash of the server can lose about the last two seconds of what it acknowledged; set appendfsync to always if it must not"
        );
    }
}

/// The number of partitions of a namespace never changes, since it says where a run is.
async fn check_namespace(client: &Client, keys: &Keys, options: &Options) -> Result<(), Error> {
    let wanted = options.partitions.to_string();
    for (field, ours) in [("format", FORMAT), ("partitions", wanted.as_str())] {
        let mut put = redis::cmd("HSETNX");
        put.arg(keys.tag()).arg(field).arg(ours);
        client.query(&put).await?;
        let mut get = redis::cmd("HGET");
        get.arg(keys.tag()).arg(field);
        let stored = bytes_text(client.query(&get).await?)?;
        if stored != ours {
            return Err(Error::Settings(format!(
                "the namespace {:?} has {field} {stored}, and this program is set to {ours}",
                options.namespace
            )));
        }
    }
    Ok(())
}
