//! The output: lines for people or JSON for programs, in colour if a person sees it.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::{
    failure::Outcome,
    text::{safe_json, shown},
};

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    /// Whether programs read it.
    pub(crate) json: bool,
    /// Whether it is a terminal.
    pub(crate) terminal: bool,
    colour: bool,
}

/// A colour by what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// It went well.
    Good,
    /// It failed.
    Bad,
    /// It needs somebody.
    Warn,
    /// It is under way.
    Busy,
    /// It matters less.
    Dim,
    /// It matters more.
    Bold,
}

impl Out {
    /// Standard output. It has colours on a terminal unless `NO_COLOR` is set.
    pub(crate) fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { json, terminal: terminal && !dumb, colour: terminal && !refused && !dumb }
    }

    /// Without colours.
    pub(crate) fn plain() -> Self {
        Self { json: false, terminal: false, colour: false }
    }

    /// A text in a colour, if there are colours. The text must be escaped already.
    pub(crate) fn paint(&self, paint: Option<Paint>, text: &str) -> String {
        let Some(paint) = paint.filter(|_| self.colour && !text.is_empty()) else { return text.to_owned() };
        let code = match paint {
            Paint::Good => "32",
            Paint::Bad => "31",
            Paint::Warn => "33",
            Paint::Busy => "36",
            Paint::Dim => "2",
            Paint::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Prints a line. What it quotes must be escaped already.
    pub(crate) fn line(&self, line: impl AsRef<str>) -> Outcome {
        self.write(&format!("{}\n", line.as_ref()))
    }

    /// Prints lines.
    pub(crate) fn lines<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) -> Outcome {
        let text: String = lines.into_iter().flat_map(|line| [line.as_ref().to_owned(), "\n".to_owned()]).collect();
        self.write(&text)
    }

    /// Prints a JSON document as it came, but for what would act on a terminal.
    pub(crate) fn document(&self, json: &str) -> Outcome {
        self.line(safe_json(json.trim_end()))
    }

    /// Prints a value as JSON.
    pub(crate) fn value(&self, value: &impl Serialize) -> Outcome {
        self.document(&serde_json::to_string_pretty(value).unwrap_or_default())
    }

    /// Says something beside the output, on standard error.
    pub(crate) fn note(&self, words: &str) {
        self.note_safe(&shown(words));
    }

    /// The same with words that are escaped already and may have colours.
    pub(crate) fn note_safe(&self, words: &str) {
        // Where nobody reads this, nothing is lost.
        let _ = writeln!(std::io::stderr().lock(), "{words}");
    }

    /// Writes to standard output at once.
    pub(crate) fn write(&self, text: &str) -> Outcome {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }
}
