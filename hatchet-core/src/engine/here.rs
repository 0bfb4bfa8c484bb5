//! The step whose code runs on this thread now, so that a wait that holds a slot is detected where it is made.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
};

use super::attempt::state::AttemptState;
use crate::ids::RunId;

thread_local! {
    static HERE: Cell<Option<Arc<AttemptState>>> = const { Cell::new(None) };
}

/// The code of a step is polled as long as this lives.
pub(crate) struct Here(Option<Arc<AttemptState>>);

impl Here {
    pub(crate) fn is(attempt: &Arc<AttemptState>) -> Self {
        Self(HERE.replace(Some(Arc::clone(attempt))))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        HERE.set(self.0.take());
    }
}

/// Waits for a run that is not a child. A step that does this holds its slot; once where no slot is left, it is said.
pub(crate) async fn notice<F: Future>(run: RunId, wait: F) -> F::Output {
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        let polled = wait.as_mut().poll(cx);
        if polled.is_pending() {
            warn_of_wait(run);
        }
        polled
    })
    .await
}

fn warn_of_wait(run: RunId) {
    let Some(step) = HERE.take() else { return };
    let info = step.info();
    if step.host().is_first_wait_without_slots(&info.queue) {
        tracing::warn!(
            "step {} of workflow {} waits for run {run} and holds the last slot of its worker: if the run needs one, both wait \
             forever; use `ctx.spawn` to wait without a slot",
            info.def.name,
            info.workflow
        );
    }
    HERE.set(Some(step));
}
