//! The commands that run in the server, and one typed function for each.
//!
//! They are functions of one library, made of the files in `scripts/`: those in `lib/`, then one file a command, whose
//! first line says whether it may run when memory is short (`allow-oom`), not (`deny-oom`), or writes nothing
//! (`no-writes`). The library's name and those of its functions end with a digest of its text, so that programs of
//! different versions use one server side by side.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hatchet_core::backend::{Lease, RunId, SessionId, SessionSpec};
use redis::{Cmd, Value};

use crate::{
    client::Client,
    codec::{Arguments, Stored, Values, bytes_of, encode_rid, encode_tid, millis, unseal},
    due::Sweeping,
    error::Error,
    keys::Keys,
    node::{Identity, Lane, Node},
};

/// A command of the library.
#[derive(Debug)]
pub(crate) struct Script {
    name: &'static str,
    text: &'static str,
}

macro_rules! scripts {
    ($($constant:ident = $name:literal;)*) => {
        $(const $constant: Script = Script { name: $name, text: include_str!(concat!("scripts/", $name, ".lua")) };)*

        const COMMANDS: &[Script] = &[$($constant),*];
    };
}

scripts! {
    OPEN = "open";
    HEARTBEAT = "heartbeat";
    CLOSE = "close";
    START = "start";
    CLAIM = "claim";
    HELD = "held";
    ENTRIES = "entries";
    COMMIT = "commit";
    RECORD = "record";
    JOURNAL = "journal";
    LOAD = "load";
    WATCH = "watch";
    TAKE = "take";
    LOOK = "look";
    SUSPECT = "suspect";
    CANCEL = "cancel";
    REMOVE = "remove";
    RESUME = "resume";
    PAUSE = "pause";
    ANNOUNCED = "announced";
    SESSIONS = "sessions";
    SIGNAL = "signal";
    VIEW = "view";
    JOURNALS = "journals";
    SEQUENCES = "sequences";
    CHILDREN = "children";
    ROOTS = "roots";
    INDEX = "index";
    ACTIVITY = "activity";
    COUNTS = "counts";
    SWEEP = "sweep";
    INQUIRE = "inquire";
    DISOWN = "disown";
    FSCK = "fsck";
    MEND = "mend";
}

/// What the commands share, in an order in which each file finds what it needs.
const SHARED: &[&str] = &[
    include_str!("scripts/lib/base.lua"),
    include_str!("scripts/lib/queue.lua"),
    include_str!("scripts/lib/chunk.lua"),
    include_str!("scripts/lib/journal.lua"),
    include_str!("scripts/lib/lease.lua"),
    include_str!("scripts/lib/roots.lua"),
    include_str!("scripts/lib/run.lua"),
    include_str!("scripts/lib/announced.lua"),
    include_str!("scripts/lib/teardown.lua"),
    include_str!("scripts/lib/signal.lua"),
    include_str!("scripts/lib/drain.lua"),
    include_str!("scripts/lib/purge.lua"),
    include_str!("scripts/lib/due.lua"),
    include_str!("scripts/lib/begin.lua"),
];

/// The library as the server gets it.
struct Library {
    text: String,
    digest: String,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(Library::new);

impl Library {
    fn new() -> Self {
        let commands = || SHARED.iter().copied().chain(COMMANDS.iter().map(|command| command.text));
        let whole: String = commands().collect();
        let digest = redis::Script::new(&whole).get_hash()[..12].to_owned();
        let mut text = format!("#!lua name=hatchet_{digest}\n");
        SHARED.iter().for_each(|file| text.push_str(file));
        COMMANDS.iter().for_each(|command| text.push_str(&command.register(&digest)));
        Self { text, digest }
    }
}

/// Loads the library. The server refuses that if it has it, which is no error.
pub(crate) fn load() -> Cmd {
    let mut command = redis::cmd("FUNCTION");
    command.arg("LOAD").arg(&LIBRARY.text);
    command
}

/// The commands whose answer a caller may rely on, so that it waits for replicas where that is asked for: those that
/// write for good, and those from whose answer a step or a program goes on. What `take` reads is confirmed by its
/// reader.
const PROMISES: &[&str] = &["start", "commit", "record", "cancel", "resume", "pause", "signal", "watch", "journal"];

impl Script {
    /// Whether its answer says that something is stored for good.
    pub(crate) fn is_promise(&self) -> bool {
        PROMISES.contains(&self.name)
    }

