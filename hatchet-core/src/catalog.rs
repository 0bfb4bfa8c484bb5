//! The workflows of a worker as data, without their code: what a step needs to know to spawn a workflow. Also how the names
//! of workflows are announced and compared.

use std::collections::BTreeMap;

use crate::{
    definition::Options,
    ids::{Name, split_version},
};

/// Workflows by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog(BTreeMap<Name, Options>);

impl Catalog {
    pub(crate) fn new(workflows: impl IntoIterator<Item = (Name, Options)>) -> Self {
        Self(workflows.into_iter().collect())
    }

    /// The workflow of this name; the name is the one that others share.
    pub(crate) fn get(&self, name: &str) -> Option<(&Name, &Options)> {
        self.0.get_key_value(name)
    }

    /// The workflow of this name, of its highest version if it has some.
    pub(crate) fn latest(&self, name: &str) -> Option<(&Name, &Options)> {
        self.get(name).or_else(|| self.get(highest_version(name, self.0.keys())?))
    }
}

/// Between the name of a workflow and that of its only step: no name has it.
pub(crate) const ONLY_STEP: char = '\u{1}';

/// What is announced of the only step of a workflow.
pub(crate) fn announced_only_step(workflow: &str, step: &str) -> Name {
    format!("{workflow}{ONLY_STEP}{step}").into()
}

/// What was announced as a workflow, and not as something about one.
pub(crate) fn only_workflows(announced: Vec<Name>) -> Vec<Name> {
    announced.into_iter().filter(|name| !name.contains(ONLY_STEP)).collect()
}

/// What the only step of a workflow has been called, as long as it had one.
pub(crate) fn only_steps<'a>(workflow: &str, announced: &'a [Name]) -> Vec<&'a str> {
    let of_it = |name: &'a Name| name.split_once(ONLY_STEP).filter(|(own, _)| *own == workflow);
    announced.iter().filter_map(of_it).map(|(_, step)| step).collect()
}

/// The highest version of a workflow among some names.
pub(crate) fn highest_version<'a>(workflow: &str, names: impl IntoIterator<Item = &'a Name>) -> Option<&'a Name> {
    let own = names.into_iter().filter(|name| split_version(name).0 == workflow);
    own.max_by_key(|name| split_version(name).1)
}

/// Why nobody takes a run of a workflow, if none of those who announce these names has it.
pub(crate) fn unserved(workflow: &str, announced: &[Name]) -> Option<String> {
    if announced.iter().any(|name| **name == *workflow) {
        return None;
    }
    let base = split_version(workflow).0;
    let mut others: Vec<&Name> = announced.iter().filter(|name| split_version(name).0 == base).collect();
    others.sort_by_key(|name| split_version(name).1);
    let others: Vec<&str> = others.into_iter().map(|name| &**name).collect();
    Some(match others[..] {
        [] => format!("no open worker has {workflow}"),
        _ => format!("no open worker has {workflow}; open workers have {}", others.join(", ")),
    })
}
