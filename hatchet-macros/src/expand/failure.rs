//! What an error type says of itself, and its entry among all types that do.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::Path;

use super::{attribute, duration};
use crate::model::{After, Case, Failure};

pub(crate) fn expand(failure: &Failure) -> TokenStream {
    let Failure { name, facade, cases } = failure;
    let arms = cases.iter().map(|case| expand_case(facade, case));
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #facade::__private::Describe for #name {
            #[allow(unused_variables, unused_imports)]
            fn describe(&self, said: &mut #facade::__private::Said) {
                use #facade::__private::{LookAt as _, LookInside as _, LookNowhere as _};
                match self {
                    #(#arms)*
                    // Of an enum without variants.
                    #[allow(unreachable_patterns)]
                    _ => {}
                }
            }
        }

        #facade::__private::inventory::submit! {
            #facade::__private::Described::of::<#name>()
        }
    }
}

fn expand_case(facade: &Path, case: &Case) -> TokenStream {
    let cfg = attribute(&case.cfg);
    let pattern = match &case.variant {
        Some(variant) => quote!(Self::#variant),
        None => quote!(Self),
    };
    let bound = case.retry_after.iter().filter_map(|after| match after {
        After::Field(member, span) => {
            let wait = super::ident_at("wait", *span);
            Some(quote!(#member: #wait,))
        }
        After::Fixed(_) => None,
    });
    let hidden = case.hidden.iter().map(|member| quote!(#member: hidden,));
    let class = case.retryable.map(|retryable| match retryable {
        true => quote!(said.retryable();),
        false => quote!(said.fatal();),
    });
    let after = case.retry_after.as_ref().map(|after| match after {
        After::Fixed(wait) => {
            let wait = duration(*wait);
            quote!(said.retry_after(&#wait);)
        }
        After::Field(_, span) => {
            let here = Span::call_site().located_at(*span);
            let wait = super::ident_at("wait", *span);
            quote_spanned!(here=> said.retry_after(#wait);)
        }
    });
    let details = case.details.then(|| quote!(said.details(self);));
    let look = case.hidden.is_some().then(|| quote!(said.look_into((&&&#facade::__private::Look(hidden)).look());));
    quote! {
        #cfg
        #pattern { #(#bound)* #(#hidden)* .. } => { #class #after #details #look }
    }
}
