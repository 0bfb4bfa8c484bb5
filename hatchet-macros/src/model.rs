//! What an annotated item says, checked and resolved: names are positions, durations are durations. Made by `parse`,
//! read by `expand`.

use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream};
use syn::{Generics, ItemImpl, ItemStruct, Member, Path, Type};

use crate::tokens::Ends;

/// An item under `#[workflow]`.
#[derive(Debug)]
pub(crate) enum Workflow {
    Definition(Box<Definition>),
    Graph(Box<Graph>),
}

/// The struct: the options of the whole workflow.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) item: ItemStruct,
    pub(crate) facade: Path,
    pub(crate) cfg: Cfg,
    pub(crate) name: String,
    pub(crate) queue: String,
    pub(crate) priority: Priority,
    pub(crate) timeout: Option<Duration>,
    pub(crate) queue_timeout: Option<Duration>,
    /// Whether a run fails, instead of being stalled, where what is stored of it does not fit the code.
    pub(crate) fails_on_mismatch: bool,
}

/// How urgent, with the names of the library's variants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Priority {
    Low,
    Normal,
    High,
}

/// The impl block: its steps and what they need.
#[derive(Debug)]
pub(crate) struct Graph {
    /// The block without our attributes.
    pub(crate) item: ItemImpl,
    pub(crate) facade: Path,
    pub(crate) cfg: Cfg,
    /// The name of the struct.
    pub(crate) name: Ident,
    pub(crate) input: Option<Input>,
    /// In the order of the source.
    pub(crate) steps: Vec<Step>,
    pub(crate) on_failure: Option<Method>,
}

/// The input of the workflow, if a step takes it.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) ty: Type,
    /// The conditions of the steps that take it: one of them must hold.
    pub(crate) taken: Vec<Cfg>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) method: Method,
    /// The positions of the steps that come before, each once and in order.
    pub(crate) needs: Vec<usize>,
    /// The positions of the steps that come after.
    pub(crate) successors: Vec<usize>,
    pub(crate) keep_failures: bool,
    /// The conditions that are written on it.
    pub(crate) cfg: Cfg,
    pub(crate) conditional_needs: Vec<ConditionalNeed>,
}

/// A need that may be configured out where the step itself is not.
#[derive(Debug)]
pub(crate) struct ConditionalNeed {
    /// Where the need is written: the argument, or the entry of `after`.
    pub(crate) at: Ident,
    /// The conditions of the step that is needed.
    pub(crate) cfg: Cfg,
}

/// What a step and `#[on_failure]` have in common.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: Ident,
    /// What it is called in everything that is stored and shown: `name = ".."`, or the method's name.
    pub(crate) id: String,
    pub(crate) is_async: bool,
    pub(crate) returns: Type,
    /// The type of the argument for the context.
    pub(crate) context: Ends,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) retries: u32,
    pub(crate) backoff: Option<(Duration, Duration)>,
    pub(crate) timeout: Option<Duration>,
    /// Its own conditions, and those of all steps before it.
    pub(crate) cfg: Cfg,
}

#[derive(Debug)]
pub(crate) struct Argument {
    pub(crate) source: Source,
    pub(crate) by_reference: bool,
    /// The type of the parameter, where rustc's errors about the argument shall land.
    pub(crate) ty: Ends,
}

/// What is handed to an argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    Input,
    Failure,
    /// The output of the step at this position.
    Step(usize),
}

/// The predicates of `#[cfg(..)]` attributes, all of which must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cfg(pub(crate) Vec<TokenStream>);

impl Cfg {
    pub(crate) fn is_always(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the conditions of `other`, each once.
    pub(crate) fn extend(&mut self, other: &Self) {
        for predicate in &other.0 {
            if !self.has(predicate) {
                self.0.push(predicate.clone());
            }
        }
    }

    /// Whether this implies `other` by what is written.
    pub(crate) fn implies(&self, other: &Self) -> bool {
        other.0.iter().all(|predicate| self.has(predicate))
    }

    fn has(&self, predicate: &TokenStream) -> bool {
        self.0.iter().any(|own| own.to_string() == predicate.to_string())
    }
}

impl Graph {
    /// Whether positions depend on `#[cfg]`.
    pub(crate) fn is_conditional(&self) -> bool {
        self.steps.iter().any(|step| !step.method.cfg.is_always())
    }

    /// The steps that no other step needs under every condition: those whose output may be one of the workflow.
    pub(crate) fn last_steps(&self) -> impl Iterator<Item = &Step> {
        let always_followed =
            |step: &Step| step.successors.iter().any(|&after| step.method.cfg.implies(&self.steps[after].method.cfg));
        self.steps.iter().filter(move |step| !always_followed(step))
    }
}

/// An item under `#[workflow]` that is not accepted.
#[derive(Debug)]
pub(crate) struct Rejected {
    /// What the user wrote, without our attributes.
    pub(crate) item: TokenStream,
    /// Nothing if rustc reports the error by itself.
    pub(crate) error: Option<syn::Error>,
    /// What is implemented all the same, so that the error has no follow-ups.
    pub(crate) stub: Option<Box<Stub>>,
}

#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) facade: Path,
    pub(crate) generics: Generics,
    pub(crate) cfg: Cfg,
    pub(crate) implements: Implements,
}

#[derive(Debug)]
pub(crate) enum Implements {
    /// The options, for the struct of this name.
    Options(Ident),
    /// The steps, for this type.
    Steps(Box<Interface>),
}

/// What users of a workflow see of it, as far as it is known despite the errors.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) ty: Type,
    pub(crate) input: Option<Type>,
    /// What the last step returns.
    pub(crate) returns: Option<Type>,
}

/// An error type with `#[derive(Failure)]`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) name: Ident,
    pub(crate) facade: Path,
    pub(crate) cases: Vec<Case>,
}

/// A struct, or a variant of an enum.
#[derive(Debug)]
pub(crate) struct Case {
    /// The variant.
    pub(crate) variant: Option<Ident>,
    pub(crate) cfg: Cfg,
    /// Whether the step is run again, where that is said.
    pub(crate) retryable: Option<bool>,
    pub(crate) retry_after: Option<After>,
    /// Whether the error is its own details.
    pub(crate) details: bool,
    /// The field that an `#[error(transparent)]` hides.
    pub(crate) hidden: Option<Member>,
}

/// How long the next attempt waits.
#[derive(Clone, Debug)]
pub(crate) enum After {
    Fixed(Duration),
    Field(Member, Span),
}
