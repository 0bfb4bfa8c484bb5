//! `runs start`: starts a run, and waits for its end if that is asked for.

use hatchet::{RunId, RunStatus};
use hatchet_dashboard::api::{PayloadView, RunDetail, StartRequest, StartedRun};

use crate::{
    api::{Answer, Api},
    args::{Priority, StartArgs},
    failure::{Failure, Outcome},
    follow::Follow,
    out::Out,
    payloads, words,
};

pub(crate) async fn start(api: &Api, out: &Out, args: StartArgs) -> Outcome {
    let request = StartRequest {
        workflow: args.workflow,
        input: payloads::given(&args.input)?,
        key: args.key,
        queue: args.queue,
        priority: args.priority.map(|priority| match priority {
            Priority::High => hatchet::Priority::High,
            Priority::Normal => hatchet::Priority::Normal,
            Priority::Low => hatchet::Priority::Low,
        }),
        delay: args.delay.map(|delay| delay.as_secs_f64()),
        metadata: args.meta.into_iter().collect(),
        headers: Default::default(),
    };
    let started = api.post::<StartedRun>("/api/v1/runs", &request).await?;
    let id = started.value.id;
    match (args.wait, out.json) {
        (false, true) => out.document(&started.text),
        (false, false) => out.line(id.to_string()),
        (true, json) => {
            if !json {
                out.note(&format!("run {id} is started"));
            }
            let ended = wait_for(api, id).await?;
            report(api, out, &ended).await
        }
    }
}

/// Waits until a run has ended.
async fn wait_for(api: &Api, id: RunId) -> Outcome<Answer<RunDetail>> {
    let mut follow = Follow::new(api, id);
    loop {
        let run = follow.next().await?;
        if run.value.summary.status.is_terminal() {
            return Ok(run);
        }
    }
}

/// The output of a run, or why there is none.
async fn report(api: &Api, out: &Out, ended: &Answer<RunDetail>) -> Outcome {
    let run = &ended.value;
    if out.json {
        out.document(&ended.text)?;
    }
    match (run.summary.status, &run.failure) {
        (RunStatus::Succeeded, _) if out.json => Ok(()),
        (RunStatus::Succeeded, _) => {
            let json = match &run.output {
                Some(PayloadView { json: Some(json), .. }) => json.get().to_owned(),
                Some(_) => api.read(&format!("/api/v1/runs/{}/output", run.summary.id)).await?,
                None => "null".to_owned(),
            };
            out.document(&json)
        }
        (_, Some(failure)) if !out.json => {
            words::failure_lines(failure, &Out::plain()).iter().for_each(|line| out.note_safe(line));
            Err(Failure::Told)
        }
        (status, _) if !out.json => Err(Failure::No(format!("the run is {status}"))),
        _ => Err(Failure::Told),
    }
}
