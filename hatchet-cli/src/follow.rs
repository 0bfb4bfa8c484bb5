//! A run as it goes on: by the events of the API, or by looking again and again where there are none.

use std::time::Duration;

use hatchet::RunId;
use hatchet_dashboard::api::RunDetail;
use tokio::time::{sleep, timeout};

use crate::{
    api::{Answer, Api, Events, answer},
    failure::Outcome,
};

/// How long the first event may take: whoever holds events back, such as a proxy, holds back this one, too.
const FIRST: Duration = Duration::from_secs(5);
/// The pause before events that have broken off are asked for again.
const REOPEN: Duration = Duration::from_millis(400);
/// The pauses between looks where there are no events.
const SHORTEST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_secs(1);

/// The states of a run, one after the other.
pub(crate) struct Follow<'a> {
    api: &'a Api,
    id: RunId,
    way: Way,
}

enum Way {
    /// Events are to be asked for.
    Unknown,
    Events(Events),
    /// There are none. The pause before the next look.
    Looks(Duration),
}

impl<'a> Follow<'a> {
    pub(crate) fn new(api: &'a Api, id: RunId) -> Self {
        Self { api, id, way: Way::Unknown }
    }

    /// The run as it is now the first time, then when it has changed. Without events it may be the same as before.
    ///
    /// # Errors
    /// That there is no such run; that nobody can be reached, after which it can be asked again.
    ///
    /// # Cancel safety
    /// No change is lost if it is dropped, but looks or a connection may be made again.
    pub(crate) async fn next(&mut self) -> Outcome<Answer<RunDetail>> {
        loop {
            match &mut self.way {
                Way::Unknown => match self.open().await {
                    Some((events, first)) => {
                        self.way = Way::Events(events);
                        return Ok(first);
                    }
                    // What is wrong, if it is the run or the server, is said by a look.
                    None => {
                        let look = self.look().await?;
                        self.way = Way::Looks(SHORTEST);
                        return Ok(look);
                    }
                },
                Way::Events(events) => match run_of(events).await {
                    Some(run) => return Ok(run),
                    // The server was restarted or its store is away, or somebody in between gave up.
                    None => {
                        self.way = Way::Unknown;
                        sleep(REOPEN).await;
                    }
                },
                Way::Looks(pause) => {
                    let now = *pause;
                    sleep(now).await;
                    self.way = Way::Looks((now * 2).min(LONGEST));
                    return self.look().await;
                }
            }
        }
    }

    /// The events with the first of them, if there are some.
    async fn open(&self) -> Option<(Events, Answer<RunDetail>)> {
        let opened = async {
            let mut events = self.api.events(&format!("/api/v1/runs/{}/events", self.id)).await.ok()?;
            let first = run_of(&mut events).await?;
            Some((events, first))
        };
        timeout(FIRST, opened).await.ok()?
    }

    async fn look(&self) -> Outcome<Answer<RunDetail>> {
        self.api.get(&format!("/api/v1/runs/{}", self.id), &Vec::new()).await
    }
}

/// The run of the next event that has one. `None` if none will come.
async fn run_of(events: &mut Events) -> Option<Answer<RunDetail>> {
    loop {
        let event = events.next().await.ok()??;
        match event.kind.as_str() {
            "run" => return answer(event.data.as_bytes()).ok(),
            "problem" => return None,
            _ => {}
        }
    }
}
