//! The output of a workflow: that of its last step, or a struct with a field for each of several.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Path, Type};

use super::{attribute, predicate};
use crate::{
    model::{Cfg, Graph, Method, Step},
    tokens::{self, Ends, unraw},
};

/// A step that may be one of the last, and the condition under which it is: that it is there, and none that needs it.
struct Last<'a> {
    step: &'a Step,
    cfg: Cfg,
}

fn last_steps(graph: &Graph) -> Vec<Last<'_>> {
    let with_condition = |step| Last { step, cfg: condition(graph, step) };
    graph.last_steps().map(with_condition).collect()
}

fn condition(graph: &Graph, step: &Step) -> Cfg {
    let mut cfg = step.method.cfg.clone();
    let successors = step.successors.iter().map(|&after| predicate(&graph.steps[after].method.cfg));
    cfg.0.extend(successors.map(|successor| quote!(not(#successor))));
    cfg
}

/// `type Output = ..;`, once for each condition under which it differs.
pub(super) fn expand_type(graph: &Graph) -> TokenStream {
    let last = last_steps(graph);
    let name = struct_name(graph);
    match &last[..] {
        [one] if one.cfg.is_always() => type_item("Output", of(graph, &one.step.method)),
        several if always_several(several) => quote!(type Output = #name;),
        several => {
            let single = several.iter().enumerate().map(|(at, one)| {
                let (only, item) = (only_last(several, at), type_item("Output", of(graph, &one.step.method)));
                quote!(#[cfg(#only)] #item)
            });
            let not_single = not_single(several);
            quote!(#(#single)* #[cfg(#not_single)] type Output = #name;)
        }
    }
}

/// The struct, if there may be several last steps.
pub(super) fn expand_struct(graph: &Graph) -> Option<TokenStream> {
    let last = last_steps(graph);
    if last.len() < 2 {
        return None;
    }
    let cfg = &graph.cfg;
    let cfg = match always_several(&last) {
        true => attribute(cfg),
        false => {
            let mut cfg = cfg.clone();
            cfg.0.push(not_single(&last));
            attribute(&cfg)
        }
    };
    let (facade, workflow, name) = (&graph.facade, &graph.name, struct_name(graph));
    let serde = quote!(#facade::__private::serde);
    let serde_path = tokens::text(&serde);
    let doc = format!("The output of [`{}`]: that of each step which no other needs.", unraw(workflow));
    let fields = last.iter().map(|one| {
        let (cfg, field) = (attribute(&one.cfg), &one.step.method.name);
        let ty = tokens::replace(of(graph, &one.step.method), "Self", &graph.item.self_ty);
        let doc = format!("The output of the step `{}`.", unraw(field));
        let id = &one.step.method.id;
        let rename = (*id != unraw(field)).then(|| quote!(#[serde(rename = #id)]));
        quote!(#cfg #[doc = #doc] #rename pub #field: #ty)
    });
    let traits = last.iter().all(|one| one.cfg.is_always()).then(|| expand_traits(graph, &name, &last));
    Some(quote! {
        #cfg
        #[doc = #doc]
        #[allow(private_interfaces, unreachable_pub, missing_debug_implementations)]
        #[derive(#serde::Serialize, #serde::Deserialize)]
        #[serde(crate = #serde_path)]
        pub struct #name { #(#fields,)* }
        #traits
    })
}

/// `Debug` and `Clone` if all fields are: the bounds stand under a `for<'a>` because rustc rejects ones without
/// parameters that do not hold.
fn expand_traits(graph: &Graph, name: &Ident, last: &[Last<'_>]) -> TokenStream {
    let cfg = attribute(&graph.cfg);
    let fields: Vec<&Ident> = last.iter().map(|one| &one.step.method.name).collect();
    let types: Vec<TokenStream> =
        last.iter().map(|one| tokens::replace(of(graph, &one.step.method), "Self", &graph.item.self_ty)).collect();
    let (text, labels) = (name.to_string(), fields.iter().map(|field| unraw(field)));
    quote! {
        #cfg
        #[automatically_derived]
        impl ::core::fmt::Debug for #name where #(for<'a> #types: ::core::fmt::Debug,)* {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#text)#(.field(#labels, &self.#fields))*.finish()
            }
        }

        #cfg
        #[automatically_derived]
        impl ::core::clone::Clone for #name where #(for<'a> #types: ::core::clone::Clone,)* {
            fn clone(&self) -> Self {
                Self { #(#fields: ::core::clone::Clone::clone(&self.#fields),)* }
            }
        }
    }
}

fn struct_name(graph: &Graph) -> Ident {
    format_ident!("{}Output", graph.name)
}

/// The type of what a method gives if all is well.
pub(super) fn of(graph: &Graph, method: &Method) -> TokenStream {
    project(&graph.facade, &method.returns, &quote!(Ok))
}

/// `<Returns as StepReturn>::item`, all of it at the place of the type, so that rustc's errors about the type land
/// there.
pub(super) fn project(facade: &Path, returns: &Type, item: &TokenStream) -> TokenStream {
    let Ends { first, last } = Ends::exact(returns);
    let open = quote_spanned!(first=> <);
    let rest = tokens::respan(quote!(as #facade::StepReturn>::#item), last);
    quote!(#open #returns #rest)
}

/// `type name = ty;`, at the place of the type.
pub(super) fn type_item(name: &str, ty: impl ToTokens) -> TokenStream {
    let Ends { first, last } = Ends::exact(&ty);
    let name = Ident::new(name, last);
    let keyword = quote_spanned!(first=> type);
    let end = quote_spanned!(last=> ;);
    quote!(#keyword #name = #ty #end)
}

fn always_several(last: &[Last<'_>]) -> bool {
    last.iter().filter(|one| one.cfg.is_always()).count() > 1
}

/// The condition under which the step at `at` is the only last one.
fn only_last(last: &[Last<'_>], at: usize) -> TokenStream {
    let own = as_predicate(&last[at].cfg);
    let others = last.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, one)| as_predicate(&one.cfg));
    quote!(all(#own, not(any(#(#others),*))))
}

fn not_single(last: &[Last<'_>]) -> TokenStream {
    let single = (0..last.len()).map(|at| only_last(last, at));
    quote!(not(any(#(#single),*)))
}

fn as_predicate(cfg: &Cfg) -> TokenStream {
    let predicates = &cfg.0;
    quote!(all(#(#predicates),*))
}
