//! The implementation of `Workflow`: the table of the steps, and how each is called.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};

use super::{attribute, duration, ident_at, option, output, predicate};
use crate::{
    model::{Argument, Cfg, ConditionalNeed, Graph, Input, Method, Source, Step},
    tokens::{self, Ends, unraw},
};

pub(super) fn expand(graph: &Graph) -> TokenStream {
    let Graph { item, facade, .. } = graph;
    let cfg = attribute(&graph.cfg);
    let (impl_generics, _, where_clause) = item.generics.split_for_impl();
    let self_ty = &item.self_ty;
    let private = quote!(#facade::__private);

    let output_struct = output::expand_struct(graph);
    let conditions = check_conditions(graph);
    let input = expand_input(graph.input.as_ref());
    let output = output::expand_type(graph);
    let positions = expand_positions(graph);
    let entries = graph.steps.iter().map(|step| expand_entry(graph, step));
    let on_failure = expand_on_failure(graph);
    let arms = graph.steps.iter().map(|step| &step.method).chain(&graph.on_failure).map(|it| expand_arm(graph, it));
    quote! {
        #item

        #output_struct
        #conditions

        #cfg
        #[automatically_derived]
        #[allow(deprecated)]
        impl #impl_generics #facade::Workflow for #self_ty #where_clause {
            #input
            #output
            const STEPS: &'static [#private::StepDef] = {
                #positions
                &[#(#entries,)*]
            };
            #on_failure
            fn execute(
                self: ::std::sync::Arc<Self>,
                step: ::core::primitive::usize,
                call: #private::StepCall,
            ) -> #private::BoxFuture<'static, #private::StepOutcome> {
                #positions
                match step {
                    #(#arms)*
                    _ => ::core::unreachable!("a workflow was asked for a step that it does not have"),
                }
            }
        }
    }
}

