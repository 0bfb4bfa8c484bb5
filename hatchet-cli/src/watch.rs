//! `watch`: a run as it goes on, until it ends. On a terminal a picture that is drawn again, else a line for each change.

mod picture;
mod screen;

use std::time::{Duration, Instant};

use hatchet::RunStatus;
use hatchet_dashboard::api::RunDetail;
use tokio::time::{sleep, timeout};

use self::screen::Screen;
use crate::{
    api::{Answer, Api},
    args::WatchArgs,
    failure::{Failure, Outcome},
    follow::Follow,
    moments,
    out::Out,
    text::shown,
    tree, words,
};

/// How often a picture is drawn again while nothing is heard of the run: times and children go on.
const TICK: Duration = Duration::from_secs(1);
/// The pause after a store could not be reached.
const PAUSE: Duration = Duration::from_millis(400);
/// How long a store that was there may be away.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one look has found.
struct Look {
    run: RunDetail,
    /// The run as the API said it.
    text: String,
    /// Children that have not ended, then those that failed.
    children: Vec<RunDetail>,
}

pub(crate) async fn watch(api: &Api, out: &Out, args: &WatchArgs) -> Outcome {
    let mut screen = Screen::default();
    let mut last = String::new();
    let mut seen: Option<Instant> = None;
    let mut follow = Follow::new(api, args.id);
    let mut now: Option<Answer<RunDetail>> = None;
    loop {
        let began = Instant::now();
        match look(api, out, args, &mut follow, &mut now).await {
            Ok(look) => {
                seen = Some(Instant::now());
                show(out, &look, &mut screen, &mut last)?;
                if look.run.summary.status.is_terminal() {
                    return ended(out, &look.run);
                }
            }
            Err(error @ Failure::Unreachable(_)) => {
                let seen = seen.filter(|seen| seen.elapsed() < PATIENCE);
                let Some(_) = seen else { return Err(error) };
                let words = format!("{error}; trying again");
                if words != last {
                    screen.forget();
                    out.note_safe(&words);
                    last = words;
                }
                // A store that is slow to answer is asked less often.
                sleep(PAUSE.max(began.elapsed() * 2)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The run when it has changed; for a picture, also when it is time to draw again.
async fn look(
    api: &Api,
    out: &Out,
    args: &WatchArgs,
    follow: &mut Follow<'_>,
    now: &mut Option<Answer<RunDetail>>,
) -> Outcome<Look> {
    let draws = out.terminal && !out.json;
    let known = now.take();
    let answer = match known {
        Some(known) if draws => match timeout(TICK, follow.next()).await {
            Ok(answer) => answer?,
            Err(_) => known,
        },
        _ => follow.next().await?,
    };
    let run = answer.value.clone();
    let mut children = Vec::new();
    if draws && run.children > 0 && args.children > 0 {
        if run.unfinished_children > 0 {
            children =
                tree::children(api, args.id, &["running", "waiting", "stalled", "queued"], args.children).await?;
        }
        let room = args.children - children.len();
        if room > 0 {
            children.extend(tree::children(api, args.id, &["failed", "expired"], room).await?);
        }
    }
    let children = tree::details(api, &children).await?;
    let text = answer.text.clone();
    *now = Some(answer);
    Ok(Look { run, text, children })
}

fn show(out: &Out, look: &Look, screen: &mut Screen, last: &mut String) -> Outcome {
    if out.json {
        if look.text != *last {
            last.clone_from(&look.text);
            // One line for each.
            out.document(&look.text.replace(['\n', '\r'], " "))?;
        }
        return Ok(());
    }
    if out.terminal {
        return screen.draw(out, &picture::lines(&look.run, &look.children, moments::now()));
    }
    let line = change(&look.run);
    if line != *last {
        out.line(format!("{} {line}", moments::now()))?;
        *last = line;
    }
    Ok(())
}

/// The state of a run on one line, which differs when something changed.
fn change(run: &RunDetail) -> String {
    let mut line = run.summary.status.to_string();
    if run.children > 0 {
        line.push_str(&format!(
            ", {} of {} children ended",
            run.children.saturating_sub(run.unfinished_children),
            run.children
        ));
    }
    let named = run.steps.iter().filter(|step| step.name.is_some());
    let steps: Vec<String> = named
        .map(|step| {
            let again = if step.attempt > 1 { format!(" (attempt {})", step.attempt) } else { String::new() };
            format!("{} {}{again}", shown(&words::step_name(step)), words::state_name(step.state))
        })
        .collect();
    if !steps.is_empty() {
        line.push_str(&format!("; {}", steps.join(", ")));
    }
    for wait in &run.waits {
        line.push_str(&format!("; waits {}", shown(wait)));
    }
    line
}

fn ended(out: &Out, run: &RunDetail) -> Outcome {
    if run.summary.status == RunStatus::Succeeded {
        return Ok(());
    }
    if let (Some(failure), false) = (&run.failure, out.json) {
        words::failure_lines(failure, &Out::plain()).iter().for_each(|line| out.note_safe(line));
    }
    Err(Failure::Told)
}
