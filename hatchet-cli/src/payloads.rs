//! Payloads: read from the command line, and shown to people without changing a digit.

use std::io::Read as _;

use hatchet_dashboard::api::PayloadView;
use serde_json::value::RawValue;

use crate::{
    failure::{Failure, Outcome},
    text::{safe_json, shortened, shown},
};

/// How many levels are indented: a short payload can have thousands.
const DEEPEST: usize = 20;
/// How many columns a payload has in an overview.
const SHORT: usize = 100;

/// Reads a payload that was given as JSON, as `@FILE`, or as `-` for standard input.
pub(crate) fn given(text: &str) -> Outcome<Box<RawValue>> {
    let read = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|error| cannot_read(file, &error))?,
        None if text == "-" => {
            let mut input = String::new();
            std::io::stdin().read_to_string(&mut input).map_err(|error| cannot_read("standard input", &error))?;
            input
        }
        None => text.to_owned(),
    };
    serde_json::from_str(&read).map_err(|error| {
        Failure::Usage(format!("the payload is not JSON: {error}; text is written as '\"text\"', a file as @FILE"))
    })
}

fn cannot_read(what: &str, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("cannot read {what}: {}", crate::failure::plain(&error.to_string())))
}

/// A payload on one line, shortened.
pub(crate) fn short(payload: &PayloadView) -> String {
    match &payload.json {
        Some(json) => shortened(&shown(json.get()), SHORT).into_owned(),
        None if payload.omitted => format!("({} bytes, see --full)", payload.bytes),
        None => "(not shown)".to_owned(),
    }
}

/// JSON with a line for each value. Numbers stay as they are written.
pub(crate) fn pretty(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut rest = json.chars().peekable();
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth.min(DEEPEST)));
    };
    while let Some(c) = rest.next() {
        if in_string {
            text.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            ' ' | '\n' | '\r' | '\t' => {}
            '{' | '[' => {
                text.push(c);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                match rest.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => text.push(end),
                    None => {
                        depth += 1;
                        line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            c => {
                in_string = c == '"';
                text.push(c);
            }
        }
    }
    safe_json(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pretty_payload_keeps_its_digits_and_its_strings() {
        let json = r#"{"n":123456789012345678901234567890,"s":"a,\"{:}\\","e":[ ],"l":[1, {"x":1.50}]}"#;
        let expected = "{\n  \"n\": 123456789012345678901234567890,\n  \"s\": \"a,\\\"{:}\\\\\",\n  \"e\": [],\n  \
                        \"l\": [\n    1,\n    {\n      \"x\": 1.50\n    }\n  ]\n}";
        assert_eq!(pretty(json), expected);
    }

    #[test]
    fn a_deep_payload_stays_small() {
        let deep = "[".repeat(30_000) + &"]".repeat(30_000);
        assert!(pretty(&deep).len() < 100 * deep.len());
    }

    #[test]
    fn a_payload_that_is_not_json_says_how_it_is_written() {
        let error = given("hello").unwrap_err().to_string();
        assert!(error.contains("'\"text\"'") && error.contains("@FILE"), "{error}");
        assert!(given("@/no/such/file").unwrap_err().to_string().contains("/no/such/file"));
        assert_eq!(given("12345678901234567890123").unwrap().get(), "12345678901234567890123");
    }
}
