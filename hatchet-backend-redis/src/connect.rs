//! What happens when a backend is made: the servers are found, and checked, whether they can hold runs at all and what
//! they promise about them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt as _},
};
use redis::{Cmd, Value};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    client::{Client, Patience},
    codec::{Values, bytes_text},
    error::Error,
    keys::Keys,
    node::Lane,
    options::{MOST_PARTITIONS, Mode, Options},
    scripts::Scripts,
    servers::Servers,
    tls::explained,
};

/// The number of this layout: what is in a namespace that a program of this version created. Programs that do not know the number must
/// not use the namespace.
const FORMAT: &str = "3";
/// The layout before that. It lacks the lists of root runs by how they ended: a program of this version keeps them in such a namespace
/// and does not rely on them, since programs of the version before do not keep them.
const FORMAT_BEFORE: &str = "2";
/// How many runs are put into these lists in one call.
const LISTED_AT_ONCE: usize = 1000;
const OLDEST_MAJOR: u32 = 7;
/// How long one server of a cluster is waited for while it is found out what it is, and what it knows.
const CHECK: Duration = Duration::from_secs(2);
/// The maximum number of other partitions that are asked while the first one is unreachable. They are on several servers.
const MOST_ASKED: u16 = 16;

/// Connects to all partitions of a namespace. A server that is busy, or another one that may take the place of one that is
/// gone, is waited for; a single one that is not there is said to be so at once.
pub(crate) async fn connect(options: &Options) -> Result<Vec<Arc<Scripts>>, Error> {
    let mut patience = Patience::new(options.patience);
    loop {
        let error = match try_connect(options).await {
            Ok(partitions) => return Ok(partitions),
            Err(error) => explained(error, options).await,
        };
        if options.mode == Mode::One && error.is_refusal() {
            return Err(error);
        }
        patience.bear(error).await?;
    }
}

async fn try_connect(options: &Options) -> Result<Vec<Arc<Scripts>>, Error> {
    let mut servers = Servers::new(options)?;
    servers.detect_cluster().await?;
    let servers = Arc::new(servers);
    let (mut checked, mut away) = (BTreeSet::new(), BTreeSet::new());
    let first = open(&servers, options, 0);
    let (count, format) = match settle_at_first(&first, options, &mut checked, servers.is_cluster()).await {
        Ok(settled) => settled,
        Err(error) if servers.is_cluster() && error.may_pass() => {
            let found = ask_others(&servers, options).await?;
            away.insert(first.client().node(Lane::Commands).await?.address());
            found.ok_or(error)?
        }
        Err(error) => return Err(error),
    };
    let mut partitions = vec![first];
    partitions.extend((1..count).map(|partition| open(&servers, options, partition)));
    let is_first_away = !away.is_empty();
    check_others(&partitions[1..], &mut checked, &mut away).await?;
    let format = match &*format {
        FORMAT_BEFORE if !is_first_away && upgrade(&partitions, options).await => FORMAT,
        _ => &format,
    };
    if format == FORMAT {
        partitions.iter_mut().for_each(Scripts::rely_on_lists);
    }
    if servers.is_cluster() && !is_first_away {
        tell_others(&partitions[1..], &away, count, format).await;
    }
    tracing::info!(
        servers = ?checked,
        namespace = options.namespace,
        partitions = count,
        "connected to redis"
    );
    Ok(partitions.into_iter().map(Arc::new).collect())
}

/// Checks the server that holds the first partition, and learns from it what holds for the namespace. In a cluster it is not waited for
/// long, since others may know.
async fn settle_at_first(
    first: &Scripts,
    options: &Options,
    checked: &mut BTreeSet<String>,
    in_cluster: bool,
) -> Result<(u16, String), Error> {
    let settle = async {
        check(first.client(), checked).await?;
        settle_namespace(first, options).await
    };
    if in_cluster { timeout(CHECK, settle).await.unwrap_or(Err(Error::NoAnswer)) } else { settle.await }
}

/// What some other partition knows of the namespace, while the first one is out of reach. `None` if those that answer know nothing.
async fn ask_others(servers: &Arc<Servers>, options: &Options) -> Result<Option<(u16, String)>, Error> {
    let ask = |partition| async move {
        let scripts = open(servers, options, partition);
        let mut get = redis::cmd("HMGET");
        get.arg(scripts.keys().tag()).arg("format").arg("partitions");
        Values::of(scripts.client().query(&get).await?)
    };
    let others = 1..options.partitions.unwrap_or(MOST_ASKED).min(MOST_ASKED);
    let mut asked: FuturesUnordered<_> = others.map(ask).collect();
    let deadline = Instant::now() + CHECK;
    while let Ok(Some(answer)) = timeout_at(deadline, asked.next()).await {
        let Ok(mut known) = answer else { continue };
        let (Ok(format), Ok(count)) = (known.bytes(), known.bytes()) else { continue };
        let [format, count] = [format, count].map(|word| String::from_utf8_lossy(&word).into_owned());
        if format.is_empty() {
            continue;
        }
        check_format(options, &format)?;
        if let Some(ours) = options.partitions {
            check_same(options, "partitions", &count, &ours.to_string())?;
        }
        if let Some(count) = read_count(&count) {
            return Ok(Some((count, format)));
        }
    }
    Ok(None)
}

