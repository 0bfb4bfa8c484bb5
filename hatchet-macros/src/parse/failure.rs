//! `#[derive(Failure)]` on an error type.

use std::fmt::Display;

use proc_macro2::TokenStream;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, Field, Fields, Index, Lit, Member, Meta, Path, spanned::Spanned,
};

use super::options;
use crate::{
    duration,
    errors::Errors,
    model::{After, Case, Failure},
};

pub(crate) fn parse(item: TokenStream) -> syn::Result<Failure> {
    let item: DeriveInput = syn::parse2(item)?;
    let mut errors = Errors::default();
    if !item.generics.params.is_empty() {
        errors.at(
            &item.generics,
            "an error type with `#[derive(Failure)]` is looked up by its type, so it cannot have parameters: put the part that \
             differs into a field of one type, such as a `String`",
        );
    }
    let facade = read_facade(&item.attrs, &mut errors);
    let whole = Said::read(&item.attrs, &mut errors);
    let cases = match &item.data {
        Data::Struct(data) => vec![case(None, &item.attrs, &data.fields, Said::default(), &whole, &mut errors)],
        Data::Enum(data) => {
            let cases = data.variants.iter().map(|variant| {
                let own = Said::read(&variant.attrs, &mut errors);
                let mut case =
                    case(Some(variant.ident.clone()), &variant.attrs, &variant.fields, own, &whole, &mut errors);
                case.cfg = super::cfg(&variant.attrs);
                case
            });
            cases.collect()
        }
        Data::Union(data) => {
            errors.at(data.union_token, "`#[derive(Failure)]` goes on a struct or an enum that is an error");
            Vec::new()
        }
    };
    match errors.into_error() {
        None => Ok(Failure { name: item.ident, facade, cases }),
        Some(error) => Err(error),
    }
}

/// What attributes say of a type or a variant.
#[derive(Clone, Default)]
struct Said {
    retryable: Option<bool>,
    retry_after: Option<After>,
    details: bool,
}

impl Said {
    fn read(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut said = Self::default();
        for attribute in attributes {
            match name(attribute).as_deref() {
                Some(class @ ("fatal" | "retryable")) => {
                    require_bare(attribute, class, errors);
                    let retryable = class == "retryable";
                    if said.retryable.replace(retryable).is_some() {
                        errors.at(attribute, "an error is `#[fatal]` or `#[retryable]`, and says so once");
                    }
                }
                Some("retry_after") => {
                    let wait = read_wait(attribute, errors);
                    if let Some(wait) = wait
                        && said.retry_after.replace(After::Fixed(wait)).is_some()
                    {
                        errors.at(attribute, "`#[retry_after]` is there already");
                    }
                }
                Some("details") => {
                    require_bare(attribute, "details", errors);
                    said.details = true;
                }
                _ => {}
            }
        }
        if said.retryable == Some(false) && said.retry_after.is_some() {
            let after = attributes.iter().find(|attribute| name(attribute).as_deref() == Some("retry_after"));
            errors.at(after, "a `#[fatal]` error is not retried, so there is nothing to wait for");
        }
        said
    }
}

fn case(
    variant: Option<syn::Ident>,
    attributes: &[Attribute],
    fields: &Fields,
    own: Said,
    whole: &Said,
    errors: &mut Errors,
) -> Case {
    let retryable = own.retryable.or(whole.retryable);
    let mut retry_after = own.retry_after;
    for (member, field) in members(fields) {
        for attribute in &field.attrs {
            match name(attribute).as_deref() {
                Some("retry_after") => {
                    require_bare_on_field(attribute, errors);
                    if retry_after.replace(After::Field(member.clone(), field.ty.span())).is_some() {
                        errors.at(attribute, "`#[retry_after]` is there already");
                    } else if retryable == Some(false) {
                        errors.at(attribute, "a `#[fatal]` error is not retried, so there is nothing to wait for");
                    }
                }
                Some(other @ ("fatal" | "retryable" | "details")) => {
                    errors.at(attribute, format!("`#[{other}]` goes on the type or on a variant, not on a field"));
                }
                _ => {}
            }
        }
    }
    // What a type says of all its variants does not count for one that is not retried.
    let inherited = whole.retry_after.clone().filter(|_| retryable != Some(false));
    Case {
        variant,
        cfg: Default::default(),
        retryable,
        retry_after: retry_after.or(inherited),
        details: own.details || whole.details,
        hidden: hidden(attributes, fields),
    }
}

/// The only field of what thiserror makes transparent, or the one that it calls the source.
fn hidden(attributes: &[Attribute], fields: &Fields) -> Option<Member> {
    let is_transparent = attributes.iter().any(|attribute| {
        matches!(&attribute.meta, Meta::List(list) if list.path.is_ident("error") && list.tokens.to_string() == "transparent")
    });
    if !is_transparent {
        return None;
    }
    let all: Vec<_> = members(fields).collect();
    let marked = all.iter().find(|(_, field)| {
        field.attrs.iter().any(|attribute| attribute.path().is_ident("from") || attribute.path().is_ident("source"))
    });
    marked.or(all.first()).map(|(member, _)| member.clone())
}

fn members(fields: &Fields) -> impl Iterator<Item = (Member, &Field)> {
    fields.iter().enumerate().map(|(at, field)| {
        let member = match &field.ident {
            Some(name) => Member::Named(name.clone()),
            None => Member::Unnamed(Index::from(at)),
        };
        (member, field)
    })
}

fn name(attribute: &Attribute) -> Option<String> {
    attribute.path().get_ident().map(ToString::to_string)
}

fn require_bare(attribute: &Attribute, name: impl Display, errors: &mut Errors) {
    if !matches!(attribute.meta, Meta::Path(_)) {
        errors.at(&attribute.meta, format!("write `#[{name}]` without a value"));
    }
}

fn require_bare_on_field(attribute: &Attribute, errors: &mut Errors) {
    if !matches!(attribute.meta, Meta::Path(_)) {
        errors.at(&attribute.meta, "write `#[retry_after]` without a value: the field is the wait");
    }
}

fn read_wait(attribute: &Attribute, errors: &mut Errors) -> Option<std::time::Duration> {
    let value = match &attribute.meta {
        Meta::NameValue(pair) => &pair.value,
        meta => {
            errors.at(meta, "write `#[retry_after = \"5s\"]`, or put `#[retry_after]` on a field that is a `Duration`");
            return None;
        }
    };
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = value else {
        errors.at(value, "write a duration as a string, such as \"500ms\", \"90s\" or \"1h30m\"");
        return None;
    };
    duration::parse(&text.value()).map_err(|message| errors.at(text, message)).ok()
}

/// `#[failure(crate = path)]`
fn read_facade(attributes: &[Attribute], errors: &mut Errors) -> Path {
    let mut facade = options::default_facade();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("failure")) {
        let read = attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("the only option is `crate = path`"));
            }
            facade = meta.value()?.parse()?;
            Ok(())
        });
        if let Err(error) = read {
            errors.push(error);
        }
    }
    facade
}
