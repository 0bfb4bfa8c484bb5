//! What a measurement used: CPU and memory of this process, CPU, memory, file and commands of the server.

use std::{collections::BTreeMap, fs};

use redis::aio::MultiplexedConnection;

use crate::{Result, sample::Sample};

/// The commands that call a function or a script.
const SCRIPTS: [&str; 4] = ["fcall", "fcall_ro", "eval", "evalsha"];

/// Looks at this process and, if there is one, at the server.
pub(crate) struct Meter {
    server: Option<MultiplexedConnection>,
}

/// What was used up to a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// CPU of this process in microseconds.
    own_cpu: f64,
    server: Option<ServerUsage>,
}

#[derive(Clone, Debug, Default)]
struct ServerUsage {
    cpu: f64,
    memory: f64,
    file: f64,
    /// How often each command was called, and how many microseconds it took, those inside of functions included.
    commands: BTreeMap<String, (f64, f64)>,
}

impl Meter {
    pub(crate) fn new(server: Option<MultiplexedConnection>) -> Self {
        Self { server }
    }

    pub(crate) async fn look(&self) -> Result<Usage> {
        let server = match &self.server {
            Some(connection) => {
                let text: String = redis::cmd("INFO").arg("everything").query_async(&mut connection.clone()).await?;
                Some(ServerUsage::parse(&text))
            }
            None => None,
        };
        Ok(Usage { own_cpu: own_cpu()?, server })
    }
}

impl Usage {
    /// Sets what was used from `before` to this moment, for each of `count` units.
    pub(crate) fn since(&self, before: &Self, count: usize, sample: &mut Sample) -> Result<()> {
        let each = |before: f64, after: f64| (after - before) / count as f64;
        sample.set("cpu", each(before.own_cpu, self.own_cpu));
        sample.set("peak", peak_memory()?);
        if let (Some(before), Some(after)) = (&before.server, &self.server) {
            sample.set("redis.cpu", each(before.cpu, after.cpu));
            sample.set("redis.memory", each(before.memory, after.memory));
            sample.set("redis.file", each(before.file, after.file));
            let all = |usage: &ServerUsage| usage.commands.values().map(|(calls, _)| calls).sum();
            let scripts = |usage: &ServerUsage| {
                SCRIPTS.iter().filter_map(|name| usage.commands.get(*name)).map(|(calls, _)| calls).sum()
            };
            sample.set("redis.calls", each(scripts(before), scripts(after)));
            sample.set("redis.commands", each(all(before), all(after)));
            for (name, (calls, time)) in &after.commands {
                let (calls_before, time_before) = before.commands.get(name).copied().unwrap_or_default();
                sample.set(format!("redis.{name}.calls"), each(calls_before, *calls));
                sample.set(format!("redis.{name}.time"), each(time_before, *time));
            }
        }
        Ok(())
    }
}

impl ServerUsage {
    fn parse(info: &str) -> Self {
        let pairs: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
        let number = |name: &str| pairs.get(name).and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        Self {
            cpu: (number("used_cpu_user") + number("used_cpu_sys")) * 1e6,
            memory: number("used_memory"),
            file: number("aof_current_size"),
            commands: pairs.iter().filter_map(|(name, stat)| command(name, stat)).collect(),
        }
    }
}

/// A line of the statistics of commands, such as `cmdstat_hset:calls=3,usec=7,…`. Looking is not counted.
fn command(name: &str, stat: &str) -> Option<(String, (f64, f64))> {
    let name = name.strip_prefix("cmdstat_").filter(|name| *name != "info")?;
    let mut numbers = stat.split(',').filter_map(|field| field.split_once('=')?.1.parse().ok());
    Some((name.to_owned(), (numbers.next()?, numbers.next()?)))
}

/// CPU of this process in microseconds, as the scheduler counts it: finer than the ticks of `/proc/self/stat`.
fn own_cpu() -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir("/proc/self/task")? {
        // A thread may end meanwhile; those of a runtime do not.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += text.split(' ').next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e3)
}

/// The most memory that this process ever had, in MiB.
fn peak_memory() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