/// Has the partitions that can be reached know what the first one says of the namespace, for programs that come while that is away.
async fn tell_others(others: &[Scripts], away: &BTreeSet<String>, count: u16, format: &str) {
    let tell = async |scripts: &Scripts| {
        if away.contains(&scripts.client().node(Lane::Commands).await?.address()) {
            return Ok(Value::Nil);
        }
        let mut put = redis::cmd("HSET");
        put.arg(scripts.keys().tag()).arg("format").arg(format).arg("partitions").arg(count);
        scripts.client().query(&put).await
    };
    // Where it does not succeed the next program that connects tries it.
    let _ = join_all(others.iter().map(|scripts| timeout(CHECK, tell(scripts)))).await;
}

fn open(servers: &Arc<Servers>, options: &Options, partition: u16) -> Scripts {
    let keys = Keys::new(&options.namespace, partition);
    let client = Client::new(servers, keys.tag(), options.patience, options.replicas);
    Scripts::new(client, keys, options.retention)
}

/// Checks the servers that hold other partitions than the first, side by side. What cannot be reached now is not waited for: its
/// partitions are joined when they are back. `away`: whose servers that is.
async fn check_others(
    others: &[Scripts],
    checked: &mut BTreeSet<String>,
    away: &mut BTreeSet<String>,
) -> Result<(), Error> {
    let mut unchecked = BTreeMap::new();
    for scripts in others {
        let address = scripts.client().node(Lane::Commands).await?.address();
        if !checked.contains(&address) && !away.contains(&address) {
            unchecked.insert(address, scripts);
        }
    }
    let check_one = async |(address, scripts): (String, &Scripts)| {
        (address, timeout(CHECK, check_settings(scripts.client())).await)
    };
    for (address, answer) in join_all(unchecked.into_iter().map(check_one)).await {
        match answer {
            Ok(Ok(())) => {
                checked.insert(address);
            }
            Ok(Err(error)) if !error.may_pass() => return Err(error),
            Ok(Err(_)) | Err(_) => {
                away.insert(address);
            }
        }
    }
    if !away.is_empty() {
        tracing::warn!(servers = ?away, "some servers do not answer: their settings are not checked, and their runs wait");
    }
    Ok(())
}

/// Checks the server that holds a partition.
async fn check(client: &Client, checked: &mut BTreeSet<String>) -> Result<(), Error> {
    checked.insert(client.node(Lane::Commands).await?.address());
    check_settings(client).await
}

async fn check_settings(client: &Client) -> Result<(), Error> {
    let server = section(client, "server").await?;
    check_version(server.get("redis_version").map_or("", String::as_str))?;
    let replication = section(client, "replication").await?;
    if replication.get("role").is_some_and(|role| role != "master") {
        if !client.is_alone() {
            // Those who know who is master have not heard of it yet, or the server has not heard of them.
            return Err(Error::Replaced(client.node(Lane::Commands).await?.address().into()));
        }
        return Err(Error::Settings("the server is a replica: connect to its master".to_owned()));
    }
    let memory = section(client, "memory").await?;
    check_eviction(&memory)?;
    let persistence = section(client, "persistence").await?;
    warn_of_loss(client, &persistence).await;
    Ok(())
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
    Err(Error::Settings(format!("the server has version {version:?}, but {OLDEST_MAJOR}.0 or later is required")))
}

fn check_eviction(memory: &HashMap<String, String>) -> Result<(), Error> {
    match memory.get("maxmemory_policy").map(String::as_str) {
        None | Some("noeviction") => Ok(()),
        Some(policy) => Err(Error::Settings(format!(
            "the server may evict data when memory is short (maxmemory-policy is {policy}): set it to noeviction"
        ))),
    }
}

/// Says once what a crash of the server can cost.
async fn warn_of_loss(client: &Client, persistence: &HashMap<String, String>) {
    // While it loads its file a server says that it has none.
    if ["loading", "async_loading"].iter().any(|state| persistence.get(*state).is_some_and(|is| is == "1")) {
        return;
    }
    if persistence.get("aof_enabled").is_none_or(|enabled| enabled != "1") {
        tracing::warn!("the server writes no append-only file: a crash loses runs; set appendonly to yes");
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
            "a crash of the server can lose about the last two seconds of acknowledged changes; to prevent that, set appendfsync to always"
        );
    }
}

