//! Which node of a cluster has which slots, as its nodes say.
//!
//! Nodes may differ: one that was cut off goes on believing that it has its slots. As among the nodes themselves, the claim
//! with the higher configuration epoch holds, since a majority of the masters has voted for it, and a node that says of itself that its
//! cluster is down has no say.

use std::collections::{HashMap, HashSet};

use redis::{Pipeline, Value};

use crate::{codec::bytes_text, error::Error};

const SLOTS: u16 = 16384;

/// A host and a port.
pub(crate) type Place = (String, u16);

/// What some nodes say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    ranges: Vec<Range>,
    /// All nodes, replicas too.
    nodes: HashSet<Place>,
}

/// Slots that a master claims.
#[derive(Clone, Debug)]
struct Range {
    first: u16,
    last: u16,
    epoch: u64,
    master: Place,
}

impl Topology {
    /// How many answers [`Self::question`] has.
    pub(crate) const ANSWERS: usize = 3;

    pub(crate) fn question() -> Pipeline {
        let mut question = Pipeline::with_capacity(Self::ANSWERS);
        question.cmd("CLUSTER").arg("INFO");
        question.cmd("CLUSTER").arg("NODES");
        question.cmd("CLUSTER").arg("SLOTS");
        question
    }

    /// Reads what a node answers that was asked at this address.
    pub(crate) fn read(answers: Vec<Result<Value, Error>>, asked: &str) -> Result<Self, Error> {
        let [info, nodes, slots] = <[_; Self::ANSWERS]>::try_from(answers).map_err(|_| Error::Malformed(REPLY))?;
        // A user without the right to ask does without: then the first answer holds.
        let text = |answer: Result<Value, Error>| match answer {
            Err(error) if error.is_no_right() => Ok(String::new()),
            answer => bytes_text(answer?),
        };
        let is_down = text(info)?.lines().any(|line| line.trim() == "cluster_state:fail");
        if is_down {
            return Err(Error::ClusterDown(asked.to_owned()));
        }
        let mut topology = Self::default();
        topology.read_slots(slots?, &epochs(&text(nodes)?), asked)?;
        if topology.ranges.is_empty() { Err(Error::ClusterDown(asked.to_owned())) } else { Ok(topology) }
    }

    /// Reads `CLUSTER SLOTS`: for each range its first and its last slot, and its nodes, the master first.
    fn read_slots(&mut self, answer: Value, epochs: &HashMap<String, u64>, asked: &str) -> Result<(), Error> {
        let Value::Array(ranges) = answer else { return Err(Error::Malformed(REPLY)) };
        for range in ranges {
            let Value::Array(range) = range else { return Err(Error::Malformed(REPLY)) };
            let mut range = range.into_iter();
            let (Some(Value::Int(first)), Some(Value::Int(last))) = (range.next(), range.next()) else {
                return Err(Error::Malformed(REPLY));
            };
            let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) else {
                return Err(Error::Malformed(REPLY));
            };
            for (at, node) in range.enumerate() {
                let Value::Array(mut node) = node else { return Err(Error::Malformed(REPLY)) };
                let id = if node.len() > 2 { bytes_text(node.swap_remove(2))? } else { String::new() };
                let place = read_place(node, asked)?;
                self.nodes.insert(place.clone());
                if at == 0 {
                    let epoch = epochs.get(&id).copied().unwrap_or_default();
                    self.ranges.push(Range { first, last, epoch, master: place });
                }
            }
        }
        Ok(())
    }

    /// Adds what another node says.
    pub(crate) fn add(&mut self, other: Self) {
        self.ranges.extend(other.ranges);
        self.nodes.extend(other.nodes);
    }

    /// The master of a slot.
    pub(crate) fn master_of(&self, slot: u16) -> Option<&Place> {
        let claims = self.ranges.iter().filter(|range| (range.first..=range.last).contains(&slot));
        // Of several with one epoch the first.
        let newest = claims.reduce(|newest, claim| if claim.epoch > newest.epoch { claim } else { newest });
        newest.map(|range| &range.master)
    }

    /// All masters that have slots.
    pub(crate) fn masters(&self) -> HashSet<&Place> {
        // A claim that does not hold for its first slot may hold for another.
        let begins: HashSet<u16> = self.ranges.iter().flat_map(|range| [range.first, range.last]).collect();
        begins.into_iter().filter_map(|slot| self.master_of(slot)).collect()
    }

    pub(crate) fn nodes(&self) -> &HashSet<Place> {
        &self.nodes
    }
}

const REPLY: &str = "the description of a cluster";

