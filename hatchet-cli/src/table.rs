//! Tables for people: columns as wide as their cells, no lines, no wrapping.

use crate::{
    out::{Out, Paint},
    text::{shortened, shown, width},
};

/// The widest that a cell can be, but for the last of a row.
const WIDEST: usize = 80;

/// A table with a head.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// A cell. Its text is escaped when it is made.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    paint: Option<Paint>,
    to_the_right: bool,
}

impl Cell {
    /// A text.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: shown(text.as_ref()).into_owned(), paint: None, to_the_right: false }
    }

    /// A number. Zero is not what one looks for.
    pub(crate) fn number(number: u64) -> Self {
        let paint = (number == 0).then_some(Paint::Dim);
        Self { text: number.to_string(), paint, to_the_right: true }
    }

    /// The same cell in a colour.
    pub(crate) fn painted(self, paint: Option<Paint>) -> Self {
        Self { paint, ..self }
    }
}

impl Table {
    /// An empty table with these names of columns.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with as many cells as the head has.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// The lines of the table, each with `indent` in front. A column that is empty in all rows is left out.
    pub(crate) fn lines(&self, out: &Out, indent: &str) -> Vec<String> {
        let columns: Vec<usize> =
            (0..self.head.len()).filter(|at| self.rows.iter().any(|row| !row[*at].text.is_empty())).collect();
        let last = columns.last().copied();
        let head: Vec<Cell> = self.head.iter().map(|name| Cell::new(name).painted(Some(Paint::Dim))).collect();
        let cut = |at: usize, cell: &Cell| match Some(at) == last {
            true => cell.text.clone(),
            false => shortened(&cell.text, WIDEST).into_owned(),
        };
        let widest =
            |at: usize| self.rows.iter().chain([&head]).map(|row| width(&cut(at, &row[at]))).max().unwrap_or(0);
        let widths: Vec<usize> = columns.iter().map(|at| widest(*at)).collect();
        let right = |at: usize| self.rows.iter().any(|row| row[at].to_the_right);
        [&head]
            .into_iter()
            .chain(&self.rows)
            .map(|row| {
                let mut line = indent.to_owned();
                for (at, wide) in columns.iter().zip(&widths) {
                    let text = cut(*at, &row[*at]);
                    let space = " ".repeat(wide.saturating_sub(width(&text)));
                    let text = out.paint(row[*at].paint, &text);
                    match (right(*at), Some(*at) == last) {
                        (true, _) => line.push_str(&format!("{space}{text}")),
                        (false, true) => line.push_str(&text),
                        (false, false) => line.push_str(&format!("{text}{space}")),
                    }
                    line.push_str("  ");
                }
                line.trim_end().to_owned()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells_and_empty_ones_are_left_out() {
        let mut table = Table::new(&["NAME", "KEY", "N"]);
        table.row([Cell::new("世界"), Cell::new(""), Cell::number(7)]);
        table.row([Cell::new("order\n"), Cell::new(""), Cell::number(1000)]);
        let lines = table.lines(&Out::plain(), " ");
        assert_eq!(lines, [" NAME        N", " 世界        7", " order\\n  1000"]);
    }
}
