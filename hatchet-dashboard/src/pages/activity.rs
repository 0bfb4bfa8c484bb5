//! What happened lately: counts, times and a picture of the last hour.

use std::time::Duration;

use hatchet_core::{Activity, Timestamp};
use maud::{Markup, html};

use super::{
    Site,
    text::{duration, said},
};
use crate::{
    api::Time,
    refusal::Answer,
    routes::activity::{HOUR, Range, end_of_now},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The queues in the table: those with the most runs.
const QUEUES: usize = 20;
/// The size of a minute in the picture, and the height of the picture.
const WIDTH: usize = 10;
const HEIGHT: f64 = 80.0;

/// The last hour and the last day.
pub(super) async fn section(site: &Site) -> Answer<Markup> {
    let end = end_of_now();
    let ago = |range: Duration| Timestamp(end.0.saturating_sub(range.as_millis() as u64));
    let day = site.app.activity(ago(DAY), end).await?;
    let mut hour = Activity::new(ago(HOUR), "".into());
    day.minutes.range(ago(HOUR)..).for_each(|(_, minute)| hour.add(minute));
    Ok(html! {
        section {
            h2 { "Activity" }
            @if day.total.created + day.total.ended() == 0 {
                p .quiet { "No root run was created or ended in the last 24 hours." }
            } @else {
                (picture(&day, ago(HOUR), end))
                div .scroll { table {
                    thead { tr { th { "Root runs" } (headings()) } }
                    tbody {
                        tr { td { "Last hour" } (numbers(&hour)) }
                        tr { td { "Last 24 hours" } (numbers(&day.total)) }
                    }
                } }
                (by_queue(&day))
            }
        }
    })
}

fn headings() -> Markup {
    html! {
        th .number { "Created" } th .number { "Succeeded" } th .number { "Failed" } th .number { "Cancelled" }
        th .number { "Expired" } th .number title="Half of the runs that ended took no longer, from creation to end" { "p50" }
        th .number title="95 % of the runs that ended took no longer, from creation to end" { "p95" }
    }
}

fn numbers(of: &Activity) -> Markup {
    let number = |value: u64, is_bad: bool| {
        html! { td .number .bad[is_bad && value > 0] .quiet[value == 0] { (value) } }
    };
    let time = |share| of.durations.quantile(share).map_or("–".to_owned(), |took| duration(took.as_secs_f64()));
    html! {
        (number(of.created, false)) (number(of.succeeded, false)) (number(of.failed, true))
        (number(of.cancelled, false)) (number(of.expired, true))
        td .number { (said(&time(0.5))) } td .number { (said(&time(0.95))) }
    }
}

fn by_queue(day: &Range) -> Markup {
    let mut queues: Vec<&Activity> = day.queues.values().collect();
    queues.sort_by_key(|of| std::cmp::Reverse(of.created.max(of.ended())));
    html! {
        div .scroll { table {
            thead { tr { th { "Queue, last 24 hours" } (headings()) } }
            tbody { @for of in queues.iter().take(QUEUES) {
                tr { td { (said(&of.queue)) } (numbers(of)) }
            } }
        } }
        @if queues.len() > QUEUES { p .quiet { "and " (queues.len() - QUEUES) " more queues" } }
    }
}

/// One bar for each minute: what ended, by whether it succeeded.
fn picture(day: &Range, from: Timestamp, end: Timestamp) -> Markup {
    let length = Activity::MINUTE.as_millis() as u64;
    let most = day.minutes.range(from..).map(|(_, minute)| minute.ended()).max().unwrap_or_default();
    let minutes = (end.0.saturating_sub(from.0) / length) as usize;
    let label = format!("Runs that ended in each minute of the last hour, {most} at most");
    html! {
        figure .activity {
            svg .bars viewBox=(format!("0 0 {} {HEIGHT}", minutes * WIDTH)) preserveAspectRatio="none" role="img" aria-label=(label) {
                @for (minute, of) in day.minutes.range(from..) {
                    (bar((minute.0.saturating_sub(from.0) / length) as usize * WIDTH, of, most))
                }
            }
            figcaption .quiet { (said(&label)) }
        }
    }
}

fn bar(x: usize, of: &Activity, most: u64) -> Markup {
    let height = |runs: u64| runs as f64 / most.max(1) as f64 * HEIGHT;
    let failed = of.failed + of.expired;
    let parts = [("failed", failed), ("cancelled", of.cancelled), ("succeeded", of.succeeded)];
    let mut bottom = HEIGHT;
    let shown = parts.into_iter().filter(|(_, runs)| *runs > 0).map(|(class, runs)| {
        // A single failure among thousands can still be seen.
        let height = height(runs).max(2.0);
        bottom = (bottom - height).max(0.0);
        (class, bottom, height)
    });
    let shown: Vec<_> = shown.collect();
    let said = format!(
        "{}: {} succeeded, {failed} failed or expired, {} cancelled",
        Time(of.minute).to_string().get(11..16).unwrap_or_default(),
        of.succeeded,
        of.cancelled
    );
    html! {
        g {
            title { (said) }
            @for (class, y, height) in shown {
                rect class=(class) x=(x + 1) y=(format!("{y:.1}")) width=(WIDTH - 2) height=(format!("{height:.1}")) {}
            }
        }
    }
}
