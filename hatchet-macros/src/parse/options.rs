//! The options of the attributes: `key = value`, separated by commas.

use std::time::Duration;

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, LitInt, LitStr, Meta, Path, Token, punctuated::Punctuated};

use crate::{errors::Errors, suggest, tokens::unraw};

/// Where options stand, which says which ones there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Struct,
    Impl,
    Step,
    OnFailure,
}

impl Place {
    const ALL: [Self; 4] = [Self::Struct, Self::Impl, Self::Step, Self::OnFailure];

    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Struct => {
                &["name", "queue", "priority", "timeout", "queue_timeout", "version", "on_mismatch", "crate"]
            }
            Self::Impl => &["crate"],
            Self::Step => &["retries", "backoff", "timeout", "after", "on_retry", "name"],
            Self::OnFailure => &["retries", "backoff", "timeout"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Struct => "`#[workflow]` on a struct",
            Self::Impl => "`#[workflow]` on an `impl` block",
            Self::Step => "`#[step]`",
            Self::OnFailure => "`#[on_failure]`",
        }
    }
}

/// How an option is written.
fn example(key: &str) -> &'static str {
    match key {
        "name" => "name = \"report\"",
        "queue" => "queue = \"slow\"",
        "priority" => "priority = \"high\"",
        "timeout" => "timeout = \"60s\"",
        "queue_timeout" => "queue_timeout = \"1h\"",
        "crate" => "crate = ::hatchet",
        "retries" => "retries = 3",
        "backoff" => "backoff = \"1s..30s\"",
        "after" => "after = [fetch]",
        "on_retry" => "on_retry = \"keep\"",
        "version" => "version = 2",
        "on_mismatch" => "on_mismatch = \"fail\"",
        _ => "key = value",
    }
}

/// One option, known and given once. Its value is still to be read.
#[derive(Debug)]
pub(super) struct Entry {
    key: Ident,
    name: String,
    value: TokenStream,
}

/// The options of an attribute on an item within an `impl` block.
pub(super) fn of_attribute(attribute: &Attribute, place: Place, errors: &mut Errors) -> Vec<Entry> {
    match &attribute.meta {
        Meta::Path(_) => Vec::new(),
        Meta::List(list) => read(list.tokens.clone(), place, errors),
        Meta::NameValue(meta) => {
            let (name, key) = (place.name(), place.keys()[0]);
            errors.at(meta, format!("the options of {name} stand in parentheses, such as `({})`", example(key)));
            Vec::new()
        }
    }
}

/// The options that are valid at `place`.
pub(super) fn read(options: TokenStream, place: Place, errors: &mut Errors) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for tokens in split_at_commas(options) {
        let Some(entry) = read_entry(tokens, place, errors) else { continue };
        if !place.keys().contains(&entry.name.as_str()) {
            errors.at(&entry.key, unknown(&entry.name, place));
        } else if entries.iter().any(|other| other.name == entry.name) {
            errors.at(&entry.key, format!("the option `{}` is given twice", entry.name));
        } else {
            entries.push(entry);
        }
    }
    entries
}

