//! Names of keys. This is the only place in Rust that knows them; the scripts build theirs from the same tag.
//!
//! Every key of a partition is its tag, `{namespace:partition}`, or begins with it, so that Redis Cluster keeps them
//! together.
//!
//! | key | type | what |
//! | --- | --- | --- |
//! | `T` | hash | the format, the number of partitions (in a cluster in each partition; what the first says holds), the time of the last heartbeat, of the last check of connections and of the last sweep (and which session made it), the server and since when it is known, the last jumps of the clock, counters of roots, of tasks that were set aside and of turns |
//! | `T:W` | string | what is written last where replicas must confirm what is before it |
//! | `T:s` | zset | open sessions by the end of their lease, in ms |
//! | `T:f` | zset | sessions that are not accepted again, by when they may be forgotten |
//! | `T:v` | hash | sessions that are over and still hold leases: `d` dead, `c` closed |
//! | `T:h:session` | hash | lease time, label, workflows, queues, connection (server and number) that it lives by, number of the inbox's first event, what its version of this library can do, number of the last question of a check and the answer |
//! | `T:l:session` | hash | its leases: task → token, moment of the claim, the rest of its queue element; or chunk of children → the same for many, with their positions |
//! | `T:i:session`, `T:m:session` | list | its inbox, and the mark that its blocking connection waits for |
//! | `T:w` | set | names of workflows |
//! | `T:q` | set | names of queues |
//! | `T:q:class:queue` | list | ready tasks, neighbouring children as one element: classes 0–2 resumed, 3–5 new, each by priority |
//! | `T:A:queue`, `T:B:class:queue and workflow` | hash, list | workflow → number of its tasks that were set aside; those, in their order. The same for stalled tasks, with the names behind the workflow that they are not for |
//! | `T:F:class:queue`, `T:H:class:queue and workflow` | list, list | the workflows whose large fan-outs take turns with the tasks of a class; their journals |
//! | `T:G:class:queue and J and workflow` | list | the tasks of a large fan-out, as in the queue's own list |
//! | `T:P` | hash | queues and workflows that are paused → since when; only while something is |
//! | `T:y:queue` | zset | sessions that wanted more than the queue had |
//! | `T:n` | hash | per queue: ready, delayed, leased, parked and stalled tasks, and tasks in ready lists whose run has ended |
//! | `T:bad` | hash | values that calls met where ours should be, and could not work on: set aside, or passed over |
//! | `T:z` | zset | what is to happen at its time: delayed tasks, timers, ends of parking, ends of a run's time |
//! | `T:D` | hash | what of that was set while the clock was in doubt, after it had jumped ahead or gone back → how long it waits, in ms |
//! | `T:k`, `T:p` | list | work under way: descendants to cancel, trees to remove |
//! | `T:a` | zset | root runs in the order of their creation |
//! | `T:a:u`, `T:a:f`, `T:a:c`, `T:a:e` | zset | those of them that have not ended, failed, were cancelled, expired |
//! | `T:N:minute` | hash | what happened to root runs in a minute: a letter and the queue → how many; kept for a day |
//! | `T:x` | zset | roots of ended trees by when they are to be removed |
//! | `T:d` | hash | idempotency key → root run |
//! | `T:o` | hash | unfinished run → sessions that watch it |
//! | `T:r:run` | hash | a root run, or what a child needs beyond its entry: state, first claim, limits, uid, steps with journals, the run that it continues and those that continue it |
//! | `T:t:run`, `T:u:run` | hash | its tasks but for a first one to which nothing happened; its outputs |
//! | `T:g:run`, `T:gw:…`, `T:gm:…` | hash, lists | its signals: ids that came, entries that wait, payloads that are kept |
//! | `T:j:J` | hash | a journal (J is uid and step): owner, sequence, holder, whether that waits, parked task, counts |
//! | `T:c:J chunk`, `T:C:J chunk` | hash, hash | 64 children by index, in segments; their results, in groups |
//! | `T:e:J chunk`, `T:E:J chunk` | list, hash | 64 named entries and children with keys, in the order of writing; their resolutions |
//! | `T:b:J`, `T:x:J` | list, hash | chunks of the first kind that exist; names and keys → place in the second kind |
//! | `T:M:J`, `T:O:J` | list, hash | children that have a record of their own; replaced generations |

use hatchet_core::backend::SessionId;

/// The keys of one partition of a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    tag: String,
}

impl Keys {
    pub(crate) fn new(namespace: &str, partition: u16) -> Self {
        Self { tag: format!("{{{namespace}:{partition}}}") }
    }

    /// The partition's own key, from which scripts build all others.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// How many tasks are where, by queue.
    pub(crate) fn counters(&self) -> String {
        format!("{}:n", self.tag)
    }

    /// What is paused.
    pub(crate) fn pauses(&self) -> String {
        format!("{}:P", self.tag)
    }

    /// Where there is something in a session's inbox, if its reader might be waiting.
    pub(crate) fn mark(&self, session: SessionId) -> Vec<u8> {
        let mut key = format!("{}:m:", self.tag).into_bytes();
        key.extend_from_slice(&session.0.to_be_bytes());
        key
    }
}
