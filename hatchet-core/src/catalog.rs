//! The workflows of a worker as data, without their code: what a step needs to know to spawn a workflow. Also how the names
//! of workflows are announced and compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    backend::Announced,
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

/// Why no open worker takes a run of a workflow from a queue. `None` if one does.
pub(crate) fn unserved(workflow: &str, queue: &str, announced: &[Announced]) -> Option<String> {
    if announced.iter().any(|worker| worker.serves(workflow, queue)) {
        return None;
    }
    let able: Vec<&Announced> = announced.iter().filter(|worker| has(&worker.workflows, workflow)).collect();
    if !able.is_empty() {
        let queues: BTreeSet<&str> = able.into_iter().flat_map(|worker| &worker.queues).map(|name| &**name).collect();
        let queues = queues.into_iter().collect::<Vec<_>>().join(", ");
        return Some(format!(
            "no open worker that has {workflow} claims from the queue {queue}; those that have it claim from {queues}"
        ));
    }
    let base = split_version(workflow).0;
    let names: BTreeSet<&Name> = announced.iter().flat_map(|worker| &worker.workflows).collect();
    let mut others: Vec<&Name> = names.into_iter().filter(|name| split_version(name).0 == base).collect();
    others.sort_by_key(|name| split_version(name).1);
    let others: Vec<&str> = others.into_iter().map(|name| &**name).collect();
    Some(match others[..] {
        [] => format!("no open worker has {workflow}"),
        _ => format!("no open worker has {workflow}; open workers have {}", others.join(", ")),
    })
}

fn has(names: &[Name], name: &str) -> bool {
    names.iter().any(|known| **known == *name)
}

/// What a worker announced as the name of its code, as people write it.
pub(crate) fn code_of(announced: &[Name]) -> Option<&str> {
    announced.iter().find_map(|name| name.strip_prefix(ONLY_STEP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_serves_says_whether_the_workflow_the_version_or_the_queue_is_missing() {
        let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect::<Vec<_>>();
        let open = [
            Announced::new(names(&["order@1", "mail"]), names(&["default"])),
            Announced::new(names(&["order@2"]), names(&["slow", "default"])),
            Announced::new(names(&["mail"]), names(&["letters"])),
        ];
        assert_eq!(unserved("order@2", "slow", &open), None);
        assert_eq!(unserved("mail", "letters", &open), None);
        assert_eq!(unserved("pay", "slow", &open).unwrap(), "no open worker has pay");
        let version = "no open worker has order@3; open workers have order@1, order@2";
        assert_eq!(unserved("order@3", "slow", &open).unwrap(), version);
        let queue =
            "no open worker that has mail claims from the queue slow; those that have it claim from default, letters";
        assert_eq!(unserved("mail", "slow", &open).unwrap(), queue);
    }
}
