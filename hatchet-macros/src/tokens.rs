//! Small questions about tokens and types that syn does not answer.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::Type;

/// Where tokens begin and end. On stable Rust a span that covers several tokens can only be made by giving the first
/// and the last token of an expression these two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) first: Span,
    pub(crate) last: Span,
}

impl Ends {
    /// The ends of `tokens`, with the hygiene of the attribute: so that names in an expansion find each other even if a
    /// `macro_rules!` wrote some of the user's tokens, and rustc proposes no edits as if the user had written the
    /// expansion.
    pub(crate) fn of(tokens: impl ToTokens) -> Self {
        let Self { first, last } = Self::exact(tokens);
        Self { first: Span::call_site().located_at(first), last: Span::call_site().located_at(last) }
    }

    /// The ends of `tokens` as if the user had written what is put there. rustc shows errors of several expansions at
    /// one such place once, if they are the same.
    pub(crate) fn exact(tokens: impl ToTokens) -> Self {
        let trees: Vec<TokenTree> = flatten(tokens.to_token_stream()).into_iter().collect();
        let first = trees.first().map_or_else(Span::call_site, |tree| match tree {
            TokenTree::Group(group) => group.span_open(),
            tree => tree.span(),
        });
        let last = trees.last().map_or(first, |tree| match tree {
            TokenTree::Group(group) => group.span_close(),
            tree => tree.span(),
        });
        Self { first, last }
    }
}

/// `tokens` at another place.
pub(crate) fn respan(tokens: impl ToTokens, span: Span) -> TokenStream {
    let respanned = |mut tree: TokenTree| {
        if let TokenTree::Group(group) = &tree {
            tree = TokenTree::Group(Group::new(group.delimiter(), respan(group.stream(), span)));
        }
        tree.set_span(span);
        tree
    };
    tokens.to_token_stream().into_iter().map(respanned).collect()
}

/// The type within the invisible groups that `macro_rules!` puts around its fragments, and within parentheses.
pub(crate) fn ungroup(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungroup(&group.elem),
        Type::Paren(paren) => ungroup(&paren.elem),
        ty => ty,
    }
}

/// Whether two types are written with the same tokens.
pub(crate) fn same(a: &Type, b: &Type) -> bool {
    let tight = |ty: &Type| flatten(ty.to_token_stream()).to_string().replace(char::is_whitespace, "");
    tight(a) == tight(b)
}

/// The tokens as text, in the spacing of rustfmt where that is simple.
pub(crate) fn text(tokens: impl ToTokens) -> String {
    let mut text = flatten(tokens.to_token_stream()).to_string();
    for (spaced, tight) in
        [(" :: ", "::"), (":: ", "::"), (" < ", "<"), ("< ", "<"), (" >", ">"), (" ,", ","), (" ;", ";"), ("& ", "&")]
    {
        text = text.replace(spaced, tight);
    }
    text
}

/// Whether the keyword or name `word` occurs anywhere in `tokens`.
pub(crate) fn contains(tokens: impl ToTokens, word: &str) -> bool {
    tokens.to_token_stream().into_iter().any(|tree| match tree {
        TokenTree::Ident(ident) => ident == word,
        TokenTree::Group(group) => contains(group.stream(), word),
        _ => false,
    })
}

/// `tokens` with each occurrence of the name `word` replaced.
pub(crate) fn replace(tokens: impl ToTokens, word: &str, with: &impl ToTokens) -> TokenStream {
    let replaced = |tree| match tree {
        TokenTree::Ident(ident) if ident == word => {
            TokenTree::Group(Group::new(Delimiter::None, with.to_token_stream()))
        }
        TokenTree::Group(group) => {
            let mut inner = Group::new(group.delimiter(), replace(group.stream(), word, with));
            inner.set_span(group.span());
            TokenTree::Group(inner)
        }
        tree => tree,
    };
    tokens.to_token_stream().into_iter().map(replaced).collect()
}

/// The name without `r#`.
pub(crate) fn unraw(ident: &Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map_or(name.clone(), str::to_owned)
}

fn flatten(tokens: TokenStream) -> TokenStream {
    let flattened = |tree| match tree {
        TokenTree::Group(group) if group.delimiter() == Delimiter::None => flatten(group.stream()),
        TokenTree::Group(group) => {
            let mut inner = Group::new(group.delimiter(), flatten(group.stream()));
            inner.set_span(group.span());
            TokenTree::Group(inner).into()
        }
        tree => tree.into(),
    };
    tokens.into_iter().flat_map(flattened).collect()
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn the_same_type_in_an_invisible_group_is_the_same() {
        let plain: Type = parse_quote!(Vec<Page>);
        let inner = Group::new(Delimiter::None, parse_quote!(Page));
        let grouped: Type = parse_quote!(Vec<#inner>);
        assert!(same(&plain, &grouped));
        assert!(!same(&plain, &parse_quote!(Vec<Row>)));
    }

    #[test]
    fn types_are_shown_as_they_are_written() {
        let ty: Type = parse_quote!(std::collections::BTreeMap<String, Option<&'static [u8]>>);
        assert_eq!(text(ty), "std::collections::BTreeMap<String, Option<&'static [u8]>>");
    }

    #[test]
    fn a_word_is_found_and_replaced_at_any_depth() {
        let ty: Type = parse_quote!(Result<(u8, [Self; 2]), E>);
        assert!(contains(&ty, "Self"));
        let replaced = replace(&ty, "Self", &syn::parse_str::<Type>("X").unwrap());
        assert_eq!(text(replaced), "Result<(u8, [X; 2]), E>");
    }
}
