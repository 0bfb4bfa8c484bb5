//! The options of a workflow, and its registration.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Fields, Path};

use super::{attribute, duration, option};
use crate::{
    model::{Definition, Priority},
    tokens,
};

pub(super) fn expand(definition: &Definition) -> TokenStream {
    let Definition { item, facade, .. } = definition;
    let cfg = attribute(&definition.cfg);
    let name = &item.ident;
    let (impl_generics, type_generics, where_clause) = item.generics.split_for_impl();
    let priority = match definition.priority {
        Priority::Low => quote!(Low),
        Priority::Normal => quote!(Normal),
        Priority::High => quote!(High),
    };
    let Definition { timeout, queue_timeout, fails_on_mismatch, .. } = *definition;
    let limits = (timeout, queue_timeout);
    let options = options(facade, &definition.name, &definition.queue, &priority, limits, fails_on_mismatch);
    let registration = item.generics.params.is_empty().then(|| register(definition));
    quote! {
        #item

        #cfg
        #[automatically_derived]
        #[allow(deprecated)]
        impl #impl_generics #facade::WorkflowOptions for #name #type_generics #where_clause {
            const OPTIONS: #facade::__private::Options = #options;
        }

        #registration
    }
}

pub(super) fn options(
    facade: &Path,
    name: &str,
    queue: &str,
    priority: &TokenStream,
    (timeout, queue_timeout): (Option<Duration>, Option<Duration>),
    fails_on_mismatch: bool,
) -> TokenStream {
    let timeout = option(timeout.map(duration));
    let queue_timeout = option(queue_timeout.map(duration));
    quote! {
        #facade::__private::Options {
            name: #name,
            queue: #queue,
            priority: #facade::__private::Priority::#priority,
            timeout: #timeout,
            queue_timeout: #queue_timeout,
            fails_on_mismatch: #fails_on_mismatch,
            location: (::core::file!(), ::core::line!()),
        }
    }
}

/// The entry in the registry, and the check that there are steps, whose error lands on the name of the struct.
fn register(definition: &Definition) -> TokenStream {
    let Definition { item, facade, .. } = definition;
    let cfg = attribute(&definition.cfg);
    let name = &item.ident;
    let here = Span::call_site().located_at(name.span());
    let there = tokens::respan(facade, here);
    // Both ask rustc whether there are steps, with the error on the struct's name.
    let (check, make) = match item.fields {
        Fields::Unit => {
            let new = quote_spanned!(here=> #there::__private::AnyWorkflow::new(#name));
            (None, quote!(::core::option::Option::Some(#new)))
        }
        _ => {
            let require = quote_spanned!(here=> #there::__private::require_workflow::<#name>());
            let make = quote! {{
                #[allow(unused_imports)]
                use #facade::__private::{MakeDefault as _, MakeNothing as _};
                (&#facade::__private::Make::<#name>::NEW).make()
            }};
            (Some(quote!(#require;)), make)
        }
    };
    quote! {
        #cfg
        #[allow(deprecated)]
        const _: () = {
            #check
            #facade::__private::inventory::submit! {
                #facade::__private::Registration {
                    options: <#name as #facade::WorkflowOptions>::OPTIONS,
                    make: || #make,
                }
            }
        };
    }
}
