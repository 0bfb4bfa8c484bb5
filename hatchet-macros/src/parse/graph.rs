//! `#[workflow]` on an `impl` block: collects its steps and resolves the names between them.

use proc_macro2::{Ident, TokenStream};
use quote::ToTokens;
use syn::{Attribute, ImplItem, ImplItemFn, ItemImpl, Path, Type};

use super::{
    method::{self, ArgumentSyntax, MethodSyntax, without_underscore},
    options::{self, Place},
};
use crate::{
    errors::Errors,
    model::{
        Argument, Cfg, ConditionalNeed, Graph, Implements, Input, Interface, Method, Rejected, Source, Step, Stub,
    },
    suggest,
    tokens::{self, ungroup, unraw},
};

pub(super) fn parse(options: TokenStream, mut item: ItemImpl) -> Result<Graph, Rejected> {
    let mut errors = Errors::default();
    let facade = read_facade(options, &mut errors);
    let name = read_name(&item.self_ty, &mut errors);
    let annotated = take_annotations(&mut item, &mut errors);
    let syntax = Syntax::read(&annotated, &item, &mut errors);
    let resolved = syntax.resolve(&mut errors);
    if let (true, Some(name)) = (errors.is_empty(), &name) {
        check_last_steps(&resolved, &item, name, &mut errors);
    }

    let cfg = super::cfg(&item.attrs);
    match (errors.into_error(), name) {
        (None, Some(name)) if !syntax.has_duplicates() => {
            let Resolved { input, steps, on_failure } = resolved;
            Ok(Graph { item, facade, cfg, name, input, steps, on_failure })
        }
        (error, name) => {
            let implements = Implements::Steps(Box::new(syntax.interface(&item, &resolved)));
            let generics = item.generics.clone();
            let stub = name.map(|_| Box::new(Stub { facade, generics, cfg, implements }));
            Err(Rejected { item: item.to_token_stream(), error, stub })
        }
    }
}

fn read_facade(options: TokenStream, errors: &mut Errors) -> Path {
    let entries = options::read(options, Place::Impl, errors);
    entries.first().and_then(|entry| entry.path(errors)).unwrap_or_else(options::default_facade)
}

fn read_name(self_ty: &Type, errors: &mut Errors) -> Option<Ident> {
    if let Type::Path(path) = ungroup(self_ty) {
        return path.path.segments.last().map(|segment| segment.ident.clone());
    }
    errors.at(self_ty, "`#[workflow]` goes on the `impl` block of a struct");
    None
}

/// A method and the attribute of ours that stood on it.
type Annotated = (ImplItemFn, Attribute, Place);

/// Takes our attributes off the items of the block.
fn take_annotations(item: &mut ItemImpl, errors: &mut Errors) -> Vec<Annotated> {
    let mut annotated = Vec::new();
    for item in &mut item.items {
        let attributes = match item {
            ImplItem::Const(item) => &mut item.attrs,
            ImplItem::Fn(item) => &mut item.attrs,
            ImplItem::Type(item) => &mut item.attrs,
            ImplItem::Macro(item) => &mut item.attrs,
            _ => continue,
        };
        check_unconditional(attributes, errors);
        let mut ours =
            attributes.extract_if(.., |attribute| place_of(attribute).is_some()).collect::<Vec<_>>().into_iter();
        let Some(attribute) = ours.next() else { continue };
        for other in ours {
            errors.at(other, "a method has one `#[step]` or one `#[on_failure]`");
        }
        let place = place_of(&attribute).expect("only those with a place were taken");
        match item {
            ImplItem::Fn(method) => annotated.push((method.clone(), attribute, place)),
            _ => errors.at(&attribute, format!("`{}` goes on a method", tokens::text(&attribute))),
        }
    }
    annotated
}

/// What `cfg_attr` will make of an attribute cannot be known here.
fn check_unconditional(attributes: &mut Vec<Attribute>, errors: &mut Errors) {
    let is_ours =
        |attribute: &Attribute, name| attribute.path().is_ident("cfg_attr") && tokens::contains(&attribute.meta, name);
    for name in ["step", "on_failure"] {
        for attribute in attributes.extract_if(.., |attribute| is_ours(attribute, name)) {
            errors.at(attribute, format!("`#[{name}]` cannot be conditional: put a `#[cfg]` on the method instead"));
        }
    }
}

