//! For programs that watch the server: whether it lives, whether the store answers, and numbers.

use std::{fmt::Write as _, time::Duration};

use axum::{extract::State, response::Response};

use crate::{
    answer::{json, typed},
    api::{Empty, ErrorBody, QueueView},
    app::App,
    refusal::{Answer, Refusal},
};

/// The store has this much time to show that it is there.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// The maximum number of queues in the metrics.
const MOST_QUEUES: usize = 200;

/// Says that the server lives
#[utoipa::path(get, path = "/healthz", tag = "probes", responses((status = 200, body = Empty)))]
pub(crate) async fn healthz() -> Response {
    json(&Empty {})
}

/// Says whether the store answers
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "probes",
    responses((status = 200, body = Empty), (status = 503, body = ErrorBody))
)]
pub(crate) async fn readyz(State(app): State<App>) -> Answer<Response> {
    // It needs no token, so it does not say where the store is.
    let silent = || Refusal::unavailable("the store does not answer");
    match tokio::time::timeout(READY_WITHIN, app.hatchet.backend().workflows()).await {
        Ok(Ok(_)) => Ok(json(&Empty {})),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: the store cannot be used");
            Err(silent())
        }
        Err(_) => Err(silent()),
    }
}

/// Gives numbers for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "probes",
    responses((status = 200, body = String, content_type = "text/plain"), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn metrics(State(app): State<App>) -> Answer<Response> {
    // A store that is away is a number, too.
    let queues = tokio::time::timeout(READY_WITHIN, app.queues()).await.ok().and_then(Result::ok);
    let mut text = text(queues);
    app.options.metrics.iter().for_each(|metrics| text.push_str(&metrics()));
    Ok(typed("text/plain; version=0.0.4; charset=utf-8", text))
}

fn text(queues: Option<Vec<QueueView>>) -> String {
    let mut text = String::from("# HELP hatchet_up Whether the store answers.\n# TYPE hatchet_up gauge\n");
    let _ = writeln!(text, "hatchet_up {}", u8::from(queues.is_some()));
    let Some(mut queues) = queues else { return text };
    let left_out = queues.len().saturating_sub(MOST_QUEUES);
    // The busiest ones, if there are too many.
    let tasks = |queue: &QueueView| queue.ready + queue.delayed + queue.leased + queue.parked + queue.stalled;
    queues.sort_by_key(|queue| std::cmp::Reverse(tasks(queue)));
    queues.truncate(MOST_QUEUES);
    queues.sort_by(|a, b| a.name.cmp(&b.name));
    text.push_str("# HELP hatchet_queue_tasks The tasks of a queue in a phase.\n# TYPE hatchet_queue_tasks gauge\n");
    for queue in &queues {
        let name = escaped(&queue.name);
        let QueueView { ready, delayed, leased, parked, stalled, .. } = queue;
        let phases =
            [("ready", ready), ("delayed", delayed), ("leased", leased), ("parked", parked), ("stalled", stalled)];
        for (phase, tasks) in phases {
            let _ = writeln!(text, "hatchet_queue_tasks{{queue=\"{name}\",phase=\"{phase}\"}} {tasks}");
        }
    }
    text.push_str(
        "# HELP hatchet_queue_unserved_tasks The ready tasks of a queue that no open worker serves.\n\
         # TYPE hatchet_queue_unserved_tasks gauge\n",
    );
    for queue in &queues {
        let _ = writeln!(text, "hatchet_queue_unserved_tasks{{queue=\"{}\"}} {}", escaped(&queue.name), queue.unserved);
    }
    let _ = write!(
        text,
        "# HELP hatchet_queues_left_out The queues with the fewest tasks, which are not shown.\n\
         # TYPE hatchet_queues_left_out gauge\nhatchet_queues_left_out {left_out}\n"
    );
    text
}

/// The value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str, ready: u64) -> QueueView {
        QueueView {
            name: name.to_owned(),
            ready,
            delayed: 0,
            leased: 2,
            parked: 0,
            stalled: 0,
            unserved: 1,
            paused: None,
        }
    }

    #[test]
    fn the_name_of_a_queue_cannot_break_out_of_its_label() {
        let text = text(Some(vec![queue("a\"} 1\n\\x", 7)]));
        assert!(text.contains("hatchet_queue_tasks{queue=\"a\\\"} 1\\n\\\\x\",phase=\"ready\"} 7\n"), "{text}");
    }

    #[test]
    fn of_many_queues_the_busiest_are_shown() {
        let text = text(Some((0..1_000).map(|n| queue(&format!("q{n:04}"), n)).collect()));
        assert_eq!(text.matches("phase=\"ready\"").count(), MOST_QUEUES);
        assert!(text.contains("q0999") && !text.contains("q0799"));
        assert!(text.contains("hatchet_queues_left_out 800\n"));
    }

    #[test]
    fn a_store_that_is_away_is_down() {
        assert!(text(None).ends_with("hatchet_up 0\n"));
    }
}
