//! A method under `#[step]` or `#[on_failure]`: its options and its signature, with names still unresolved.

use std::time::Duration;

use proc_macro2::Ident;
use syn::{
    Attribute, FnArg, GenericParam, ImplItemFn, Pat, PatType, Receiver, ReceiverKind, ReturnType, Safety, Signature,
    Type,
};

use super::options::{self, Place};
use crate::{
    errors::Errors,
    model::Cfg,
    tokens::{self, Ends, ungroup, unraw},
};

#[derive(Debug)]
pub(super) struct MethodSyntax {
    pub(super) name: Ident,
    /// What it is called in everything that is stored.
    pub(super) id: String,
    pub(super) is_async: bool,
    pub(super) is_generic: bool,
    /// Nothing if there is an error about it.
    pub(super) returns: Option<Type>,
    pub(super) context: Ends,
    pub(super) arguments: Vec<ArgumentSyntax>,
    pub(super) cfg: Cfg,
    pub(super) retries: u32,
    pub(super) backoff: Option<(Duration, Duration)>,
    pub(super) timeout: Option<Duration>,
    pub(super) after: Vec<Ident>,
    pub(super) keep_failures: bool,
}

/// An argument behind the context.
#[derive(Debug)]
pub(super) struct ArgumentSyntax {
    pub(super) name: Ident,
    pub(super) by_reference: bool,
    /// The type without the reference.
    pub(super) ty: Type,
    /// The type as it is written.
    pub(super) ends: Ends,
}

/// Reads `method`, with `attribute` on it. An argument named like one of `steps` cannot be the context.
pub(super) fn read(
    method: &ImplItemFn,
    attribute: &Attribute,
    place: Place,
    steps: &[String],
    errors: &mut Errors,
) -> MethodSyntax {
    let sig = &method.sig;
    let mut read = MethodSyntax {
        name: sig.ident.clone(),
        id: unraw(&sig.ident),
        is_async: sig.asyncness.is_some(),
        returns: None,
        is_generic: false,
        context: Ends::of(&sig.ident),
        arguments: Vec::new(),
        cfg: super::cfg(&method.attrs),
        retries: 0,
        backoff: None,
        timeout: None,
        after: Vec::new(),
        keep_failures: false,
    };
    read.read_options(attribute, place, errors);
    read.read_signature(sig, place, steps, errors);
    read
}

impl MethodSyntax {
    fn read_options(&mut self, attribute: &Attribute, place: Place, errors: &mut Errors) {
        let entries = options::of_attribute(attribute, place, errors);
        for entry in &entries {
            match entry.name() {
                "retries" => self.retries = entry.number(errors).unwrap_or_default(),
                "backoff" => self.backoff = entry.backoff(errors),
                "timeout" => self.timeout = entry.timeout(errors),
                "after" => self.after = entry.names(errors),
                "name" => self.read_id(entry, errors),
                "on_retry" => {
                    self.keep_failures = entry.choice(&[("rerun", false), ("keep", true)], errors).unwrap_or(false);
                }
                _ => unreachable!("only known options are read"),
            }
        }
        let named = |name: &str| entries.iter().find(|entry| entry.name() == name);
        if let (Some(backoff), None) = (named("backoff"), named("retries")) {
            errors.at(backoff.key(), "`backoff` is the wait before a retry, and there is none: add `retries = 3`");
        }
    }

    fn read_id(&mut self, entry: &options::Entry, errors: &mut Errors) {
        let Some(literal) = entry.string(errors) else { return };
        self.id = literal.value();
        super::check_name("step", &self.id, &literal, errors);
        if let Some(bad) = self.id.chars().find(|&c| !(c.is_alphanumeric() || "_-.:/ ".contains(c))) {
            let message = format!("the name of a step has letters, digits, spaces and any of `_-.:/`, and no {bad:?}");
            errors.at(&literal, message);
        }
    }

    fn read_signature(&mut self, sig: &Signature, place: Place, steps: &[String], errors: &mut Errors) {
        let what = What(place, sig);
        self.is_generic = sig.generics.params.iter().any(is_type_parameter);
        check_plain(sig, what, errors);
        check_receiver(sig, what, errors);
        let typed: Vec<&PatType> = sig
            .inputs
            .iter()
            .filter_map(|arg| if let FnArg::Typed(typed) = arg { Some(typed) } else { None })
            .collect();
        let others: Vec<&PatType> = match typed.split_first() {
            Some((first, others)) if is_context(first, steps) => {
                self.context = Ends::of(&first.ty);
                others.to_vec()
            }
            _ => {
                report_missing_context(sig, &typed, what, errors);
                typed.into_iter().filter(|argument| !is_named_context(argument)).collect()
            }
        };
        self.arguments = others.into_iter().filter_map(|typed| read_argument(typed, what, errors)).collect();
        match &sig.output {
            ReturnType::Default => errors.at(&sig.ident, format!("{what} returns a `Result`: add `-> StepResult<()>`")),
            ReturnType::Type(_, ty) if tokens::contains(ty, "impl") => {
                errors.at(ty, format!("{what} returns a type that has a name, not `impl Trait`: its output is stored"));
            }
            ReturnType::Type(_, ty) => self.returns = Some((**ty).clone()),
        }
    }
}

/// The method in messages: "the step `fetch`".
#[derive(Clone, Copy)]
struct What<'a>(Place, &'a Signature);