fn place_of(attribute: &Attribute) -> Option<Place> {
    match attribute.path().segments.last()?.ident.to_string().as_str() {
        "step" => Some(Place::Step),
        "on_failure" => Some(Place::OnFailure),
        _ => None,
    }
}

/// The annotated methods, with names unresolved.
struct Syntax {
    names: Vec<String>,
    steps: Vec<MethodSyntax>,
    on_failure: Option<MethodSyntax>,
}

struct Resolved {
    input: Option<Input>,
    steps: Vec<Step>,
    on_failure: Option<Method>,
}

/// A step's need of another, and where it is written.
struct Need<'a> {
    step: usize,
    at: &'a Ident,
}

impl Syntax {
    fn read(annotated: &[Annotated], item: &ItemImpl, errors: &mut Errors) -> Self {
        let is_step = |(_, _, place): &&Annotated| *place == Place::Step;
        let names: Vec<String> =
            annotated.iter().filter(is_step).map(|(method, ..)| unraw(&method.sig.ident)).collect();
        let mut syntax = Self { names, steps: Vec::new(), on_failure: None };
        for (method, attribute, place) in annotated {
            let read = method::read(method, attribute, *place, &syntax.names, errors);
            if *place == Place::Step {
                check_step_name(&read.name, errors);
                syntax.steps.push(read);
            } else if syntax.on_failure.is_none() {
                syntax.on_failure = Some(read);
            } else {
                errors.at(&read.name, "a workflow has at most one `#[on_failure]` method, and there is one above");
            }
        }
        if syntax.steps.is_empty() {
            let message = "a workflow has at least one step: annotate an `async fn` of this block with `#[step]`";
            errors.at(&item.self_ty, message);
        }
        syntax.check_same_names(errors);
        syntax.check_same_ids(errors);
        syntax
    }

    /// Two methods of one name are an error of rustc, except under `#[cfg]`s that exclude each other.
    fn check_same_names(&self, errors: &mut Errors) {
        for (at, step) in self.steps.iter().enumerate() {
            let earlier = &self.steps[..at];
            let both_conditional = |other: &MethodSyntax| !other.cfg.is_always() && !step.cfg.is_always();
            if earlier.iter().any(|other| unraw(&other.name) == self.names[at] && both_conditional(other)) {
                let message =
                    format!("a step has one signature: put the `#[cfg]`s into the body of one `{}`", step.name);
                errors.at(&step.name, message);
            }
        }
    }

    /// Two steps of different methods that are stored under one name.
    fn check_same_ids(&self, errors: &mut Errors) {
        for (at, step) in self.steps.iter().enumerate() {
            let same = |other: &&MethodSyntax| other.id == step.id && unraw(&other.name) != unraw(&step.name);
            if let Some(other) = self.steps[..at].iter().find(same) {
                let message =
                    format!("the step `{}` is called {:?}, too: give each a name of its own", other.name, step.id);
                errors.at(&step.name, message);
            }
        }
    }

