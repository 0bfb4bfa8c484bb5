//! What the settings and the state of a server mean for runs. Nothing is asked here.

use std::{collections::BTreeMap, time::Duration};

use super::Check;
use crate::moments::short;

/// Fields of `INFO`, by name.
pub(super) type Fields = BTreeMap<String, String>;

/// The oldest version whose functions the store needs.
const OLDEST_MAJOR: u32 = 7;
/// A larger difference between clocks is worth a word.
const SKEW: Duration = Duration::from_secs(2);

/// The version of the server.
pub(super) fn version(server: Option<&Fields>) -> Check {
    let name = "version";
    let Some(version) = server.and_then(|server| server.get("redis_version")) else { return Check::unknown(name) };
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
    match major >= OLDEST_MAJOR {
        true => Check::ok(name, format!("redis {version}")),
        false => Check::fail(name, format!("redis {version}"), "update the server to 7.0 or later"),
    }
}

/// Whether the server takes writes.
pub(super) fn role(replication: Option<&Fields>) -> Check {
    let name = "role";
    match replication.and_then(|replication| replication.get("role")).map(String::as_str) {
        Some("master") => Check::ok(name, "master"),
        Some(_) => Check::fail(name, "the server is a replica", "name its master in the URL"),
        None => Check::unknown(name),
    }
}

/// How many replicas have what is written, and whether programs wait for more than there are.
pub(super) fn replicas(replication: Option<&Fields>, wanted: u64) -> Check {
    let name = "replicas";
    let Some(replication) = replication else { return Check::unknown(name) };
    let online = (0..64).filter_map(|at| replication.get(&format!("slave{at}")));
    let online = online.filter(|replica| replica.contains("state=online")).count() as u64;
    let behind = (0..64)
        .filter_map(|at| replication.get(&format!("slave{at}")))
        .filter_map(|replica| replica.split(',').find_map(|pair| pair.strip_prefix("lag=")?.parse::<u64>().ok()));
    let behind = behind.max().map(|lag| format!(", last heard of {lag}s ago")).unwrap_or_default();
    match (online, wanted) {
        (online, wanted) if online < wanted => Check::fail(
            name,
            format!("{online}, but the URL asks to wait for {wanted}"),
            "no call is confirmed like this: add replicas, or lower replicas= in the URL",
        ),
        (0, _) => Check::ok(name, "none: the data is on this server alone"),
        (online, wanted) if online == wanted => Check::warn(
            name,
            format!("{online}{behind}, and programs wait for all of them"),
            "have one more than replicas= in the URL, so that the loss of one stops nothing",
        ),
        (online, _) => Check::ok(name, format!("{online}{behind}")),
    }
}

/// Whether the server drops data when memory is short, and how much room there is.
pub(super) fn memory(memory: Option<&Fields>) -> Vec<Check> {
    let name = "maxmemory-policy";
    let policy = memory.and_then(|memory| memory.get("maxmemory_policy")).map(String::as_str);
    let policy = match policy {
        Some("noeviction") => Check::ok(name, "noeviction"),
        Some(other) => Check::fail(
            name,
            format!("{other}: the server may drop runs when memory is short"),
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        ),
        None => Check::unknown(name),
    };
    let number = |field: &str| memory?.get(field)?.parse::<u64>().ok();
    let room = number("used_memory").zip(number("maxmemory")).filter(|(_, most)| *most > 0).map(|(used, most)| {
        let percent = used.saturating_mul(100) / most;
        let found = format!("{percent} % of maxmemory is used");
        match percent {
            0..80 => Check::ok("memory", found),
            _ => Check::warn("memory", found, "raise maxmemory: a full store starts no new runs"),
        }
    });
    std::iter::once(policy).chain(room).collect()
}

