//! Commands that go to a server past the backend, as an operator's would.

#![allow(dead_code, reason = "each test program uses a part of it")]

use redis::{AsyncConnectionConfig, RedisResult, aio::MultiplexedConnection};

/// A connection that waits for its answers as long as they take: a loaded machine is slow.
pub(crate) async fn try_connect(url: &str) -> RedisResult<MultiplexedConnection> {
    let patient = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&patient).await
}

pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    try_connect(url).await.expect("a connection")
}

/// Sends a command.
pub(crate) async fn operate(url: &str, words: &[&str]) -> redis::Value {
    let mut connection = connect(url).await;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await.expect("the server takes the command")
}

/// How often functions were called.
pub(crate) async fn calls(url: &str) -> u64 {
    calls_of(url, "fcall").await
}

/// How often a command was called, inside of functions too.
pub(crate) async fn calls_of(url: &str, command: &str) -> u64 {
    calls_by_command(url).await.iter().find(|(name, _)| name == command).map_or(0, |(_, calls)| *calls)
}

/// How often commands were called, those inside of functions included.
pub(crate) async fn commands(url: &str) -> u64 {
    calls_by_command(url).await.iter().map(|(_, calls)| calls).sum()
}

async fn calls_by_command(url: &str) -> Vec<(String, u64)> {
    let mut connection = connect(url).await;
    let text: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("INFO");
    let calls = |line: &str| {
        let (name, calls) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), calls.split(',').next()?.parse().ok()?))
    };
    text.lines().filter_map(calls).collect()
}
