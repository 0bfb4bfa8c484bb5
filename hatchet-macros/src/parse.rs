//! From tokens to the model. Every error is raised here, and all errors of an attribute together.

mod definition;
mod failure;
mod graph;
mod method;
mod options;

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{Attribute, Item, Meta, spanned::Spanned};

pub(crate) use self::failure::parse as failure;
use crate::{
    errors::Errors,
    model::{Cfg, Rejected, Workflow},
    tokens,
};

/// What `#[workflow]` with these options stands on.
pub(crate) fn workflow(options: TokenStream, item: TokenStream) -> Result<Workflow, Rejected> {
    match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Struct(item)) => definition::parse(options, item).map(|it| Workflow::Definition(Box::new(it))),
        Ok(Item::Impl(item)) if item.trait_.is_none() => {
            graph::parse(options, item).map(|it| Workflow::Graph(Box::new(it)))
        }
        Ok(other) => Err(rejected(item, wrong_item(&other))),
        Err(error) => Err(rejected(item, error)),
    }
}

fn rejected(item: TokenStream, error: syn::Error) -> Rejected {
    Rejected { item, error: Some(error), stub: None }
}

fn wrong_item(item: &Item) -> syn::Error {
    const PLACES: &str = "`#[workflow]` goes on a struct and on its `impl` block";
    match item {
        Item::Impl(item) => {
            let (path, for_token) = item.trait_.as_ref().map(|(path, token)| (path, token)).unzip();
            syn::Error::new_spanned(
                quote::quote!(#path #for_token),
                format!(
                    "{PLACES}, not on the implementation of a trait: move the steps to an `impl {} {{ .. }}`",
                    tokens::text(&item.self_ty)
                ),
            )
        }
        Item::Enum(item) => syn::Error::new_spanned(
            item.enum_token,
            format!("{PLACES}, not on an enum: keep the enum in a field of a struct"),
        ),
        Item::Fn(item) => syn::Error::new_spanned(
            &item.sig.ident,
            format!("{PLACES}, not on a function: a workflow's functions are the `#[step]` methods of that block"),
        ),
        Item::Mod(item) => syn::Error::new_spanned(&item.ident, format!("{PLACES}, not on a module")),
        Item::Trait(item) => syn::Error::new_spanned(&item.ident, format!("{PLACES}, not on a trait")),
        other => syn::Error::new(first_token(other), PLACES),
    }
}

fn first_token(item: &Item) -> proc_macro2::Span {
    item.to_token_stream().into_iter().next().map_or_else(|| item.span(), |tree| tree.span())
}

/// The `#[cfg(..)]` among `attributes`.
fn cfg(attributes: &[Attribute]) -> Cfg {
    let predicates = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => Some(list.tokens.clone()),
        _ => None,
    });
    Cfg(predicates.collect())
}

/// A name of a workflow or a queue, as the library accepts it.
fn check_name(what: &str, name: &str, at: impl ToTokens, errors: &mut Errors) {
    const MAX_BYTES: usize = 128;
    if name.is_empty() {
        errors.at(at, format!("the name of a {what} cannot be empty"));
    } else if name.len() > MAX_BYTES {
        errors.at(at, format!("the name of a {what} has at most {MAX_BYTES} bytes, and this one has {}", name.len()));
    } else if name.contains(char::is_control) {
        errors.at(at, format!("the name of a {what} cannot contain control characters such as line breaks"));
    }
}
