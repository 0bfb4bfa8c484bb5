//! What the example prints: progress while it runs, and a table or JSON at the end.

use std::path::Path;

use serde_json::json;

use crate::{PageWords, Unreadable};

/// Says on stderr how far a document is, in tenths. After a restart it is said again from the beginning.
pub(crate) struct Progress {
    done: u32,
    all: u32,
}

impl Progress {
    pub(crate) fn of(all: u32) -> Self {
        Self { done: 0, all }
    }

    pub(crate) fn advance(&mut self) {
        let tenths = |done| u64::from(done) * 10 / u64::from(self.all);
        if tenths(self.done) < tenths(self.done + 1) {
            eprintln!("{:>6} of {} pages", self.done + 1, self.all);
        }
        self.done += 1;
    }
}

/// A longer table leaves out its middle.
const ROWS: usize = 30;

/// Prints a row for each page, or for the first and last ones of many, and the pages that cannot be read.
pub(crate) fn print_table(file: &Path, document: &[Result<PageWords, Unreadable>]) {
    println!("{}\n\n  page   words  beginning", file.display());
    let left_out = if document.len() > ROWS { ROWS / 2..document.len() - ROWS / 2 } else { 0..0 };
    for (at, page) in document.iter().enumerate().filter(|(at, _)| !left_out.contains(at)) {
        match page {
            Ok(page) => println!("{:>6}  {:>6}  {}", at + 1, page.words, shorten(&page.beginning)),
            Err(_) => println!("{:>6}       -  (unreadable)", at + 1),
        }
        if at + 1 == left_out.start {
            println!("     …       …  ({} more pages)", left_out.len());
        }
    }
    let unreadable: Vec<_> = document.iter().filter_map(|page| page.as_ref().err()).collect();
    println!("\n{} pages, {} words, {} unreadable", document.len(), words(document), unreadable.len());
    for Unreadable { page, reason } in unreadable.iter().take(ROWS) {
        println!("  page {page}: {reason}");
    }
}

/// Prints the same as one object: the words of each page, `null` for one that cannot be read.
pub(crate) fn print_json(file: &Path, document: &[Result<PageWords, Unreadable>]) {
    let summary = json!({
        "file": file,
        "pages": document.len(),
        "words": words(document),
        "words_per_page": document.iter().map(|page| page.as_ref().ok().map(|page| page.words)).collect::<Vec<_>>(),
        "unreadable": document.iter().filter_map(|page| page.as_ref().err()).collect::<Vec<_>>(),
    });
    println!("{summary}");
}

fn words(document: &[Result<PageWords, Unreadable>]) -> usize {
    document.iter().flatten().map(|page| page.words).sum()
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
