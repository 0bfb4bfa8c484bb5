//! Drawing the same lines again on a terminal. Each line takes one row, so that it is known how far up to go.

use terminal_size::{Height, Width};

use crate::{
    failure::Outcome,
    out::{Out, Paint},
    text::{shortened, width},
};

/// A part of a line in one colour. Its text is escaped already.
pub(super) type Span = (Option<Paint>, String);

/// What is drawn.
#[derive(Debug, Default)]
pub(super) struct Screen {
    rows: usize,
}

impl Screen {
    /// Draws lines in place of those that were drawn before.
    pub(super) fn draw(&mut self, out: &Out, lines: &[Vec<Span>]) -> Outcome {
        let (columns, most) = size();
        let left_out = lines.len().saturating_sub(most);
        let mut text = match self.rows {
            0 => String::new(),
            rows => format!("\x1b[{rows}A\r\x1b[J"),
        };
        for line in &lines[..lines.len() - left_out] {
            text.push_str(&fitted(out, line, columns));
            text.push('\n');
        }
        self.rows = lines.len() - left_out;
        out.write(&text)
    }

    /// Leaves what is drawn: something else was written below.
    pub(super) fn forget(&mut self) {
        self.rows = 0;
    }
}

/// Columns and rows that can be drawn. A terminal may have been made smaller or larger meanwhile.
fn size() -> (usize, usize) {
    let (Width(columns), Height(rows)) = terminal_size::terminal_size().unwrap_or((Width(80), Height(24)));
    (usize::from(columns.max(20)) - 1, usize::from(rows.max(4)) - 1)
}

fn fitted(out: &Out, line: &[Span], columns: usize) -> String {
    let mut left = columns;
    let mut text = String::new();
    for (paint, span) in line {
        if left == 0 {
            break;
        }
        let span = shortened(span, left);
        left = left.saturating_sub(width(&span));
        text.push_str(&out.paint(*paint, &span));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_one_row() {
        let line = [(None, "order ".to_owned()), (Some(Paint::Good), "succeeded".to_owned()), (None, " 3s".to_owned())];
        assert_eq!(fitted(&Out::plain(), &line, 40), "order succeeded 3s");
        assert_eq!(fitted(&Out::plain(), &line, 10), "order suc…");
        assert_eq!(fitted(&Out::plain(), &line, 6), "order ");
    }
}