/// The configuration epochs of all nodes, in what `CLUSTER NODES` answers.
fn epochs(text: &str) -> HashMap<String, u64> {
    let node = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.nth(5)?.parse().ok()?))
    };
    text.lines().filter_map(node).collect()
}

/// Reads a host and a port. A node that does not know its own address is where it was asked.
fn read_place(parts: Vec<Value>, asked: &str) -> Result<Place, Error> {
    let mut parts = parts.into_iter();
    let (Some(host), Some(port)) = (parts.next(), parts.next()) else { return Err(Error::Malformed("an address")) };
    let host = if host == Value::Nil { String::new() } else { bytes_text(host)? };
    let host = if host.is_empty() { asked.rsplit_once(':').map_or(asked, |(host, _)| host).to_owned() } else { host };
    Ok((host, bytes_text(port)?.parse().map_err(|_| Error::Malformed("a port"))?))
}

/// The slot of a key that is a tag in braces, or begins with one.
pub(crate) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16 as XMODEM counts it.
fn crc16(bytes: &[u8]) -> u16 {
    let bit = |crc: u16, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 };
    bytes.iter().fold(0, |crc, byte| (0..8).fold(crc ^ (u16::from(*byte) << 8), bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, host: Value, port: i64, id: &str) -> Value {
        Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(vec![host, Value::Int(port), text(id)])])
    }

    fn read(state: &str, nodes: &str, ranges: Vec<Value>, asked: &str) -> Result<Topology, Error> {
        let info = format!("cluster_enabled:1\r\ncluster_state:{state}\r\n");
        Topology::read(vec![Ok(text(&info)), Ok(text(nodes)), Ok(Value::Array(ranges))], asked)
    }

    #[test]
    fn the_owner_of_a_slot_is_the_master_of_its_range() {
        let ranges = vec![
            range(0, 99, text("a"), 1, "x"),
            range(100, 199, text(""), 2, "y"),
            range(200, 200, Value::Nil, 3, ""),
        ];
        let topology = read("ok", "", ranges, "h:9").unwrap();
        assert_eq!(topology.master_of(99), Some(&("a".to_owned(), 1)));
        assert_eq!(topology.master_of(100), Some(&("h".to_owned(), 2)));
        assert_eq!(topology.master_of(200), Some(&("h".to_owned(), 3)));
        assert_eq!(topology.master_of(201), None);
    }

    #[test]
    fn of_two_claims_the_one_with_the_higher_epoch_holds_whichever_is_heard_first() {
        let nodes = "old 127.0.0.1:1@11 myself,master - 0 0 3 connected 0-99\n\
                     new 127.0.0.1:2@12,name slave old 0 0 3 connected\n";
        let of_old = || read("ok", nodes, vec![range(0, 99, text("a"), 1, "old")], "a:1").unwrap();
        let nodes = "old 127.0.0.1:1@11 master,fail - 0 0 3 connected\n\
                     new 127.0.0.1:2@12,name master - 0 0 12 connected 0-99\n";
        let of_new = || read("ok", nodes, vec![range(0, 99, text("b"), 2, "new")], "c:3").unwrap();
        for (mut topology, other) in [(of_old(), of_new()), (of_new(), of_old())] {
            topology.add(other);
            assert_eq!(topology.master_of(50), Some(&("b".to_owned(), 2)));
            assert_eq!(topology.masters(), HashSet::from([&("b".to_owned(), 2)]));
        }
    }

    #[test]
    fn of_two_claims_with_one_epoch_the_first_that_is_heard_holds() {
        // As where the user has no right to ask for the epochs.
        let of = |host: &str| read("ok", "", vec![range(0, 99, text(host), 1, "")], "h:1").unwrap();
        let mut topology = of("a");
        topology.add(of("b"));
        assert_eq!(topology.master_of(50), Some(&("a".to_owned(), 1)));
    }

    #[test]
    fn a_node_whose_own_state_is_fail_has_no_say() {
        let error = read("fail", "", vec![range(0, 99, text("a"), 1, "x")], "a:1").unwrap_err();
        assert!(matches!(error, Error::ClusterDown(at) if at == "a:1"));
        assert!(matches!(read("ok", "", Vec::new(), "a:1"), Err(Error::ClusterDown(_))));
    }

    #[test]
    fn slots_are_those_that_servers_count() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of("foo"), 12182);
        assert_eq!((slot_of("{foo}:x"), slot_of("{}")), (12182, slot_of("{}")));
        assert_eq!(slot_of("{hatchet:0}"), slot_of("hatchet:0"));
    }
}
