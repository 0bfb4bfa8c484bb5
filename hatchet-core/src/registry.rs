//! The workflows that a worker can run: automatically registered ones, and those passed to `register`.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    backend::{BackendResult, Name},
    catalog::{Catalog, ONLY_STEP, announced_only_step},
    definition::{Definition, Options},
    error::{Error, check_name},
    ids::{hash128, split_version},
    machine::{Graph, GraphError},
    workflow::{AnyWorkflow, Registration},
};

/// Workflows by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    workflows: BTreeMap<Name, Arc<Registered>>,
}

/// A workflow with its graph.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) name: Name,
    pub(crate) workflow: AnyWorkflow,
    pub(crate) graph: Graph,
}

impl Registered {
    pub(crate) fn definition(&self) -> &Definition {
        self.workflow.0.definition()
    }
}

/// What a session answers about a workflow of this name.
///
/// # Errors
/// What the backend says; if no worker has announced it, [`Error::UnknownWorkflow`], or [`Error::NeedsRegistration`] if
/// its struct is linked and has state.
pub(crate) fn announced<T>(name: &str, answer: BackendResult<Result<T, Vec<Name>>>) -> Result<T, Error> {
    answer?.map_err(|known| unknown(name, known))
}

fn unknown(name: &str, known: Vec<Name>) -> Error {
    let linked = inventory::iter::<Registration>.into_iter().find(|linked| linked.options.name == name);
    match linked {
        Some(linked) if (linked.make)().is_none() => {
            Error::NeedsRegistration { name: name.to_owned(), place: place(&linked.options) }
        }
        _ => {
            Error::UnknownWorkflow { name: name.to_owned(), known: known.iter().map(|name| name.to_string()).collect() }
        }
    }
}

impl Registry {
    /// What was handed over, and with `annotated` what registered itself under other names.
    ///
    /// # Errors
    /// [`Error::DuplicateWorkflow`] if two have one name, [`Error::InvalidOption`] or [`Error::InvalidName`] if one cannot be run.
    pub(crate) fn new(by_hand: Vec<AnyWorkflow>, annotated: bool) -> Result<Self, Error> {
        let mut registry = Self::default();
        for workflow in by_hand {
            registry.add(workflow)?;
        }
        let taken: Vec<Name> = registry.workflows.keys().cloned().collect();
        for registration in inventory::iter::<Registration>.into_iter().filter(|_| annotated) {
            let options = &registration.options;
            if taken.iter().any(|name| **name == *options.name) {
                continue;
            }
            match (registration.make)() {
                Some(workflow) => registry.add(workflow)?,
                None => tracing::warn!(
                    workflow = options.name,
                    place = place(options),
                    "workflow skipped: its struct has state; pass it with `.register(..)`"
                ),
            }
        }
        Ok(registry)
    }

    pub(crate) fn add(&mut self, workflow: AnyWorkflow) -> Result<(), Error> {
        let definition = *workflow.0.definition();
        let options = definition.options;
        check_name("workflow name", options.name)?;
        check_name("queue", options.queue)?;
        if let Some(other) = self.workflows.get(options.name) {
            return Err(Error::DuplicateWorkflow {
                name: options.name.to_owned(),
                first: place(&other.definition().options),
                second: place(&options),
            });
        }
        let graph = Graph::new(&definition).map_err(|error| Error::InvalidOption(explain(&definition, &error)))?;
        let name: Name = options.name.into();
        self.workflows.insert(name.clone(), Arc::new(Registered { name, workflow, graph }));
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Registered>> {
        self.workflows.get(name)
    }

    /// The workflows without their code.
    pub(crate) fn catalog(&self) -> Catalog {
        Catalog::new(self.workflows.values().map(|known| (Name::clone(&known.name), known.definition().options)))
    }

    /// What tells this code from other code: a name, or a hash of the program's file and of what the workflows are.
    pub(crate) fn code(&self, build: Option<&str>) -> Name {
        if let Some(build) = build {
            return format!("{ONLY_STEP}{build}").into();
        }
        let program = std::env::current_exe().and_then(std::fs::metadata);
        let mut text = match program {
            Ok(program) => format!("{} {:?}", program.len(), program.modified().ok()),
            Err(_) => String::new(),
        };
        for workflow in self.workflows.values() {
            let definition = workflow.definition();
            text.push_str(&format!(" {} {definition:?}", definition.type_name));
        }
        format!("{ONLY_STEP}{:016x}", hash128(0, text.as_bytes()) as u64).into()
    }

    /// What a session announces: the names of the workflows, and for those of one step which that is, since their runs
    /// do not say so.
    pub(crate) fn announced(&self) -> Vec<Name> {
        let only_steps = self
            .workflows
            .values()
            .filter(|workflow| workflow.graph.is_single())
            .map(|workflow| announced_only_step(&workflow.name, workflow.definition().steps[0].name));
        self.names().into_iter().chain(only_steps).collect()
    }

    /// Sorted.
    pub(crate) fn names(&self) -> Vec<Name> {
        self.workflows.keys().cloned().collect()
    }

    /// The queues of the workflows, sorted, each once.
    pub(crate) fn queues(&self) -> Vec<Name> {
        let queues: std::collections::BTreeSet<&str> =
            self.workflows.values().map(|registered| registered.definition().options.queue).collect();
        queues.into_iter().map(Name::from).collect()
    }
}

fn place(options: &Options) -> String {
    format!("{}:{}", options.location.0, options.location.1)
}

fn explain(definition: &Definition, error: &GraphError) -> String {
    let name = definition.options.name;
    let step = |at: u16| definition.steps.get(usize::from(at)).map_or("?", |step| step.name);
    match error {
        GraphError::NoSteps => format!("workflow {name:?} has no steps"),
        GraphError::UnknownStep(at) => format!("workflow {name:?} has no step number {at}, which another step needs"),
        GraphError::SameName(at) => format!("workflow {name:?} has two steps named {:?}", step(*at)),
        GraphError::Cycle(at) => {
            format!("workflow {name:?} has a cycle of steps that need each other; one of them is {:?}", step(*at))
        }
    }
}

/// The options of a workflow that is linked into this program, whether a worker runs it or not.
pub(crate) fn options_of(name: &str) -> Option<Options> {
    let linked = || inventory::iter::<Registration>.into_iter().map(|linked| linked.options);
    let highest = || {
        let own = linked().filter(|options| split_version(options.name).0 == name);
        own.max_by_key(|options| split_version(options.name).1)
    };
    linked().find(|options| options.name == name).or_else(highest)
}