/// Brings a namespace of the format before to this one, if all its partitions can be reached and no session of a program is open that
/// does not know this format. Whether it did: otherwise the next program that connects tries again.
async fn upgrade(partitions: &[Scripts], options: &Options) -> bool {
    let namespace = &options.namespace;
    let upgraded = try_upgrade(partitions).await;
    match &upgraded {
        Ok(true) => tracing::info!(namespace, "the namespace was upgraded to format {FORMAT}"),
        Ok(false) => tracing::info!(
            namespace,
            "the namespace stays in format {FORMAT_BEFORE} while workers with an older version of this library are open: runs are listed \
             by status more slowly"
        ),
        Err(error) => tracing::warn!(namespace, %error, "the namespace was not upgraded to format {FORMAT}"),
    }
    matches!(upgraded, Ok(true))
}

async fn try_upgrade(partitions: &[Scripts]) -> Result<bool, Error> {
    for scripts in partitions {
        let mut highest = String::new();
        loop {
            let call = timeout(CHECK, scripts.list_by_ending(&highest, LISTED_AT_ONCE)).await;
            let (is_of_before, last) = call.map_err(|_| Error::NoAnswer)??;
            if is_of_before {
                return Ok(false);
            }
            if last.is_empty() {
                break;
            }
            highest = format!("({last}");
        }
    }
    let mut put = redis::cmd("HSET");
    put.arg(partitions[0].keys().tag()).arg("format").arg(FORMAT);
    partitions[0].client().query(&put).await?;
    Ok(true)
}

/// The number of partitions of a namespace never changes, since it says where a run is. What the first program says holds;
/// how many there are.
async fn settle_namespace(first: &Scripts, options: &Options) -> Result<(u16, String), Error> {
    let format = settle(first, options, "format", FORMAT, false).await?;
    check_format(options, &format)?;
    let wanted = options.partitions.unwrap_or(1).to_string();
    let stored = settle(first, options, "partitions", &wanted, options.partitions.is_some()).await?;
    match read_count(&stored) {
        Some(count) => Ok((count, format)),
        None => Err(Error::Settings(format!(
            "the namespace {:?} has {:?} for the number of its partitions, which is none from 1 to {MOST_PARTITIONS}: \
             the field `partitions` of the key {} was changed by another program",
            options.namespace,
            stored.escape_debug().to_string(),
            first.keys().tag()
        ))),
    }
}

fn read_count(stored: &str) -> Option<u16> {
    stored.parse().ok().filter(|count| (1..=MOST_PARTITIONS).contains(count))
}

fn check_format(options: &Options, stored: &str) -> Result<(), Error> {
    if stored == FORMAT || stored == FORMAT_BEFORE {
        return Ok(());
    }
    Err(Error::Settings(other_format(options, stored)))
}

fn check_same(options: &Options, field: &str, stored: &str, ours: &str) -> Result<(), Error> {
    if stored == ours {
        return Ok(());
    }
    Err(Error::Settings(format!(
        "the namespace {:?} has {field} {stored}, but this program is set to {ours}",
        options.namespace
    )))
}

/// What to do about a namespace that was written in another format. Nothing of it is read or changed.
fn other_format(options: &Options, stored: &str) -> String {
    let is_newer = |stored: u32| FORMAT.parse().is_ok_and(|ours: u32| stored > ours);
    let advice = match stored.parse() {
        Ok(number) if is_newer(number) => "a newer version of this library wrote it: update this program",
        Ok(_) => {
            "an older version of this library wrote it, and this version cannot read it: let its runs end with programs of the old \
             version, and use another namespace for this program"
        }
        Err(_) => "this is not a valid format: another program changed the field `format` of the namespace's key",
    };
    let stored = stored.escape_debug();
    format!(
        "the namespace {:?} has format {stored}, but this program uses format {FORMAT}: {advice}",
        options.namespace
    )
}

/// What is stored under this name, which is `ours` if nothing was.
async fn settle(
    first: &Scripts,
    options: &Options,
    field: &str,
    ours: &str,
    must_be_ours: bool,
) -> Result<String, Error> {
    let (client, key) = (first.client(), first.keys().tag());
    let mut get = redis::cmd("HGET");
    get.arg(key).arg(field);
    let mut stored = client.query(&get).await?;
    if stored == Value::Nil {
        // A server without room refuses this, so it is asked first.
        let mut put = redis::cmd("HSETNX");
        put.arg(key).arg(field).arg(ours);
        client.query(&put).await?;
        stored = client.query(&get).await?;
    }
    let stored = bytes_text(stored)?;
    if must_be_ours {
        check_same(options, field, &stored, ours)?;
    }
    Ok(stored)
}
