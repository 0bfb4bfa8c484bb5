//! What open sessions announce, and the sessions themselves, as people see them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hatchet_core::backend::{Announced, Name, SessionId, SessionSpec, SessionView, Timestamp};

use crate::{
    codec::{Reader, Values, name_of},
    error::Error,
    scripts::Scripts,
};

/// How many sessions one command shows: each of them may hold thousands of tasks.
const SESSIONS_AT_ONCE: usize = 20;

/// Reads what is announced in several partitions.
pub(crate) fn read_announced(replies: Vec<Values>) -> Result<Vec<Announced>, Error> {
    let mut announced = BTreeSet::new();
    for mut reply in replies {
        while !reply.is_empty() {
            announced.insert(Announced::new(names(&mut reply)?, names(&mut reply)?));
        }
    }
    Ok(announced.into_iter().collect())
}

/// The open sessions of one partition.
pub(crate) async fn list(scripts: &Scripts) -> Result<Vec<SessionView>, Error> {
    let mut open = Vec::new();
    let mut reply = scripts.sessions(&[]).await?;
    while !reply.is_empty() {
        open.push(id_of(&mut reply)?);
    }
    let mut views = Vec::with_capacity(open.len());
    for some in open.chunks(SESSIONS_AT_ONCE) {
        let mut reply = scripts.sessions(some).await?;
        while !reply.is_empty() {
            views.push(read_view(&mut reply)?);
        }
    }
    Ok(views)
}

/// Puts together what several partitions know of the same sessions.
pub(crate) fn merge(pages: Vec<Vec<SessionView>>) -> Vec<SessionView> {
    let mut sessions = BTreeMap::<SessionId, SessionView>::new();
    for view in pages.into_iter().flatten() {
        match sessions.get_mut(&view.id) {
            None => drop(sessions.insert(view.id, view)),
            Some(known) => {
                known.opened = known.opened.min(view.opened);
                known.renewed = known.renewed.max(view.renewed);
                known.leased += view.leased;
            }
        }
    }
    let mut sessions: Vec<_> = sessions.into_values().collect();
    sessions.sort_by(|a, b| (&a.label, a.id).cmp(&(&b.label, b.id)));
    sessions
}

fn read_view(reply: &mut Values) -> Result<SessionView, Error> {
    let (id, label) = (id_of(reply)?, name_of(&reply.bytes()?)?);
    let (lease, opened, renewed) = (reply.number()?, Timestamp(reply.number()?), Timestamp(reply.number()?));
    let leased = reply.number()?;
    let lease = Duration::from_millis(lease);
    let (workflows, queues) = (names(reply)?, names(reply)?);
    // Older versions of this library did not store when a session was opened.
    let opened = if opened.0 == 0 { renewed } else { opened };
    let mut view = SessionView::new(SessionSpec { id, label, lease, workflows, queues }, opened);
    (view.renewed, view.leased) = (renewed, leased);
    Ok(view)
}

fn id_of(reply: &mut Values) -> Result<SessionId, Error> {
    Ok(SessionId(Reader::new(reply.bytes()?).u128()?))
}

fn names(reply: &mut Values) -> Result<Vec<Name>, Error> {
    let mut list = reply.list()?;
    let mut names = Vec::new();
    while !list.is_empty() {
        names.push(name_of(&list.bytes()?)?);
    }
    Ok(names)
}
