//! From the model to code: one small impl that calls the library. Cannot fail.
//!
//! Expansions use absolute paths and nothing of the prelude, so that no name of the user's is in their way.

mod definition;
mod failure;
mod graph;
mod output;

use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote};

pub(crate) use self::failure::expand as failure;
use crate::model::{Cfg, Implements, Rejected, Stub, Workflow};

pub(crate) fn workflow(workflow: &Workflow) -> TokenStream {
    match workflow {
        Workflow::Definition(definition) => definition::expand(definition),
        Workflow::Graph(graph) => graph::expand(graph),
    }
}

/// The user's item, the errors, and an impl in which rustc finds nothing to complain about.
pub(crate) fn rejected(rejected: &Rejected) -> TokenStream {
    let Rejected { item, error, stub } = rejected;
    let errors = error.as_ref().map(syn::Error::to_compile_error);
    let stub = stub.as_deref().map(expand_stub);
    quote!(#item #errors #stub)
}

/// An attribute that only `#[workflow]` on an `impl` block can read.
pub(crate) fn misplaced(attribute: &str, item: TokenStream) -> TokenStream {
    let name = format_ident!("{attribute}");
    let message = format!("`#[{name}]` goes on a method of an `impl` block that is annotated with `#[workflow]`");
    let error = syn::Error::new(Span::call_site(), message).to_compile_error();
    // Within an `impl` block, where a macro cannot stand beside the item, it stands in the item's place in all but its
    // name.
    match syn::parse2::<syn::ImplItemFn>(item.clone()) {
        Ok(mut method) => {
            let statements = &method.block.stmts;
            let inner = &method
                .attrs
                .extract_if(.., |attribute| matches!(attribute.style, syn::AttrStyle::Inner(_)))
                .collect::<Vec<_>>();
            method.block = syn::parse_quote!({ #(#inner)* #error; #(#statements)* });
            method.into_token_stream()
        }
        Err(_) => quote!(#error #item),
    }
}

fn expand_stub(stub: &Stub) -> TokenStream {
    let Stub { facade, generics, cfg, implements } = stub;
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let cfg = attribute(cfg);
    match implements {
        Implements::Options(name) => {
            let options =
                definition::options(facade, &name.to_string(), "default", &quote!(Normal), (None, None), false);
            quote! {
                #cfg
                impl #impl_generics #facade::WorkflowOptions for #name #type_generics #where_clause {
                    const OPTIONS: #facade::__private::Options = #options;
                }
            }
        }
        Implements::Steps(interface) => {
            let ty = &interface.ty;
            let input = interface.input.as_ref().map_or_else(|| quote!(()), ToTokens::to_token_stream);
            let returns = interface.returns.as_ref();
            let none = option(None);
            let output = returns.map_or_else(|| quote!(()), |ty| output::project(facade, ty, &quote!(Ok)));
            quote! {
                #cfg
                impl #impl_generics #facade::Workflow for #ty #where_clause {
                    type Input = #input;
                    type Output = #output;
                    const STEPS: &'static [#facade::__private::StepDef] = &[];
                    const ON_FAILURE: ::core::option::Option<#facade::__private::StepDef> = #none;
                    fn execute(
                        self: ::std::sync::Arc<Self>,
                        _: ::core::primitive::usize,
                        _: #facade::__private::StepCall,
                    ) -> #facade::__private::BoxFuture<'static, #facade::__private::StepOutcome> {
                        ::core::unreachable!()
                    }
                }
            }
        }
    }
}

/// `#[cfg(all(..))]`, or nothing.
fn attribute(cfg: &Cfg) -> Option<TokenStream> {
    (!cfg.is_always()).then(|| predicate(cfg)).map(|predicate| quote!(#[cfg(#predicate)]))
}

fn predicate(cfg: &Cfg) -> TokenStream {
    let predicates = &cfg.0;
    match &predicates[..] {
        [one] => one.clone(),
        _ => quote!(all(#(#predicates),*)),
    }
}

fn option(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn duration(duration: Duration) -> TokenStream {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    quote!(::core::time::Duration::new(#seconds, #nanoseconds))
}

/// A name of the expansion at the place of a user's token.
fn ident_at(name: &str, span: Span) -> Ident {
    Ident::new(name, Span::call_site().located_at(span))
}