    /// Whether it may leave something for sessions to receive.
    pub(crate) fn writes(&self) -> bool {
        !self.text.starts_with("--! no-writes")
    }

    /// The statement that makes this command a function of the library.
    fn register(&self, digest: &str) -> String {
        let (first, body) = self.text.split_once('\n').unwrap_or((self.text, ""));
        let flags = match first {
            "--! allow-oom" => "'allow-oom'",
            "--! no-writes" => "'no-writes'",
            _ => "",
        };
        let call = match first {
            "--! no-writes" => "return command()",
            _ => "return guard() or finish(pcall(command))",
        };
        format!(
            "do\n{body}\
             redis.register_function{{ function_name = '{}_{digest}', flags = {{ {flags} }}, callback = function(keys, arguments)\n\
             begin(keys[1], keys[2], arguments)\n{call}\nend }}\nend\n",
            self.name
        )
    }

    /// Begins a call. `moment` is what the function takes for the time, in microseconds, instead of what the server does.
    pub(crate) fn call(&self, tag: &str, moment: Option<u64>) -> Cmd {
        let mut command = redis::cmd("FCALL");
        command.arg(format!("{}_{}", self.name, LIBRARY.digest));
        match moment {
            None => command.arg(1).arg(tag),
            Some(moment) => command.arg(2).arg(tag).arg(moment),
        };
        command
    }
}

/// After how many bytes of payloads a reply ends and leaves the rest to the next call. It always has a first one.
const BYTES_OF_REPLY: usize = 1 << 20;

/// The token of all tasks that one call leases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nonce(pub(crate) Stored);

impl Nonce {
    /// The time and 62 random bits: what no other call of any process gets, not even on a store that lost its latest
    /// changes.
    pub(crate) fn new() -> Self {
        let random = SessionId::random().0.to_be_bytes();
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&random[2..6]);
        nonce[4..].copy_from_slice(&random[8..]);
        Self(nonce)
    }
}

/// The scripts on one partition.
#[derive(Debug)]
pub(crate) struct Scripts {
    client: Client,
    keys: Keys,
    retention: Duration,
    sweeping: Sweeping,
    /// Whether the lists of root runs by how they ended are complete.
    has_lists: bool,
}

/// The identity of a connection as it stands in a session's hash.
fn written(identity: &Identity) -> Vec<u8> {
    format!("{} {} {}", identity.server, identity.client, identity.address).into_bytes()
}

fn session_arg(command: &mut Cmd, session: SessionId) {
    command.arg(&session.0.to_be_bytes());
}

fn add_each(command: &mut Cmd, arguments: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    for argument in arguments {
        command.arg(argument.as_ref());
    }
}

fn rid_of(run: &RunId) -> Vec<u8> {
    let mut rid = Vec::with_capacity(40);
    encode_rid(&mut rid, run);
    rid
}

impl Scripts {
    pub(crate) fn new(client: Client, keys: Keys, retention: Duration) -> Self {
        Self { client, keys, retention, sweeping: Sweeping::new(), has_lists: false }
    }

    /// From now on the lists of root runs by how they ended are read: every program that uses the namespace keeps them.
    pub(crate) fn rely_on_lists(&mut self) {
        self.has_lists = true;
    }

    pub(crate) fn has_lists(&self) -> bool {
        self.has_lists
    }

