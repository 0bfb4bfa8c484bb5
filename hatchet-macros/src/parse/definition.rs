//! `#[workflow]` on a struct.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::ItemStruct;

use super::{
    check_name,
    options::{self, Place},
};
use crate::{
    errors::Errors,
    model::{Definition, Implements, Priority, Rejected, Stub},
    tokens::unraw,
};

pub(super) fn parse(options: TokenStream, item: ItemStruct) -> Result<Definition, Rejected> {
    let mut errors = Errors::default();
    let mut definition = Definition {
        facade: options::default_facade(),
        cfg: super::cfg(&item.attrs),
        name: unraw(&item.ident),
        queue: "default".to_owned(),
        priority: Priority::Normal,
        timeout: None,
        queue_timeout: None,
        fails_on_mismatch: false,
        item,
    };
    read_options(options, &mut definition, &mut errors);
    match errors.into_error() {
        None => Ok(definition),
        Some(error) => Err(Rejected {
            item: definition.item.to_token_stream(),
            error: Some(error),
            stub: Some(Box::new(Stub {
                facade: definition.facade,
                generics: definition.item.generics,
                cfg: definition.cfg,
                implements: Implements::Options(definition.item.ident),
            })),
        }),
    }
}

fn read_options(options: TokenStream, definition: &mut Definition, errors: &mut Errors) {
    let entries = options::read(options, Place::Struct, errors);
    if !entries.iter().any(|entry| entry.name() == "name") {
        check_name("workflow", &definition.name, &definition.item.ident, errors);
    }
    let mut version = None;
    for entry in entries {
        match entry.name() {
            "name" | "queue" => {
                let Some(literal) = entry.string(errors) else { continue };
                let (what, target) = match entry.name() {
                    "name" => ("workflow", &mut definition.name),
                    _ => ("queue", &mut definition.queue),
                };
                *target = literal.value();
                check_name(what, target, &literal, errors);
            }
            "priority" => {
                let choices = [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)];
                definition.priority = entry.choice(&choices, errors).unwrap_or(Priority::Normal);
            }
            "timeout" => definition.timeout = entry.timeout(errors),
            "queue_timeout" => definition.queue_timeout = entry.timeout(errors),
            "version" => version = entry.number(errors).map(|number| (number, entry.key().clone())),
            "on_mismatch" => {
                let choices = [("stall", false), ("fail", true)];
                definition.fails_on_mismatch = entry.choice(&choices, errors).unwrap_or(false);
            }
            "crate" => definition.facade = entry.path(errors).unwrap_or(definition.facade.clone()),
            _ => unreachable!("only known options are read"),
        }
    }
    match version {
        Some((0, key)) => errors.at(&key, "versions count from 1: without one a workflow has none"),
        Some((version, _)) => definition.name = format!("{}@{version}", definition.name),
        None => {}
    }
}
