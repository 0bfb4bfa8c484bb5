//! What a backend is made of that wraps another one: methods that pass a call on to `self.inner`.

use std::pin::Pin;

use hatchet::backend::BackendResult;

/// What `#[async_trait]` makes of a method.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = BackendResult<T>> + Send + 'a>>;

/// The methods of `Backend` with these names, each of which passes its call on.
macro_rules! pass_on {
    ($($method:ident)*) => { $($crate::wrapper::pass_one_on!($method);)* };
}

macro_rules! pass_one_on {
    (info) => {
        fn info(&self) -> hatchet::backend::BackendInfo {
            self.inner.info()
        }
    };
    (heartbeat) => { $crate::wrapper::passes!(heartbeat(session: hatchet::SessionId) -> hatchet::backend::Heartbeat); };
    (open) => { $crate::wrapper::passes!(open(session: hatchet::backend::SessionSpec) -> ()); };
    (close) => { $crate::wrapper::passes!(close(session: hatchet::SessionId) -> ()); };
    (workflows) => { $crate::wrapper::passes!(workflows() -> Vec<hatchet::Name>); };
    (announced) => { $crate::wrapper::passes!(announced() -> Vec<hatchet::backend::Announced>); };
    (sessions) => { $crate::wrapper::passes!(sessions() -> Vec<hatchet::backend::SessionView>); };
    (activity) => { $crate::wrapper::passes!(activity(from: hatchet::Timestamp, before: hatchet::Timestamp) -> Vec<hatchet::backend::Activity>); };
    (remove) => { $crate::wrapper::passes!(remove(runs: Vec<hatchet::RunId>) -> Vec<hatchet::backend::Removed>); };
    (resume) => { $crate::wrapper::passes!(resume(runs: Vec<hatchet::RunId>) -> Vec<usize>); };
    (pause) => { $crate::wrapper::passes!(pause(what: hatchet::Pausable) -> hatchet::Timestamp); };
    (unpause) => { $crate::wrapper::passes!(unpause(what: hatchet::Pausable) -> bool); };
    (paused) => { $crate::wrapper::passes!(paused() -> Vec<hatchet::Pause>); };
    (start) => { $crate::wrapper::passes!(start(request: hatchet::backend::Start) -> hatchet::backend::StartReply); };
    (claim) => { $crate::wrapper::passes!(claim(request: hatchet::backend::Claim) -> Vec<hatchet::backend::Task>); };
    (held) => { $crate::wrapper::passes!(held(session: hatchet::SessionId) -> Vec<hatchet::backend::Task>); };
    (disown) => { $crate::wrapper::passes!(disown(session: hatchet::SessionId, inquiry: hatchet::backend::Inquiry, leases: Vec<hatchet::backend::Lease>) -> ()); };
    (commit) => { $crate::wrapper::passes!(commit(session: hatchet::SessionId, commits: Vec<hatchet::backend::Commit>) -> hatchet::backend::CommitReply); };
    (record) => { $crate::wrapper::passes!(record(session: hatchet::SessionId, writes: Vec<hatchet::backend::JournalWrite>) -> Vec<Result<hatchet::backend::Recorded, hatchet::backend::Refused>>); };
    (journal) => { $crate::wrapper::passes!(journal(run: hatchet::RunId, step: hatchet::backend::StepIndex, cursor: Option<u64>, limit: usize) -> hatchet::backend::JournalPage); };
    (sequences) => { $crate::wrapper::passes!(sequences(steps: Vec<(hatchet::RunId, hatchet::backend::StepIndex)>) -> Vec<u64>); };
    (load) => { $crate::wrapper::passes!(load(run: hatchet::RunId) -> Option<hatchet::backend::RunData>); };
    (watch) => { $crate::wrapper::passes!(watch(session: hatchet::SessionId, runs: Vec<hatchet::RunId>) -> Vec<hatchet::backend::Watched>); };
    (receive) => { $crate::wrapper::passes!(receive(session: hatchet::SessionId) -> Vec<hatchet::backend::Event>); };
    (cancel) => { $crate::wrapper::passes!(cancel(runs: Vec<hatchet::RunId>, reason: hatchet::Name) -> Vec<hatchet::backend::Cancelled>); };
    (signal) => { $crate::wrapper::passes!(signal(run: hatchet::RunId, name: hatchet::Name, id: u128, payload: hatchet::Payload) -> hatchet::backend::Signalled); };
    (get) => { $crate::wrapper::passes!(get(runs: Vec<hatchet::RunId>) -> Vec<Option<hatchet::RunView>>); };
    (list) => { $crate::wrapper::passes!(list(query: hatchet::Query) -> hatchet::RunPage); };
    (counts) => { $crate::wrapper::passes!(counts() -> std::collections::BTreeMap<hatchet::Name, hatchet::backend::QueueCounts>); };
    (sweep) => { $crate::wrapper::passes!(sweep(budget: usize) -> hatchet::backend::Swept); };
    (fsck) => { $crate::wrapper::passes!(fsck(options: hatchet::backend::FsckOptions) -> hatchet::backend::FsckReport); };
}

macro_rules! passes {
    ($method:ident($($argument:ident: $type:ty),*) -> $answer:ty) => {
        fn $method<'a, 'b>(&'a self $(, $argument: $type)*) -> $crate::wrapper::Answer<'b, $answer>
        where
            'a: 'b,
            Self: 'b,
        {
            self.inner.$method($($argument),*)
        }
    };
}

/// A method of `Backend` that does something else than to pass its call on: as `#[async_trait]` would write it.
macro_rules! instead {
    (async fn $method:ident($self:ident $(, $argument:ident: $type:ty)*) -> $answer:ty $body:block) => {
        fn $method<'a, 'b>(&'a $self $(, $argument: $type)*) -> $crate::wrapper::Answer<'b, $answer>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async move $body)
        }
    };
}

pub(crate) use {instead, pass_on, pass_one_on, passes};