impl std::fmt::Display for What<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Place::OnFailure => write!(f, "the `#[on_failure]` method `{}`", self.1.ident),
            _ => write!(f, "the step `{}`", self.1.ident),
        }
    }
}

fn check_plain(sig: &Signature, what: What<'_>, errors: &mut Errors) {
    if let Safety::Unsafe(token) = &sig.safety {
        errors.at(token, format!("{what} is called by workers and cannot be unsafe"));
    }
    for param in sig.generics.params.iter().filter(|param| is_type_parameter(param)) {
        let instead = "nothing says which types to run it with; make the struct generic instead";
        errors.at(param, format!("{what} cannot be generic: {instead}"));
    }
}

fn is_type_parameter(param: &GenericParam) -> bool {
    !matches!(param, GenericParam::Lifetime(_))
}

fn check_receiver(sig: &Signature, what: What<'_>, errors: &mut Errors) {
    let Some(FnArg::Receiver(receiver)) = sig.inputs.first() else {
        errors.at(&sig.ident, format!("{what} is a method of its workflow: add `&self` before its arguments"));
        return;
    };
    let shared = "all runs share the struct";
    match kind_of(receiver) {
        Kind::Shared => {}
        Kind::Exclusive => errors
            .at(receiver, format!("{what} takes `&self`, since {shared}: keep what changes in a `Mutex` or an atomic")),
        Kind::Other => errors.at(receiver, format!("{what} takes `&self`, since {shared}")),
    }
}

enum Kind {
    Shared,
    Exclusive,
    Other,
}

fn kind_of(receiver: &Receiver) -> Kind {
    let mutability = match &receiver.kind {
        ReceiverKind::Reference(_, _, mutability) => mutability,
        ReceiverKind::Typed(_, ty) => match ungroup(ty) {
            Type::Reference(reference) => &reference.mutability,
            _ => return Kind::Other,
        },
        _ => return Kind::Other,
    };
    if mutability.is_some() { Kind::Exclusive } else { Kind::Shared }
}

fn is_context(argument: &PatType, steps: &[String]) -> bool {
    let Type::Reference(reference) = ungroup(&argument.ty) else { return false };
    let stands_for_more =
        |name: &Ident| matches!(without_underscore(name).as_str(), "input" | "failure") || steps.contains(&unraw(name));
    let is_taken = !is_named_context(argument) && name_of(argument).is_some_and(stands_for_more);
    reference.mutability.is_none() && !is_taken
}

fn is_named_context(argument: &PatType) -> bool {
    name_of(argument).is_some_and(|name| without_underscore(name) == "ctx")
}

fn report_missing_context(sig: &Signature, arguments: &[&PatType], what: What<'_>, errors: &mut Errors) {
    match arguments {
        [first, ..] if is_named_context(first) => {
            errors.at(&first.ty, format!("{what} takes its context by reference: `ctx: &StepContext`"));
        }
        _ if arguments.iter().any(|argument| is_named_context(argument)) => {
            errors.at(
                &arguments[0].pat,
                format!("{what} takes its context first, right after `&self`: `ctx: &StepContext`"),
            );
        }
        [first, ..] => {
            errors.at(&first.pat, format!("{what} has no context: add `ctx: &StepContext` right after `&self`"));
        }
        [] => errors.at(&sig.ident, format!("{what} has no context: add `ctx: &StepContext` right after `&self`")),
    }
}

fn read_argument(argument: &PatType, what: What<'_>, errors: &mut Errors) -> Option<ArgumentSyntax> {
    for attribute in &argument.attrs {
        if attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr") {
            errors.at(
                attribute,
                "an argument of a step cannot be conditional: put the `#[cfg]` on two versions of the `impl` block",
            );
        }
    }
    let Some(name) = name_of(argument) else {
        let says = "the name of an argument says what it takes";
        let message = match &*argument.pat {
            Pat::Wild(_) => format!("{says}: write `_input`, or `_` and the name of a step"),
            _ => format!("{says}: name it, and take it apart in the body"),
        };
        errors.at(&argument.pat, message);
        return None;
    };
    if tokens::contains(&argument.ty, "impl") {
        errors.at(&argument.ty, format!("{what} cannot be generic: name the type of `{name}`"));
        return None;
    }
    let (by_reference, ty) = match ungroup(&argument.ty) {
        Type::Reference(reference) if reference.mutability.is_some() => {
            let ty = tokens::text(&reference.elem);
            errors.at(
                &argument.ty,
                format!(
                    "an argument of a step is a value or a shared reference: to change it, write `mut {name}: {ty}`"
                ),
            );
            return None;
        }
        Type::Reference(reference) => (true, ungroup(&reference.elem)),
        ty => (false, ty),
    };
    Some(ArgumentSyntax { name: name.clone(), by_reference, ty: ty.clone(), ends: Ends::of(&argument.ty) })
}

fn name_of(argument: &PatType) -> Option<&Ident> {
    let mut pat = &*argument.pat;
    while let Pat::Paren(paren) = pat {
        pat = &paren.pat;
    }
    match pat {
        Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => Some(&pat.ident),
        _ => None,
    }
}

/// The name that `_name` stands for.
pub(super) fn without_underscore(name: &Ident) -> String {
    unraw(name).trim_start_matches('_').to_owned()
}
