//! Sees which processes have died, long before their leases end: their connections die with them, and the server can tell
//! which connections it has. And sees when something is due that was written by others, who may be gone.
//!
//! A session names the connection that it lives by in its heartbeats. Who finds that this connection is gone says so: the
//! session is then dead within less than a second, unless it is heard of before. It is asked to speak up at once, so a
//! connection that was cut costs a process nothing; and where the guess was wrong all the same, the fence makes it
//! harmless. A machine that vanishes leaves its connections behind, and is noticed by its lease.
//!
//! A server that is started again has none of the connections from before. Who lives connects again and says so at once; who has
//! not been heard of for a while is suspected like the others. All of this is done where the heartbeats are sent, which no step can
//! block.

use std::{collections::HashSet, sync::Arc, time::Duration};

use hatchet_core::backend::SessionId;
use redis::{Cmd, ServerErrorKind};
use tokio::time::sleep;

use crate::{
    codec::{Reader, Values, bytes_text},
    error::Error,
    joining::Joining,
    mailbox::Mailbox,
    node::{Identity, Lane},
    scripts::Scripts,
    sweep::{due_in, sweep},
};

/// The connection of all that is done here.
const LANE: Lane = Lane::Heartbeats;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(300);
/// How many changes a sweep makes that recovers what the dead held.
const SWEEP_BUDGET: usize = 500;

/// Looks out for others on behalf of one session, in one partition, as long as the session is open.
pub(crate) async fn look_out(
    mailbox: Arc<Mailbox>,
    scripts: Arc<Scripts>,
    session: SessionId,
    joining: (Option<Arc<Joining>>, usize),
) {
    let mut lookout = Lookout { mailbox, scripts, session, joining, lives_by: None, is_blind: false };
    loop {
        let wait = match lookout.look().await {
            Ok(wait) => wait,
            Err(Error::SessionLost) => return lookout.mailbox.close(),
            // Whoever needs the server more than this says that it is not there.
            Err(_) => PAUSE_AFTER_FAILURE,
        };
        sleep(wait).await;
    }
}

struct Lookout {
    mailbox: Arc<Mailbox>,
    scripts: Arc<Scripts>,
    session: SessionId,
    /// Where the session is still to be opened, and the partition.
    joining: (Option<Arc<Joining>>, usize),
    /// The connection that the session said last that it lives by; `None` in there if it cannot know.
    lives_by: Option<Option<Identity>>,
    /// Whether the user may not see connections.
    is_blind: bool,
}

impl Lookout {
    /// Looks once; how long to wait until the next time.
    async fn look(&mut self) -> Result<Duration, Error> {
        if let (Some(joining), partition) = &self.joining {
            joining.join(*partition, &self.scripts).await?;
        }
        let connection = self.scripts.client().identity(LANE).await?;
        // The next heartbeat may be a while ahead, and until then this process would be taken for dead, or nobody could see it die.
        if self.mailbox.is_read() && self.lives_by.as_ref() != Some(&connection) {
            self.scripts.speak_up(self.session, LANE).await?;
            self.lives_by = Some(connection.clone());
        }
        let seen_by = connection.filter(|_| !self.is_blind);
        let mut reply = self.scripts.look(LANE, self.session, seen_by.as_ref()).await?;
        let wait = Duration::from_millis(reply.number()?);
        if let Some(due) = due_in(reply.signed()?) {
            self.mailbox.put_due(due);
        }
        let mut silence = reply.signed()?;
        if let Some(seen_by) = seen_by {
            let gone = self.who_is_gone(read_watched(&mut reply, &seen_by)?, &seen_by).await?;
            if !gone.is_empty() {
                silence = silence.max(self.scripts.suspect(LANE, &gone).await?);
            }
        }
        if let Some(silence) = due_in(silence) {
            sleep(silence + Duration::from_millis(1)).await;
            if let Some(due) = sweep(&self.scripts, LANE, SWEEP_BUDGET).await?.due_in {
                self.mailbox.put_due(due);
            }
        }
        Ok(wait)
    }

    /// Those whose connection the server does not have.
    async fn who_is_gone(
        &mut self,
        watched: Vec<(SessionId, Identity)>,
        seen_by: &Identity,
    ) -> Result<Vec<(SessionId, Identity)>, Error> {
        if watched.is_empty() {
            return Ok(watched);
        }
        let alive = match connections(&self.scripts, &watched).await {
            Err(Error::Redis(error)) if error.kind() == ServerErrorKind::NoPerm.into() => {
                tracing::info!(
                    session = %self.session,
                    "the user may not list connections: dead processes are detected when their leases end; allow client|list to detect \
                     them immediately"
                );
                self.is_blind = true;
                return Ok(Vec::new());
            }
            alive => alive?,
        };
        let gone: Vec<_> = watched.into_iter().filter(|(_, identity)| !alive.contains(&identity.client)).collect();
        // The connections may be another server's than those that were asked for.
        if !gone.is_empty() && self.scripts.client().identity(LANE).await?.as_ref() != Some(seen_by) {
            return Ok(Vec::new());
        }
        Ok(gone)
    }
}

fn read_watched(reply: &mut Values, seen_by: &Identity) -> Result<Vec<(SessionId, Identity)>, Error> {
    let mut watched = Vec::new();
    while !reply.is_empty() {
        let session = SessionId(Reader::new(reply.bytes()?).u128()?);
        let client = reply.number()? as i64;
        let address = String::from_utf8_lossy(&reply.bytes()?).into_owned();
        watched.push((session, Identity { server: seen_by.server.clone(), client, address }));
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
    let text = bytes_text(scripts.client().query_on(LANE, &command).await?)?;
    let ids = text.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok());
    Ok(ids.collect())
}