    fn has_duplicates(&self) -> bool {
        self.names.iter().enumerate().any(|(at, name)| self.names[..at].contains(name))
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|step| step == name)
    }

    /// What is known of the workflow's types whatever the errors are, so that those who use it get no errors as well.
    fn interface(&self, item: &ItemImpl, resolved: &Resolved) -> Interface {
        let is_sound = !self.steps.iter().chain(&self.on_failure).any(|step| step.is_generic) && !self.has_duplicates();
        let is_sized = |ty: &Type| owned_form(ty).is_none();
        let last: Vec<&Step> = resolved.steps.iter().filter(|step| step.successors.is_empty()).collect();
        Interface {
            ty: (*item.self_ty).clone(),
            input: resolved.input.as_ref().map(|input| input.ty.clone()).filter(|ty| is_sound && is_sized(ty)),
            returns: match &last[..] {
                [last] if is_sound => self.steps[self.position(&unraw(&last.method.name)).unwrap_or(0)].returns.clone(),
                _ => None,
            },
        }
    }

    fn resolve(&self, errors: &mut Errors) -> Resolved {
        let input = self.resolve_input(errors);
        let needs: Vec<Vec<Need<'_>>> = (0..self.steps.len()).map(|step| self.needs_of(step, errors)).collect();
        self.check_cycles(&needs, errors);
        let positions: Vec<Vec<usize>> = needs.iter().map(|needs| sorted(needs.iter().map(|need| need.step))).collect();
        let cfgs: Vec<Cfg> = (0..self.steps.len()).map(|step| self.cfg_with_ancestors(step, &positions)).collect();
        let steps = self.steps.iter().zip(&needs).enumerate();
        let steps = steps
            .map(|(at, (syntax, needs))| Step {
                method: syntax.to_method(self.arguments_of(syntax), cfgs[at].clone()),
                needs: positions[at].clone(),
                successors: (0..self.steps.len()).filter(|&after| positions[after].contains(&at)).collect(),
                keep_failures: syntax.keep_failures,
                cfg: syntax.cfg.clone(),
                conditional_needs: self.conditional_needs(syntax, needs),
            })
            .collect();
        let on_failure = self.on_failure.as_ref().map(|syntax| {
            let arguments = self.arguments_of_on_failure(syntax, errors);
            syntax.to_method(arguments, syntax.cfg.clone())
        });
        Resolved { input, steps, on_failure }
    }

    /// The type that all arguments `input` have.
    fn resolve_input(&self, errors: &mut Errors) -> Option<Input> {
        let mut first: Option<(&MethodSyntax, &ArgumentSyntax)> = None;
        let mut taken = Vec::new();
        for method in self.steps.iter().chain(&self.on_failure) {
            let Some(argument) = method.arguments.iter().find(|argument| self.is_input(&argument.name)) else {
                continue;
            };
            taken.push(method.cfg.clone());
            check_owned(argument, errors);
            let Some((first_method, first_argument)) = first else {
                first = Some((method, argument));
                continue;
            };
            if !tokens::same(&first_argument.ty, &argument.ty) {
                let (this, other) = (tokens::text(&argument.ty), tokens::text(&first_argument.ty));
                let message =
                    format!("a workflow has one input: it is `{this}` here, and `{other}` in `{}`", first_method.name);
                errors.at(&argument.ty, message);
            }
        }
        first.map(|(_, argument)| Input { ty: argument.ty.clone(), taken })
    }

    fn is_input(&self, argument: &Ident) -> bool {
        matches!(self.source(argument), Some(Source::Input))
    }

    /// What the name of a step's argument stands for; the name as it is written goes before the one without underscore.
    fn source(&self, argument: &Ident) -> Option<Source> {
        [unraw(argument), without_underscore(argument)].iter().find_map(|name| match self.position(name) {
            _ if name == "input" => Some(Source::Input),
            position => position.map(Source::Step),
        })
    }

    /// What a step needs, each step once, and none of it twice. Reports names that are no step.
    fn needs_of<'a>(&'a self, step: usize, errors: &mut Errors) -> Vec<Need<'a>> {
        let syntax = &self.steps[step];
        let mut needs: Vec<Need<'_>> = Vec::new();
        let mut add = |position, at, errors: &mut Errors| {
            if position == step {
                errors.at(at, format!("the step `{}` needs itself", syntax.name));
            } else if !needs.iter().any(|need| need.step == position) {
                needs.push(Need { step: position, at });
            }
        };
        for argument in &syntax.arguments {
            match self.source(&argument.name) {
                Some(Source::Step(position)) => add(position, &argument.name, errors),
                Some(_) => {}
                None => errors.at(&argument.name, self.unknown_argument(&argument.name, step)),
            }
        }
        for name in &syntax.after {
            match self.position(&unraw(name)) {
                Some(position) => add(position, name, errors),
                None => errors.at(name, self.unknown_step(&unraw(name), step)),
            }
        }
        needs
    }

    fn others(&self, step: usize) -> Vec<&str> {
        let own = &self.names[step];
        self.names.iter().filter(|name| *name != own).map(String::as_str).collect()
    }

    fn unknown_argument(&self, argument: &Ident, step: usize) -> String {
        let name = without_underscore(argument);
        if name == "failure" {
            return "`failure` is an argument of the `#[on_failure]` method only".to_owned();
        }
        let others = self.others(step);
        if let Some(nearest) = suggest::nearest(&name, others.iter().copied().chain(["input"])) {
            return format!("there is no step `{name}`: did you mean `{nearest}`?");
        }
        let or = if others.is_empty() {
            "an argument is `input` or named like another step, and there is no other".to_owned()
        } else {
            format!("an argument is `input` or named like another step: {}", suggest::list(others))
        };
        format!("there is no step `{name}`; {or}")
    }

    fn unknown_step(&self, name: &str, step: usize) -> String {
        if name == "input" {
            return "`input` is the input of the workflow, and there from the start: `after` names steps".to_owned();
        }
        let others = self.others(step);
        match suggest::nearest(name, others.iter().copied()) {
            Some(nearest) => format!("there is no step `{name}`: did you mean `{nearest}`?"),
            None if others.is_empty() => format!("there is no step `{name}`, and no other step at all"),
            None => format!("there is no step `{name}`; the other steps are: {}", suggest::list(others)),
        }
    }

    fn check_cycles(&self, needs: &[Vec<Need<'_>>], errors: &mut Errors) {
        let positions: Vec<Vec<usize>> =
            needs.iter().map(|needs| needs.iter().map(|need| need.step).collect()).collect();
        for cycle in cycles(&positions) {
            let (first, last) = (cycle[0], cycle[cycle.len() - 1]);
            let closing = needs[last].iter().find(|need| need.step == first).expect("the last step needs the first");
            // The other way round than it was found: outputs go from the step that is needed to the one that needs it.
            let mut path = vec![self.names[first].as_str()];
            path.extend(cycle.iter().rev().map(|&step| self.names[step].as_str()));
            let message = format!("these steps need each other, so that none can be the first: {}", path.join(" -> "));
            errors.at(closing.at, message);
        }
    }

    fn arguments_of(&self, method: &MethodSyntax) -> Vec<Argument> {
        let resolve = |argument: &ArgumentSyntax| Some(argument.resolve(self.source(&argument.name)?));
        method.arguments.iter().filter_map(resolve).collect()
    }

    fn arguments_of_on_failure(&self, method: &MethodSyntax, errors: &mut Errors) -> Vec<Argument> {
        let mut arguments = Vec::new();
        for argument in &method.arguments {
            match without_underscore(&argument.name).as_str() {
                "input" => arguments.push(argument.resolve(Source::Input)),
                "failure" => arguments.push(argument.resolve(Source::Failure)),
                name => {
                    let message = match suggest::nearest(name, ["input", "failure"]) {
                        Some(nearest) => {
                            format!("the `#[on_failure]` method takes no `{name}`: did you mean `{nearest}`?")
                        }
                        None => "the `#[on_failure]` method takes `input` and `failure`, and not the outputs of steps"
                            .to_owned(),
                    };
                    errors.at(&argument.name, message);
                }
            }
        }
        arguments
    }

    /// The conditions of a step and of all that it needs: it is only there if they are.
    fn cfg_with_ancestors(&self, step: usize, needs: &[Vec<usize>]) -> Cfg {
        let mut seen = vec![false; self.steps.len()];
        let mut open = vec![step];
        let mut cfg = Cfg::default();
        while let Some(step) = open.pop() {
            if !std::mem::replace(&mut seen[step], true) {
                cfg.extend(&self.steps[step].cfg);
                open.extend(&needs[step]);
            }
        }
        cfg
    }

    fn conditional_needs(&self, syntax: &MethodSyntax, needs: &[Need<'_>]) -> Vec<ConditionalNeed> {
        let conditional = needs.iter().filter(|need| !syntax.cfg.implies(&self.steps[need.step].cfg));
        conditional
            .map(|need| ConditionalNeed { at: need.at.clone(), cfg: self.steps[need.step].cfg.clone() })
            .collect()
    }
}

impl MethodSyntax {
    fn to_method(&self, arguments: Vec<Argument>, cfg: Cfg) -> Method {
        Method {
            name: self.name.clone(),
            id: self.id.clone(),
            is_async: self.is_async,
            returns: self.returns.clone().unwrap_or_else(|| syn::parse_quote!(())),
            context: self.context,
            arguments,
            retries: self.retries,
            backoff: self.backoff,
            timeout: self.timeout,
            cfg,
        }
    }
}

impl ArgumentSyntax {
    fn resolve(&self, source: Source) -> Argument {
        Argument { source, by_reference: self.by_reference, ty: self.ends }
    }
}

fn check_step_name(name: &Ident, errors: &mut Errors) {
    let stands_for = match without_underscore(name).as_str() {
        "input" => "the input of the workflow",
        "failure" => "the failure that `#[on_failure]` is called for",
        "ctx" => "the context",
        _ => return,
    };
    errors.at(name, format!("a step cannot be named `{name}`, since an argument of that name is {stands_for}"));
}

/// The input is decoded for each step, so its type has a size. rustc would say so on the attribute.
fn check_owned(argument: &ArgumentSyntax, errors: &mut Errors) {
    if let Some(owned) = owned_form(&argument.ty) {
        errors.at(
            &argument.ty,
            format!("the input is decoded from storage and owned: take it as `{owned}` or `&{owned}`"),
        );
    }
}

/// `String` for `str`, `Vec<T>` for `[T]`.
fn owned_form(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(path) if path.path.is_ident("str") => Some("String".to_owned()),
        Type::Slice(slice) => Some(format!("Vec<{}>", tokens::text(&slice.elem))),
        _ => None,
    }
}