fn split_at_commas(tokens: TokenStream) -> Vec<Vec<TokenTree>> {
    let mut parts = vec![Vec::new()];
    for tree in tokens {
        match tree {
            TokenTree::Punct(comma) if comma.as_char() == ',' => parts.push(Vec::new()),
            tree => parts.last_mut().expect("there is a part from the start").push(tree),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn read_entry(tokens: Vec<TokenTree>, place: Place, errors: &mut Errors) -> Option<Entry> {
    let whole: TokenStream = tokens.iter().cloned().collect();
    let mut tokens = tokens.into_iter();
    let Some(TokenTree::Ident(key)) = tokens.next() else {
        let keys = suggest::list(place.keys().iter().copied());
        let example = example(place.keys()[0]);
        errors
            .at(whole, format!("expected an option of {}, such as `{example}`; the options are {keys}", place.name()));
        return None;
    };
    let name = unraw(&key);
    let is_known = place.keys().contains(&name.as_str());
    let has_value = matches!(tokens.next(), Some(TokenTree::Punct(equals)) if equals.as_char() == '=');
    let value: TokenStream = tokens.collect();
    if is_known && (!has_value || value.is_empty()) {
        errors.at(whole, format!("the option `{name}` has a value: `{}`", example(&name)));
        return None;
    }
    Some(Entry { key, name, value })
}

fn unknown(name: &str, place: Place) -> String {
    let what = format!("`{name}` is not an option of {}", place.name());
    let elsewhere: Vec<&str> =
        Place::ALL.into_iter().filter(|other| other.keys().contains(&name)).map(Place::name).collect();
    let keys = suggest::list(place.keys().iter().copied());
    let are = if place.keys().len() == 1 { "the only option is" } else { "the options are" };
    if !elsewhere.is_empty() {
        return format!("{what}, but of {}; here {are} {keys}", elsewhere.join(" and "));
    }
    match suggest::nearest(name, place.keys().iter().copied()) {
        Some(nearest) => format!("{what}: did you mean `{nearest}`?"),
        None => format!("{what}; {are} {keys}"),
    }
}

impl Entry {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Underlines the key.
    pub(super) fn key(&self) -> &Ident {
        &self.key
    }

    /// A string in quotes.
    pub(super) fn string(&self, errors: &mut Errors) -> Option<LitStr> {
        let literal = syn::parse2::<LitStr>(self.value.clone()).ok();
        if literal.is_none() {
            errors.at(&self.value, format!("expected text in quotes: `{}`", example(&self.name)));
        }
        literal
    }

    /// A duration that is not zero.
    pub(super) fn timeout(&self, errors: &mut Errors) -> Option<Duration> {
        self.read_string(crate::duration::parse_timeout, errors)
    }

    /// The first and the longest wait.
    pub(super) fn backoff(&self, errors: &mut Errors) -> Option<(Duration, Duration)> {
        self.read_string(crate::duration::parse_backoff, errors)
    }

    fn read_string<T>(&self, read: fn(&str) -> Result<T, String>, errors: &mut Errors) -> Option<T> {
        let Ok(literal) = syn::parse2::<LitStr>(self.value.clone()) else {
            let example = example(&self.name);
            errors.at(&self.value, format!("a duration is written in quotes and with its unit: `{example}`"));
            return None;
        };
        read(&literal.value()).map_err(|message| errors.at(&literal, message)).ok()
    }

    /// A whole number.
    pub(super) fn number(&self, errors: &mut Errors) -> Option<u32> {
        let is_number = |literal: &LitInt| literal.suffix().is_empty() && !literal.base10_digits().starts_with('-');
        let literal = syn::parse2::<LitInt>(self.value.clone()).ok().filter(is_number);
        let number = literal.map(|literal| literal.base10_parse::<u32>());
        match number {
            Some(Ok(number)) => Some(number),
            Some(Err(_)) => {
                errors.at(&self.value, format!("`{}` is at most {}", self.name, u32::MAX));
                None
            }
            None => {
                errors.at(&self.value, format!("expected a whole number, not in quotes: `{}`", example(&self.name)));
                None
            }
        }
    }

    /// A list of names in brackets.
    pub(super) fn names(&self, errors: &mut Errors) -> Vec<Ident> {
        let expected = || format!("expected a list of steps in brackets, not in quotes: `{}`", example(&self.name));
        let mut trees = self.value.clone().into_iter();
        let (Some(TokenTree::Group(list)), None) = (trees.next(), trees.next()) else {
            errors.at(&self.value, expected());
            return Vec::new();
        };
        let parser = Punctuated::<Ident, Token![,]>::parse_terminated;
        match syn::parse::Parser::parse2(parser, list.stream()) {
            Ok(names) if list.delimiter() == proc_macro2::Delimiter::Bracket => names.into_iter().collect(),
            _ => {
                errors.at(&self.value, expected());
                Vec::new()
            }
        }
    }

    /// One of two or three words, given with what each stands for.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)], errors: &mut Errors) -> Option<T> {
        let literal = self.string(errors)?;
        let choice = choices.iter().find(|(word, _)| *word == literal.value());
        if choice.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            errors.at(&literal, format!("`{}` is {}", self.name, words.join(" or ")));
        }
        choice.map(|(_, value)| *value)
    }

    /// The path of a module.
    pub(super) fn path(&self, errors: &mut Errors) -> Option<Path> {
        let path = syn::parse::Parser::parse2(Path::parse_mod_style, self.value.clone()).ok();
        if path.is_none() {
            errors.at(self.value.to_token_stream(), format!("expected a path, not in quotes: `{}`", example("crate")));
        }
        path
    }
}

/// Where the facade is unless `crate = path` says otherwise.
pub(super) fn default_facade() -> Path {
    syn::parse_quote!(::hatchet)
}