/// `type Input = ..;`
fn expand_input(input: Option<&Input>) -> TokenStream {
    let Some(Input { ty, taken }) = input else {
        return quote!(
            type Input = ();
        );
    };
    let input = output::type_item("Input", ty);
    if taken.iter().any(Cfg::is_always) {
        return input;
    }
    let taken = taken.iter().map(predicate);
    let taken = quote!(any(#(#taken),*));
    quote! {
        #[cfg(#taken)]
        #input
        #[cfg(not(#taken))]
        type Input = ();
    }
}

/// Where steps are conditional, rustc counts their positions: as the variants of an enum that are left.
fn expand_positions(graph: &Graph) -> Option<TokenStream> {
    graph.is_conditional().then(|| {
        let variants = graph.steps.iter().map(|step| {
            let cfg = attribute(&step.method.cfg);
            let name = variant(&step.method);
            quote!(#cfg #name)
        });
        quote! {
            #[allow(dead_code, non_camel_case_types)]
            #[repr(u16)]
            enum __Position { #(#variants,)* OnFailure }
        }
    })
}

fn variant(method: &Method) -> Ident {
    ident_at(&format!("step_{}", unraw(&method.name)), method.name.span())
}

/// The position of a step as a `u16`, wherever `expand_positions` stands.
fn position(graph: &Graph, step: usize) -> TokenStream {
    if graph.is_conditional() {
        let name = variant(&graph.steps[step].method);
        return quote!(__Position::#name as ::core::primitive::u16);
    }
    let position = u16::try_from(step).unwrap_or(u16::MAX);
    quote!(#position)
}

/// An error for each step that is there without one that it needs, and one if there is no step at all.
fn check_conditions(graph: &Graph) -> TokenStream {
    let mut checks = TokenStream::new();
    for step in &graph.steps {
        for ConditionalNeed { at, cfg } in &step.conditional_needs {
            let name = &step.method.name;
            let message = format!(
                "the step `{name}` needs `{at}`, which is configured out here: put the same `#[cfg]` on `{name}`"
            );
            let error = syn::Error::new_spanned(at, message).to_compile_error();
            let (own, needed) = (predicate(&step.cfg), predicate(cfg));
            checks.extend(quote!(#[cfg(all(#own, not(#needed)))] #error));
        }
    }
    if graph.steps.iter().all(|step| !step.cfg.is_always()) {
        let cfgs = graph.steps.iter().map(|step| predicate(&step.cfg));
        let message = "all steps of this workflow are configured out here: put the `#[cfg]` on the workflow";
        let error = syn::Error::new_spanned(&graph.item.self_ty, message).to_compile_error();
        checks.extend(quote!(#[cfg(not(any(#(#cfgs),*)))] #error));
    }
    checks
}

/// The `StepDef` of a step.
fn expand_entry(graph: &Graph, step: &Step) -> TokenStream {
    let cfg = attribute(&step.method.cfg);
    let needs = step.needs.iter().map(|&need| position(graph, need));
    let entry = step_def(graph, &step.method, &quote!(&[#(#needs),*]), step.keep_failures);
    quote!(#cfg #entry)
}

/// `const ON_FAILURE: .. = ..;`
fn expand_on_failure(graph: &Graph) -> TokenStream {
    let facade = &graph.facade;
    let head = quote!(const ON_FAILURE: ::core::option::Option<#facade::__private::StepDef>);
    let none = option(None);
    let Some(method) = &graph.on_failure else { return quote!(#head = #none;) };
    let some = option(Some(step_def(graph, method, &quote!(&[]), false)));
    if method.cfg.is_always() {
        return quote!(#head = #some;);
    }
    let condition = predicate(&method.cfg);
    quote! {
        #[cfg(#condition)]
        #head = #some;
        #[cfg(not(#condition))]
        #head = #none;
    }
}

fn step_def(graph: &Graph, method: &Method, needs: &TokenStream, keep_failures: bool) -> TokenStream {
    let facade = &graph.facade;
    let name = &method.id;
    let retries = method.retries;
    let backoff = option(method.backoff.map(|(first, longest)| {
        let (first, longest) = (duration(first), duration(longest));
        quote!((#first, #longest))
    }));
    let timeout = option(method.timeout.map(duration));
    quote! {
        #facade::__private::StepDef {
            name: #name,
            needs: #needs,
            retries: #retries,
            backoff: #backoff,
            timeout: #timeout,
            keep_failures: #keep_failures,
        }
    }
}

/// The arm of `execute` that runs a step: takes its arguments out of the call, calls the user's method, and encodes
/// what it returns. What is wrong with the future lands on the method's name, and with the return type on the type.
fn expand_arm(graph: &Graph, method: &Method) -> TokenStream {
    let cfg = attribute(&method.cfg);
    let here = Span::call_site().located_at(method.name.span());
    let facade = tokens::respan(&graph.facade, here);
    let pattern = expand_pattern(graph, method);
    let arguments = expand_arguments(graph, method);
    let call = expand_call(method);
    let returned = match method.is_async {
        true => quote_spanned!(here=> #facade::__private::require_send(#call).await),
        false => call,
    };
    let convert = output::project(&graph.facade, &method.returns, &quote!(into_step_result));
    let inside = expand_inside(graph);
    let converted = quote_spanned!(Ends::exact(&method.returns).last=> (#returned, #inside));
    let finish = quote_spanned!(here=> call.finish(#convert #converted));
    let body = match method.is_async {
        true => quote_spanned!(here=> #facade::__private::Box::pin(async move { #arguments #finish })),
        false => quote_spanned!(here=> #facade::__private::blocking(call, move |call| { #arguments #finish })),
    };
    quote!(#cfg #pattern => #body,)
}

/// What finds the error that the user's error type holds: only here is the type known, in a call that needs no bound on it.
fn expand_inside(graph: &Graph) -> TokenStream {
    let private = {
        let facade = &graph.facade;
        quote!(#facade::__private)
    };
    quote! {
        |error| {
            #[allow(unused_imports)]
            use #private::{LookAt as _, LookInside as _, LookNowhere as _};
            (&&&#private::Look(error)).look()
        }
    }
}

fn expand_pattern(graph: &Graph, method: &Method) -> TokenStream {
    let position = graph.steps.iter().position(|step| step.method.name == method.name).unwrap_or(graph.steps.len());
    if graph.is_conditional() {
        let name =
            graph.steps.get(position).map_or_else(|| quote!(OnFailure), |step| variant(&step.method).to_token_stream());
        return quote!(_ if step == __Position::#name as ::core::primitive::usize);
    }
    Literal::usize_unsuffixed(position).to_token_stream()
}

/// A tuple of what the method takes behind the context, each with the type that it is stored with.
fn expand_arguments(graph: &Graph, method: &Method) -> Option<TokenStream> {
    let facade = &graph.facade;
    let (types, values): (Vec<_>, Vec<_>) = method
        .arguments
        .iter()
        .map(|argument| match argument.source {
            Source::Input => (quote!(_), quote!(#facade::__private::input::<Self>(&call)?)),
            Source::Failure => (quote!(_), quote!(call.failure()?)),
            Source::Step(step) => {
                let (position, method) = (position(graph, step), &graph.steps[step].method);
                let name = &method.id;
                (output::of(graph, method), quote!(call.output(#position, #name)?))
            }
        })
        .unzip();
    (!types.is_empty()).then(|| quote!(let arguments: (#(#types,)*) = (#(#values,)*);))
}

/// `Self::method(&self, call.ctx(), arguments.0, &arguments.1)`, with each argument at the place of its parameter's
/// type, so that rustc's errors about it land there, and the rest at the method's name. Not `self.method(..)`, since
/// `self` is an `Arc` and has a `clone` of its own.
fn expand_call(method: &Method) -> TokenStream {
    let here = Span::call_site().located_at(method.name.span());
    let mut name = method.name.clone();
    name.set_span(here);
    let receiver = quote_spanned!(method.context.first=> call.);
    let context = quote_spanned!(method.context.last=> ctx());
    let arguments = method.arguments.iter().enumerate().map(|(at, argument)| expand_argument(at, argument));
    quote_spanned!(here=> Self::#name(&self, #receiver #context #(, #arguments)*))
}

fn expand_argument(at: usize, argument: &Argument) -> TokenStream {
    let (first, last) = (argument.ty.first, argument.ty.last);
    let reference = argument.by_reference.then(|| quote_spanned!(first=> &));
    let arguments = quote_spanned!(first=> arguments.);
    let mut index = Literal::usize_unsuffixed(at);
    index.set_span(last);
    quote!(#reference #arguments #index)
}
