//! Stored text on a terminal: what could move the cursor, change colours, or reorder what is read is escaped.
//!
//! Everything that comes from a store or over the network passes through here before it is printed.

use std::borrow::Cow;

use unicode_width::UnicodeWidthStr as _;

/// Text on one line that shows what it contains.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if acts(c) => safe.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// The same document, in which nothing acts on a terminal. In JSON such characters stand in strings alone, but for
/// the space between values.
pub(crate) fn safe_json(json: &str) -> Cow<'_, str> {
    let acts_here = |c: char| acts(c) && !matches!(c, '\n' | '\r' | '\t');
    if !json.chars().any(acts_here) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts_here(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| safe.push_str(&format!("\\u{unit:04x}")));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Whether a terminal, or a reader's eye, could be led astray by it.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Marks of direction, and what isolates or overrides it.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // What is not seen at all, and other ends of lines.
            | '\u{200b}'..='\u{200d}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Shortens a text to this number of columns. A shortened text ends with `…`.
pub(crate) fn shortened(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    // Characters together may be wider than each alone.
    let mut end = 0;
    for (at, c) in text.char_indices() {
        let next = at + c.len_utf8();
        if at > MOST_BYTES_A_COLUMN * columns || text[..next].width() >= columns {
            break;
        }
        end = next;
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// Marks on one character are not read for ever.
const MOST_BYTES_A_COLUMN: usize = 16;

/// How many columns a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        assert_eq!(shown("a\x1b[31mb\r\n\t\x07"), "a\\u{1b}[31mb\\r\\n\\t\\u{7}");
        assert_eq!(shown("\u{9b}2J \u{202e}gpj \u{2066}x\u{200b}"), "\\u{9b}2J \\u{202e}gpj \\u{2066}x\\u{200b}");
        assert_eq!(shown("Grüße, 世界 🙂"), "Grüße, 世界 🙂");
    }

    #[test]
    fn json_stays_the_same_document() {
        let hostile = "{\n  \"a\": \"x\u{202e}\u{9b}\u{e0041}\u{7f}\"\n}";
        let safe = safe_json(hostile);
        assert!(!safe.chars().any(|c| acts(c) && c != '\n'), "{safe}");
        let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(read(&safe), read(hostile));
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abcde…");
        assert_eq!(shortened("世界世界", 6), "世界…");
        for text in ["世界世界".to_owned(), "⚠\u{fe0f} ".to_owned() + &"x".repeat(100), "e\u{301}".repeat(500)] {
            for columns in 1..20 {
                assert!(width(&shortened(&text, columns)) <= columns, "{text} {columns}");
            }
        }
    }
}