/// What a crash of the server costs.
pub(super) fn persistence(persistence: Option<&Fields>, appendfsync: Option<&str>) -> Vec<Check> {
    let name = "append-only file";
    let field = |name: &str| persistence.and_then(|persistence| persistence.get(name)).map(String::as_str);
    if [field("loading"), field("async_loading")].contains(&Some("1")) {
        return vec![Check::warn(name, "the server is loading its data", "wait until it has")];
    }
    match field("aof_enabled") {
        Some("1") => {}
        Some(_) => {
            let advice = "CONFIG SET appendonly yes, and the same in redis.conf";
            return vec![Check::warn(name, "off: a crash of the server loses runs", advice)];
        }
        None => return vec![Check::unknown(name)],
    }
    let written = match field("aof_last_write_status") {
        Some("err") => Check::fail(
            name,
            "on, but the server cannot write it",
            "look at the space on its disk and at its log: it refuses changes meanwhile",
        ),
        _ => Check::ok(name, "on"),
    };
    let sync = match appendfsync {
        Some("always") => Check::ok("appendfsync", "always: a crash loses nothing that was acknowledged"),
        Some("everysec") => Check::warn(
            "appendfsync",
            "everysec: a crash of the server can lose about two seconds of acknowledged changes",
            "if that is too much: CONFIG SET appendfsync always",
        ),
        Some(other) => Check::warn(
            "appendfsync",
            format!("{other}: a crash of the machine can lose more than a few seconds"),
            "CONFIG SET appendfsync everysec, or always",
        ),
        None => Check::unknown("appendfsync"),
    };
    vec![written, sync]
}

/// The clock of the server beside that of this machine. `ours` is from the middle of the question.
pub(super) fn clock(theirs: Duration, ours: Duration, trip: Duration) -> Check {
    let difference = theirs.abs_diff(ours);
    let side = if theirs > ours { "ahead of" } else { "behind" };
    // The answer may have been made at any time of the trip.
    if difference <= SKEW.max(trip) {
        return Check::ok(
            "clock",
            format!("as on this machine, within {}", short(difference.max(trip).max(Duration::from_millis(1)))),
        );
    }
    Check::warn(
        "clock",
        format!("{} {side} the clock of this machine", short(difference)),
        "let both follow a time server: timers follow the clock of the server",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_old_version_fails_and_an_unknown_one_is_not_judged() {
        let state = |version: &str| super::version(Some(&fields(&[("redis_version", version)]))).state;
        assert_eq!([state("6.2.14"), state("7.0.15"), state("8.2.0")], [State::Fail, State::Ok, State::Ok]);
        assert_eq!(version(None).state, State::Unknown);
    }

    #[test]
    fn eviction_fails_and_little_room_is_a_warning() {
        let states =
            |pairs: &[(&str, &str)]| memory(Some(&fields(pairs))).into_iter().map(|check| check.state).collect();
        let evicting: Vec<State> = states(&[("maxmemory_policy", "allkeys-lru"), ("maxmemory", "0")]);
        assert_eq!(evicting, [State::Fail]);
        let full: Vec<State> =
            states(&[("maxmemory_policy", "noeviction"), ("maxmemory", "100"), ("used_memory", "85")]);
        assert_eq!(full, [State::Ok, State::Warn]);
    }

    #[test]
    fn a_setting_that_is_refused_is_not_judged() {
        let on = fields(&[("aof_enabled", "1"), ("loading", "0")]);
        let checks = persistence(Some(&on), None);
        assert_eq!(checks[1], Check::unknown("appendfsync"));
        let off = fields(&[("aof_enabled", "0"), ("loading", "0")]);
        assert_eq!(persistence(Some(&off), Some("everysec"))[0].state, State::Warn);
    }

    #[test]
    fn fewer_replicas_than_are_waited_for_fail() {
        let one = fields(&[("role", "master"), ("slave0", "ip=h,port=1,state=online,offset=1,lag=0")]);
        let states = [0, 1, 2].map(|wanted| replicas(Some(&one), wanted).state);
        assert_eq!(states, [State::Ok, State::Warn, State::Fail]);
        assert_eq!(replicas(Some(&fields(&[("role", "master")])), 0).state, State::Ok);
    }

    #[test]
    fn clocks_may_differ_by_the_time_of_the_question() {
        let seconds = Duration::from_secs;
        assert_eq!(clock(seconds(100), seconds(103), seconds(4)).state, State::Ok);
        let behind = clock(seconds(100), seconds(400), seconds(0));
        assert_eq!((behind.state, behind.found.as_str()), (State::Warn, "5m behind the clock of this machine"));
    }
}