/// A generic workflow has no struct for the outputs of several last steps.
fn check_last_steps(resolved: &Resolved, item: &ItemImpl, name: &Ident, errors: &mut Errors) {
    let last = resolved.steps.iter().filter(|step| step.successors.is_empty());
    let names: Vec<String> = last.map(|step| unraw(&step.method.name)).collect();
    if names.len() > 1 && !item.generics.params.is_empty() {
        let list = suggest::list(names.iter().map(String::as_str));
        let message = format!(
            "`{name}` is generic, and a generic workflow has exactly one last step: \
             add one that takes or comes after {list}"
        );
        errors.at(&item.self_ty, message);
    }
}

/// The cycles in a graph of what each step needs: each a path in which every step needs the next, and the last the
/// first.
fn cycles(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut found = Vec::new();
    let mut done = vec![false; needs.len()];
    for start in 0..needs.len() {
        visit(start, needs, &mut Vec::new(), &mut done, &mut found);
    }
    found
}

fn visit(step: usize, needs: &[Vec<usize>], path: &mut Vec<usize>, done: &mut [bool], found: &mut Vec<Vec<usize>>) {
    if let Some(at) = path.iter().position(|&before| before == step) {
        found.push(path[at..].to_vec());
    } else if !done[step] {
        path.push(step);
        for &need in &needs[step] {
            visit(need, needs, path, done, found);
        }
        path.pop();
        done[step] = true;
    }
}

fn sorted(positions: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut positions: Vec<usize> = positions.collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_without_a_cycle_has_none() {
        assert!(cycles(&[]).is_empty());
        assert!(cycles(&[vec![], vec![0], vec![0], vec![1, 2]]).is_empty());
        assert!(cycles(&[vec![3], vec![0], vec![0, 1], vec![]]).is_empty());
    }

    #[test]
    fn a_cycle_is_found_from_its_first_step() {
        assert_eq!(cycles(&[vec![1], vec![0]]), [[0, 1]]);
        assert_eq!(cycles(&[vec![], vec![3], vec![1, 0], vec![2]]), [[1, 3, 2]]);
    }

    #[test]
    fn cycles_apart_are_all_found() {
        assert_eq!(cycles(&[vec![1], vec![0], vec![3], vec![2]]), [[0, 1], [2, 3]]);
        assert_eq!(cycles(&[vec![1, 2], vec![0], vec![0]]), [[0, 1], [0, 2]]);
    }

    #[test]
    fn a_step_beside_a_cycle_is_not_part_of_it() {
        assert_eq!(cycles(&[vec![1], vec![2], vec![1]]), [[1, 2]]);
    }
}
