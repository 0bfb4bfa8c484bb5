//! Sees which processes have died, long before their leases end: their connections die with them, and the server can tell
//! which connections it has.
//!
//! A session names the connection that it lives by in its heartbeats. Who finds that this connection is gone says so: the
//! session is then dead within less than a second, unless it is heard of before. It is asked to speak up at once, so a
//! connection that was cut costs a process nothing; and where the guess was wrong all the same, the fence makes it
//! harmless. A machine that vanishes leaves its connections behind, and is noticed by its lease.

use std::{collections::HashSet, sync::Arc, time::Duration};

use hatchet_core::backend::SessionId;
use redis::{Cmd, ServerErrorKind};
use tokio::time::sleep;

use crate::{
    codec::{Reader, Values, bytes_text},
    error::Error,
    mailbox::Mailbox,
    node::{Identity, Lane},
    scripts::Scripts,
    sweep::sweep,
};

const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How many changes a sweep makes that recovers what the dead held.
const SWEEP_BUDGET: usize = 500;

/// Looks out for others on behalf of one session, in one partition, as long as the session is open.
pub(crate) async fn look_out(mailbox: Arc<Mailbox>, scripts: Arc<Scripts>, session: SessionId) {
    // The first regular heartbeat is a while ahead, and until then nobody could see this process die.
    let mut named = scripts.heartbeat(session, Lane::Commands).await.map(drop);
    loop {
        let looked = match std::mem::replace(&mut named, Ok(())) {
            Ok(()) => look(&scripts, session).await,
            Err(error) => Err(error),
        };
        let wait = match looked {
            Ok(wait) => wait,
            Err(Error::SessionLost) => return mailbox.close(),
            Err(Error::Redis(error)) if error.kind() == ServerErrorKind::NoPerm.into() => {
                tracing::info!(
                    %session,
                    "the user may not see connections: processes that die are noticed when their leases end; allow client|list if they are to \
                     be noticed at once"
                );
                return;
            }
            // Whoever needs the server more than this says that it is not there.
            Err(_) => PAUSE_AFTER_FAILURE,
        };
        sleep(wait).await;
    }
}

/// Looks once; how long to wait until the next time.
async fn look(scripts: &Scripts, session: SessionId) -> Result<Duration, Error> {
    let Some(seen_by) = scripts.client().identity(Lane::Commands).await? else { return Ok(PAUSE_AFTER_FAILURE) };
    let mut reply = scripts.look(session, &seen_by.server).await?;
    let wait = Duration::from_millis(reply.number()?);
    let watched = read_watched(&mut reply, &seen_by)?;
    if watched.is_empty() {
        return Ok(wait);
    }
    let alive = connections(scripts, &watched).await?;
    let gone: Vec<_> = watched.into_iter().filter(|(_, identity)| !alive.contains(&identity.client)).collect();
    // The connections may be another server's than those that were asked for.
    if gone.is_empty() || scripts.client().identity(Lane::Commands).await?.as_ref() != Some(&seen_by) {
        return Ok(wait);
    }
    if let Ok(silence) = u64::try_from(scripts.suspect(&gone).await?) {
        sleep(Duration::from_millis(silence + 1)).await;
        sweep(scripts, SWEEP_BUDGET).await?;
    }
    Ok(wait)
}

fn read_watched(reply: &mut Values, seen_by: &Identity) -> Result<Vec<(SessionId, Identity)>, Error> {
    let mut watched = Vec::new();
    while !reply.is_empty() {
        let session = SessionId(Reader::new(reply.bytes()?).u128()?);
        let client = reply.number()? as i64;
        watched.push((session, Identity { server: seen_by.server.clone(), client }));
    }
    Ok(watched)
}

/// Which of these connections the server has.
async fn connections(scripts: &Scripts, watched: &[(SessionId, Identity)]) -> Result<HashSet<i64>, Error> {
    let mut command: Cmd = redis::cmd("CLIENT");
    command.arg("LIST").arg("ID");
    for (_, identity) in watched {
        command.arg(identity.client);
    }
    let text = bytes_text(scripts.client().query(&command).await?)?;
    let ids = text.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok());
    Ok(ids.collect())
}