    pub(crate) fn sweeping(&self) -> &Sweeping {
        &self.sweeping
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    async fn run(&self, script: &Script, arguments: impl Fn(&mut Cmd, bool)) -> Result<Value, Error> {
        self.run_on(Lane::Commands, script, arguments).await
    }

    async fn run_on(&self, lane: Lane, script: &Script, arguments: impl Fn(&mut Cmd, bool)) -> Result<Value, Error> {
        self.client.run(lane, script, self.keys.tag(), arguments).await
    }

    async fn values(&self, script: &Script, arguments: impl Fn(&mut Cmd, bool)) -> Result<Values, Error> {
        Values::of(self.run(script, arguments).await?)
    }

    /// The reply of a script that answers at least the first of its questions.
    async fn some_values(&self, script: &Script, arguments: impl Fn(&mut Cmd, bool)) -> Result<Values, Error> {
        let values = self.values(script, arguments).await?;
        if values.is_empty() { Err(Error::Malformed("an empty reply")) } else { Ok(values) }
    }

    pub(crate) async fn open(&self, spec: &SessionSpec) -> Result<(), Error> {
        let arguments = |command: &mut Cmd, _| {
            session_arg(command, spec.id);
            command.arg(millis(spec.lease)).arg(spec.label.as_bytes()).arg(spec.workflows.len());
            add_each(command, spec.workflows.iter().chain(&spec.queues).map(|name| name.as_bytes()));
        };
        self.run(&OPEN, arguments).await.map(drop)
    }

    /// Milliseconds until a sweep has something to do, negative if nothing is known. If its events are read, the
    /// session lives by the connection of the lane from now on: one that is not read could not say that it lives, and
    /// dies with its lease alone.
    pub(crate) async fn heartbeat(&self, session: SessionId, lane: Lane, is_read: bool) -> Result<i64, Error> {
        let identity = if is_read { self.client.identity(lane).await.unwrap_or_default() } else { None };
        self.beat(session, lane, identity, true).await
    }

    /// Says which connection the session lives by, and that it lives if it was suspected; it has no more time than its heartbeats
    /// gave it.
    pub(crate) async fn speak_up(&self, session: SessionId, lane: Lane) -> Result<(), Error> {
        let identity = self.client.identity(lane).await.unwrap_or_default();
        self.beat(session, lane, identity, false).await.map(drop)
    }

    async fn beat(
        &self,
        session: SessionId,
        lane: Lane,
        identity: Option<Identity>,
        renews: bool,
    ) -> Result<i64, Error> {
        let arguments = |command: &mut Cmd, _| {
            session_arg(command, session);
            command.arg(identity.as_ref().map_or(Vec::new(), written)).arg(u8::from(renews));
        };
        match self.run_on(lane, &HEARTBEAT, arguments).await? {
            Value::Int(due_in) => Ok(due_in),
            _ => Err(Error::Malformed("the answer to a heartbeat")),
        }
    }

    /// What there is to look after: see `look.lua`. `seen_by`: the connection that asks, if others can be seen by it,
    /// and its address.
    pub(crate) async fn look(
        &self,
        lane: Lane,
        session: SessionId,
        seen_by: Option<&Identity>,
    ) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            session_arg(command, session);
            command.arg(seen_by.map_or("", |identity| &*identity.server));
            command.arg(seen_by.map_or("", |identity| &*identity.address));
        };
        Values::of(self.run_on(lane, &LOOK, arguments).await?)
    }

    /// Says that connections are gone; milliseconds until their sessions are dead if nothing more is heard of them.
    pub(crate) async fn suspect(&self, lane: Lane, suspects: &[(SessionId, Identity)]) -> Result<i64, Error> {
        let arguments = |command: &mut Cmd, _| {
            for (session, identity) in suspects {
                session_arg(command, *session);
                command.arg(written(identity));
            }
        };
        match self.run_on(lane, &SUSPECT, arguments).await? {
            Value::Int(wait) => Ok(wait),
            _ => Err(Error::Malformed("the answer about suspects")),
        }
    }

    /// Whether the session has leases left.
    pub(crate) async fn close(&self, session: SessionId, budget: usize) -> Result<bool, Error> {
        let arguments = |command: &mut Cmd, _| {
            session_arg(command, session);
            command.arg(budget);
        };
        Ok(self.run(&CLOSE, arguments).await? == Value::Int(1))
    }

    pub(crate) async fn start(
        &self,
        session: SessionId,
        nonce: Nonce,
        keep: usize,
        parts: &Arguments,
    ) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, repeated| {
            session_arg(command, session);
            command.arg(&nonce.0).arg(keep).arg(u8::from(repeated)).arg(millis(self.retention));
            add_each(command, parts.iter());
        };
        self.values(&START, arguments).await
    }

    pub(crate) async fn claim(
        &self,
        session: SessionId,
        nonce: Nonce,
        queues: &[(&str, usize)],
    ) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, repeated| {
            session_arg(command, session);
            command.arg(&nonce.0).arg(u8::from(repeated)).arg(millis(self.retention)).arg(BYTES_OF_REPLY);
            for (queue, wanted) in queues {
                command.arg(queue.as_bytes()).arg(*wanted);
            }
        };
        self.values(&CLAIM, arguments).await
    }

    /// `uncertain`: whether some of the commits may have been applied by a call whose reply was lost.
    pub(crate) async fn commit(
        &self,
        session: SessionId,
        nonce: Nonce,
        uncertain: bool,
        commits: &Arguments,
    ) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, repeated| {
            session_arg(command, session);
            command.arg(&nonce.0).arg(u8::from(repeated || uncertain)).arg(millis(self.retention));
            add_each(command, commits.iter());
        };
        self.values(&COMMIT, arguments).await
    }

    /// A page of what a session holds. The first cursor is `0`, and the last reply gives it again.
    pub(crate) async fn held(&self, session: SessionId, cursor: &[u8]) -> Result<Values, Error> {
        const ABOUT: usize = 200;
        let arguments = |command: &mut Cmd, _| {
            session_arg(command, session);
            command.arg(cursor).arg(ABOUT);
        };
        self.values(&HELD, arguments).await
    }

    /// The entries of as many of these tasks as one call reads.
    pub(crate) async fn entries(&self, elements: &[Bytes]) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            command.arg(BYTES_OF_REPLY);
            add_each(command, elements);
        };
        self.some_values(&ENTRIES, arguments).await
    }

    pub(crate) async fn record(&self, session: SessionId, writes: &[Bytes]) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            session_arg(command, session);
            add_each(command, writes);
        };
        self.values(&RECORD, arguments).await
    }

    pub(crate) async fn journal(&self, journal: &[u8], from: &Position, limit: usize) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            command.arg(journal).arg(from.family()).arg(from.chunk).arg(from.place).arg(limit).arg(BYTES_OF_REPLY);
        };
        self.values(&JOURNAL, arguments).await
    }

    /// The sequence numbers of these journals.
    pub(crate) async fn sequences(&self, journals: &[BytesMut]) -> Result<Values, Error> {
        self.values(&SEQUENCES, |command, _| add_each(command, journals)).await
    }

    pub(crate) async fn load(&self, run: &RunId) -> Result<Values, Error> {
        self.values(&LOAD, |command, _| add_each(command, [rid_of(run)])).await
    }

    /// Answers for as many of the runs as one call looks at.
    pub(crate) async fn watch(&self, session: SessionId, runs: &[RunId]) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            session_arg(command, session);
            command.arg(BYTES_OF_REPLY);
            add_each(command, runs.iter().map(rid_of));
        };
        self.some_values(&WATCH, arguments).await
    }

    /// The events of a session from this number on, and who had them. What follows from them is for after
    /// [`confirm`](Self::confirm).
    pub(crate) async fn take(&self, session: SessionId, from: u64, limit: usize) -> Result<(Values, Arc<Node>), Error> {
        let arguments = |command: &mut Cmd, _| {
            session_arg(command, session);
            command.arg(from).arg(limit).arg(BYTES_OF_REPLY);
        };
        let (value, node) = self.client.run_somewhere(Lane::Commands, &TAKE, self.keys.tag(), arguments).await?;
        Ok((Values::of(value)?, node))
    }

    /// Waits until replicas have all that a server had when it answered, where they are to be waited for.
    pub(crate) async fn confirm(&self, node: &Arc<Node>) -> Result<(), Error> {
        self.client.confirm(node, Lane::Commands, self.keys.tag()).await
    }

    /// Answers for as many of the runs as one call looks at.
    pub(crate) async fn cancel(&self, runs: &[RunId], reason: &str) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            command.arg(millis(self.retention)).arg(reason.as_bytes()).arg(BYTES_OF_REPLY);
            add_each(command, runs.iter().map(rid_of));
        };
        self.some_values(&CANCEL, arguments).await
    }

    /// Answers for all of the runs.
    pub(crate) async fn remove(&self, runs: &[RunId]) -> Result<Values, Error> {
        self.values(&REMOVE, |command, _| add_each(command, runs.iter().map(rid_of))).await
    }

    /// Answers for all of the runs.
    pub(crate) async fn resume(&self, runs: &[RunId]) -> Result<Values, Error> {
        self.values(&RESUME, |command, _| add_each(command, runs.iter().map(rid_of))).await
    }

    /// Pauses what this field stands for, or has it go on. See `pause.lua`.
    pub(crate) async fn pause(&self, field: &[u8], pauses: bool) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, repeated| {
            command.arg(field).arg(u8::from(pauses)).arg(u8::from(repeated));
        };
        self.some_values(&PAUSE, arguments).await
    }

    /// What is paused: fields, each with the moment.
    pub(crate) async fn paused(&self) -> Result<Values, Error> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.pauses());
        Values::of(self.client.ask(&command).await?)
    }

    pub(crate) async fn announced(&self) -> Result<Values, Error> {
        self.values(&ANNOUNCED, |_, _| {}).await
    }

    /// The views of these sessions; the ids of all open ones if there are none.
    pub(crate) async fn sessions(&self, some: &[SessionId]) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| some.iter().for_each(|session| session_arg(command, *session));
        self.values(&SESSIONS, arguments).await
    }

    pub(crate) async fn signal(&self, run: &RunId, name: &str, id: u128, payload: &[u8]) -> Result<Value, Error> {
        let rid = rid_of(run);
        let arguments = |command: &mut Cmd, _| {
            command.arg(&rid).arg(name.as_bytes()).arg(&id.to_be_bytes()).arg(payload);
        };
        self.run(&SIGNAL, arguments).await
    }

    /// The views of as many of the runs as one call reads.
    pub(crate) async fn view(&self, runs: &[RunId]) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            command.arg(BYTES_OF_REPLY);
            add_each(command, runs.iter().map(rid_of));
        };
        self.some_values(&VIEW, arguments).await
    }

    pub(crate) async fn children(
        &self,
        journal: &[u8],
        family: &str,
        chunk: i64,
        chunks: usize,
    ) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            command.arg(journal).arg(family).arg(chunk).arg(chunks).arg(BYTES_OF_REPLY);
        };
        self.values(&CHILDREN, arguments).await
    }

    /// The steps of a run that have journals.
    pub(crate) async fn journals(&self, run: &RunId) -> Result<Bytes, Error> {
        bytes_of(self.run(&JOURNALS, |command, _| add_each(command, [rid_of(run)])).await?)
    }

    pub(crate) async fn roots(&self, range: &Range, limit: usize) -> Result<Values, Error> {
        const LOOKED_AT: usize = 1000;
        let arguments = |command: &mut Cmd, _| {
            command.arg(&range.highest).arg(&range.lowest).arg(LOOKED_AT).arg(limit);
            command.arg(range.workflow.as_bytes()).arg(range.kinds.as_bytes()).arg(u8::from(self.has_lists));
        };
        self.values(&ROOTS, arguments).await
    }

    /// What happened to root runs in these minutes since the epoch.
    pub(crate) async fn activity(&self, first: u64, behind: u64) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            command.arg(first).arg(behind);
        };
        self.values(&ACTIVITY, arguments).await
    }

    /// Puts some root runs into the lists by how they ended, those with the highest scores up to this one; whether a program is at work
    /// that does not keep these lists, and the score of the last one.
    pub(crate) async fn list_by_ending(&self, highest: &str, most: usize) -> Result<(bool, String), Error> {
        let arguments = |command: &mut Cmd, _| {
            command.arg(highest).arg(most);
        };
        let mut reply = self.values(&INDEX, arguments).await?;
        Ok((reply.number()? == 1, String::from_utf8_lossy(&reply.bytes()?).into_owned()))
    }

    pub(crate) async fn counts(&self) -> Result<Values, Error> {
        self.values(&COUNTS, |_, _| ()).await
    }

    pub(crate) async fn sweep(&self, lane: Lane, budget: usize) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            command.arg(budget).arg(millis(self.retention)).arg(&self.sweeping.sweeper);
        };
        Values::of(self.run_on(lane, &SWEEP, arguments).await?)
    }

    /// Asks sessions which of the tasks that they hold they do not run; the number of each question, 0 if it was not asked.
    pub(crate) async fn inquire(&self, sessions: &[Bytes]) -> Result<Values, Error> {
        self.values(&INQUIRE, |command, _| add_each(command, sessions)).await
    }

    /// Answers a question of a check.
    pub(crate) async fn disown(&self, session: SessionId, number: u64, leases: &[Lease]) -> Result<(), Error> {
        let arguments = |command: &mut Cmd, _| {
            session_arg(command, session);
            command.arg(number);
            let mut bytes = BytesMut::new();
            for lease in leases {
                encode_tid(&mut bytes, &lease.run, lease.step);
                bytes.extend_from_slice(&unseal(lease.token, &lease.run, lease.step));
                command.arg(&bytes.split()[..]);
            }
        };
        self.run(&DISOWN, arguments).await.map(drop)
    }

    /// A part of what a check of everything reads.
    pub(crate) async fn fsck(&self, part: &str, arguments: &[&[u8]]) -> Result<Values, Error> {
        let arguments = |command: &mut Cmd, _| {
            command.arg(part);
            add_each(command, arguments);
        };
        self.values(&FSCK, arguments).await
    }

    /// Mends what a check found; whether there was something to mend.
    pub(crate) async fn mend(&self, mend: &[Bytes]) -> Result<bool, Error> {
        let arguments = |command: &mut Cmd, _| {
            add_each(command, mend);
            command.arg(millis(self.retention));
        };
        Ok(!matches!(self.run(&MEND, arguments).await?, Value::Int(0)))
    }

    pub(crate) async fn workflows(&self) -> Result<Values, Error> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(format!("{}:w", self.keys.tag()));
        Values::of(self.client.ask(&command).await?)
    }
}

