//! The steps of a run, for people.

use crate::{backend::RunView, error::Error, history::RunStep};

use super::Hatchet;

impl Hatchet {
    /// Returns the steps of a run by number, with their names and states. A graph has all its steps once the first of them has
    /// ended or written an entry; until then the run has one.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn f(hatchet: &Hatchet, run: RunId) -> Result<(), Error> {
    /// for step in hatchet.steps(&hatchet.get(run).await?).await? {
    ///     println!("{}: {:?}", step.name.as_deref().unwrap_or("(its only step)"), step.phase);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn steps(&self, run: &RunView) -> Result<Vec<RunStep>, Error> {
        let steps = RunStep::of_state(&run.state);
        if !steps.is_empty() {
            return Ok(steps);
        }
        // Workers announce the name of an only step. If it was renamed, nothing tells which name it had then.
        let name = match &self.only_steps_of(&run.workflow).await?[..] {
            [only] => Some(only.as_str().into()),
            _ => None,
        };
        Ok(vec![RunStep::only(name, run.outcome.as_ref())])
    }
}
