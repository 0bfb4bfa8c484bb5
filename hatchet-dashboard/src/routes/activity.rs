//! Looking at what happens, by the minute.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use hatchet_core::{Activity, Name, Timestamp};

use crate::{
    answer::json,
    api::{ActivityCounts, ActivityReport, ErrorBody, MinuteActivity, QueueActivity, Time, now},
    app::App,
    query::{moment, pairs},
    refusal::{Answer, Refusal},
};

/// The range, unless the request says otherwise.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Shows what happened to root runs
///
/// How many were created and ended in each minute, by status and queue, and how long they took. The counts are kept for
/// a day.
#[utoipa::path(
    get,
    path = "/api/v1/activity",
    tag = "store",
    params(
        ("from" = Option<Time>, Query, description = "the first moment. Default: an hour before the end"),
        ("before" = Option<Time>, Query, description = "the moment after the last one. Default: now")
    ),
    responses(
        (status = 200, body = ActivityReport),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody)
    )
)]
pub(crate) async fn show(State(app): State<App>, RawQuery(query): RawQuery) -> Answer<Response> {
    let (mut from, mut before) = (None, None);
    for (name, value) in pairs(query.as_deref().unwrap_or_default()) {
        match name.as_str() {
            "from" => from = Some(moment(&value)?.0),
            "before" => before = Some(moment(&value)?.0),
            other => return Err(Refusal::bad_request(format!("{other:?} is not known here; there are from, before"))),
        }
    }
    let before = before.unwrap_or_else(end_of_now);
    let from = from.unwrap_or(Timestamp(before.0.saturating_sub(HOUR.as_millis() as u64)));
    Ok(json(&app.activity(from, before).await?.report()))
}

/// The end of the minute that it is.
pub(crate) fn end_of_now() -> Timestamp {
    Activity::minute_of(now()).after(Activity::MINUTE)
}

/// What happened in a range of time.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) from: Timestamp,
    pub(crate) before: Timestamp,
    pub(crate) total: Activity,
    pub(crate) queues: BTreeMap<Name, Activity>,
    pub(crate) minutes: BTreeMap<Timestamp, Activity>,
}

impl App {
    /// What happened to root runs in this range, which is widened to whole minutes.
    pub(crate) async fn activity(&self, from: Timestamp, before: Timestamp) -> Answer<Range> {
        let nothing = |minute| Activity::new(minute, Name::from(""));
        let from = Activity::minute_of(from);
        let (queues, minutes) = Default::default();
        let mut range = Range { from, before, total: nothing(from), queues, minutes };
        for activity in self.ask(self.hatchet.activity(from, before)).await? {
            range.total.add(&activity);
            range.minutes.entry(activity.minute).or_insert_with(|| nothing(activity.minute)).add(&activity);
            let queue = Name::clone(&activity.queue);
            range.queues.entry(queue).or_insert_with_key(|name| Activity::new(from, name.clone())).add(&activity);
        }
        Ok(range)
    }
}

impl Range {
    fn report(self) -> ActivityReport {
        let of_queue =
            |(name, activity): (Name, Activity)| QueueActivity { queue: name.to_string(), counts: counts(&activity) };
        let of_minute = |(minute, activity): (Timestamp, Activity)| MinuteActivity {
            minute: Time(minute),
            counts: counts(&activity),
        };
        ActivityReport {
            from: Time(self.from),
            before: Time(self.before),
            total: counts(&self.total),
            queues: self.queues.into_iter().map(of_queue).collect(),
            minutes: self.minutes.into_iter().map(of_minute).collect(),
        }
    }
}

fn counts(activity: &Activity) -> ActivityCounts {
    let seconds = |share| activity.durations.quantile(share).map(|duration| duration.as_secs_f64());
    ActivityCounts {
        created: activity.created,
        succeeded: activity.succeeded,
        failed: activity.failed,
        cancelled: activity.cancelled,
        expired: activity.expired,
        p50: seconds(0.5),
        p95: seconds(0.95),
        p99: seconds(0.99),
    }
}
