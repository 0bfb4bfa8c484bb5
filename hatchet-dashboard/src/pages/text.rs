//! Text of others on a page. Everything that is stored goes through here: HTML is escaped, and what would hide or turn
//! text becomes visible.

use std::fmt::Write as _;

use hatchet_core::{RunId, RunStatus};
use maud::{Escaper, Markup, PreEscaped, Render, html};

use super::Site;
use crate::api::Time;

/// Text of others, escaped. Lines stay lines.
pub(crate) fn said(text: &str) -> Said<'_> {
    Said(text)
}

pub(crate) struct Said<'a>(&'a str);

impl Render for Said<'_> {
    fn render_to(&self, buffer: &mut String) {
        let mut visible = String::with_capacity(self.0.len());
        for letter in self.0.chars() {
            match letter {
                '\n' | '\t' => visible.push(letter),
                letter if letter.is_control() || turns(letter) => visible.extend(letter.escape_unicode()),
                letter => visible.push(letter),
            }
        }
        let _ = Escaper::new(buffer).write_str(&visible);
    }
}

/// Letters without a shape that change the order of others, or have no width.
fn turns(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The status of a run, as a badge. The word is there, so that the colour is not needed.
pub(crate) fn badge(status: RunStatus) -> Markup {
    html! { span class={ "badge " (status) } { (status) } }
}

/// A moment, to the second.
pub(crate) fn moment(at: Time) -> Markup {
    let full = at.to_string();
    let short = full.get(..19).unwrap_or(&full).replace('T', " ");
    html! { time datetime=(full) title=(full) { (short) } }
}

/// A duration for people, with two parts at most.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0 if seconds < 0.001 => "<1 ms".to_owned(),
        0 => format!("{:.0} ms", seconds * 1_000.0),
        1..60 => format!("{seconds:.1} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A link to a run, with its whole id.
pub(crate) fn run_link(site: &Site, id: RunId) -> Markup {
    html! { a .id href=(site.to(&format!("/runs/{id}"))) { (id) } }
}

/// A link to a run, with what tells it from others in a list.
pub(crate) fn short_link(site: &Site, id: RunId) -> Markup {
    let full = id.to_string();
    let short = match full.split_once('.') {
        // The beginning of an id is a time, which is much the same for all of a list.
        None => full.get(24..).unwrap_or(&full).to_owned(),
        Some((parent, rest)) => {
            let rest: String = rest.chars().take(12).collect();
            format!("{}.{rest}", parent.get(28..).unwrap_or(parent))
        }
    };
    html! { a .id .short href=(site.to(&format!("/runs/{full}"))) title=(full) { "…" (short) } }
}

/// A number of things: "1 run", "2 runs".
pub(crate) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// Nothing on a page.
pub(crate) fn nothing() -> Markup {
    PreEscaped(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_cannot_become_markup() {
        let text = said("<script>alert(\"1\")</script>&").render().into_string();
        assert_eq!(text, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;");
    }

    #[test]
    fn what_hides_or_turns_text_is_visible() {
        assert_eq!(
            said("a\u{1b}[31m\u{202e}b\u{200b}\u{7f}").render().into_string(),
            "a\\u{1b}[31m\\u{202e}b\\u{200b}\\u{7f}"
        );
        assert_eq!(said("é\n\t🦀").render().into_string(), "é\n\t🦀");
    }

    #[test]
    fn durations_are_short() {
        let pairs = [
            (0.0, "<1 ms"),
            (0.25, "250 ms"),
            (1.5, "1.5 s"),
            (61.0, "1 min 1 s"),
            (3_660.0, "1 h 1 min"),
            (90_000.0, "1 d 1 h"),
        ];
        for (seconds, text) in pairs {
            assert_eq!(duration(seconds), text);
        }
    }
}
