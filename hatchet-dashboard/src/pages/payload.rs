//! Payloads on a page: with line breaks, cut if they are long.

use maud::{Markup, html};

use super::text::{said, size};
use crate::api::PayloadView;

/// The characters of a payload on a page.
const LENGTH: usize = 20_000;

/// A payload, and a link to all of it.
pub(super) fn block(payload: &PayloadView, link: Option<&str>) -> Markup {
    let whole = |words: &str| html! { @if let Some(link) = link { a href=(link) { (words) } } };
    let Some(json) = &payload.json else {
        return html! {
            p .quiet {
                @match (payload.omitted, payload.bytes) {
                    (true, bytes) => { (size(bytes)) ". " (whole("Show all of it")) },
                    (false, 0) => "empty",
                    (false, bytes) => { (size(bytes)) ", which cannot be shown as JSON" }
                }
            }
        };
    };
    let text = indented(json.get());
    let cut = text.char_indices().nth(LENGTH).map(|(at, _)| at);
    html! {
        pre { (said(&text[..cut.unwrap_or(text.len())])) @if cut.is_some() { "…" } }
        @if cut.is_some() { p .quiet { "Cut. " (size(payload.bytes)) " in all. " (whole("Show all of it")) } }
    }
}

/// JSON text with line breaks. Its numbers and strings stay as they are.
fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut letters = json.chars().filter(|letter| !letter.is_control()).peekable();
    while let Some(letter) = letters.next() {
        if in_string {
            text.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            ' ' => {}
            '{' | '[' => {
                text.push(letter);
                while letters.next_if_eq(&' ').is_some() {}
                if let Some(end) = letters.next_if(|letter| matches!(letter, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(letter);
            }
            ',' => {
                text.push(letter);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            letter => {
                in_string = letter == '"';
                text.push(letter);
            }
        }
    }
    text
}

fn line(text: &mut String, depth: usize) {
    text.push('\n');
    // Deep values stay readable, and do not grow with the square of their depth.
    text.extend(std::iter::repeat_n("  ", depth.min(20)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_gets_lines_and_keeps_its_values() {
        let json = r#"{"a":[1.50,12345678901234567890123],"b":{},"c":"x, {\"y\": \\","d": [ ] }"#;
        let lines = [
            "{",
            "  \"a\": [",
            "    1.50,",
            "    12345678901234567890123",
            "  ],",
            "  \"b\": {},",
            r#"  "c": "x, {\"y\": \\","#,
            "  \"d\": []",
            "}",
        ];
        assert_eq!(indented(json), lines.join("\n"));
    }

    #[test]
    fn deep_json_stays_small() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(indented(&deep).len() < 1_000_000);
    }
}