/// Which root runs are wanted: scores as a sorted set takes them, the workflow, and how they ended. Empty for all.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) highest: String,
    pub(crate) lowest: String,
    pub(crate) workflow: String,
    pub(crate) kinds: String,
}

/// Where a page of a journal begins: in which family of chunks, which chunk, at which place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) ordered: bool,
    pub(crate) chunk: u64,
    pub(crate) place: u64,
}

impl Position {
    fn family(&self) -> &'static str {
        if self.ordered { "e" } else { "c" }
    }

    pub(crate) fn from_cursor(cursor: u64) -> Self {
        Self { ordered: cursor >> 63 == 1, chunk: (cursor & (u64::MAX >> 1)) >> 6, place: cursor & 63 }
    }

    pub(crate) fn cursor(&self) -> u64 {
        (u64::from(self.ordered) << 63) | (self.chunk << 6) | self.place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_says_when_it_may_run() {
        for command in COMMANDS {
            let first = command.text.lines().next().unwrap_or_default();
            assert!(["--! allow-oom", "--! deny-oom", "--! no-writes"].contains(&first), "{}: {first}", command.name);
        }
    }

    /// How many local names the statements at the left margin declare.
    fn locals(text: &str) -> usize {
        let declared = |line: &str| {
            let names = line.strip_prefix("local ")?.split('=').next()?;
            Some(if names.starts_with("function ") { 1 } else { names.split(',').count() })
        };
        text.lines().filter_map(declared).sum()
    }

    #[test]
    fn no_command_comes_near_the_most_local_names_that_lua_has() {
        // The library is one chunk, and a chunk has at most 200 at one place. What is near goes into a table, as `Run` and `Damage` are.
        let shared: usize = SHARED.iter().map(|text| locals(text)).sum();
        for command in COMMANDS {
            let count = shared + locals(command.text);
            assert!(count <= 195, "{count} local names are visible at the end of {}.lua", command.name);
        }
    }

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        for position in [(false, 0, 0), (true, 0, 63), (false, 1 << 26, 17), (true, 1 << 26, 5)] {
            let position = Position { ordered: position.0, chunk: position.1, place: position.2 };
            assert_eq!(Position::from_cursor(position.cursor()), position);
        }
    }
}
