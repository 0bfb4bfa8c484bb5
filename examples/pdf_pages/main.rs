//! Reads a PDF with one child workflow for each page: how many words each has, and which pages cannot be read.
//!
//! `cargo run --release --example pdf_pages -- FILE.pdf`, with `--json` for a summary that a program can read. Without a
//! file it renders the repository's documents, and a page that is damaged, into a PDF of its own.

mod documents;
mod pdf;
mod render;
mod report;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread::available_parallelism,
};

use hatchet::{Error, prelude::*};
use serde::{Deserialize, Serialize};

use crate::{documents::Documents, report::Progress};

#[derive(Clone, Serialize, Deserialize)]
struct Page {
    file: PathBuf,
    number: u32,
}

#[derive(Serialize, Deserialize)]
struct PageWords {
    words: usize,
    beginning: String,
}

/// One page: its text, and how many words that is.
#[workflow]
struct ReadPage {
    documents: Arc<Documents>,
}

#[workflow]
impl ReadPage {
    // A plain `fn` has a thread of its own: this computes, and would hold up the other tasks of an `async` runtime.
    #[step(timeout = "1m")]
    fn read(&self, _ctx: &StepContext, input: Page) -> StepResult<PageWords> {
        let text = self.documents.open(&input.file)?.text(input.number)?;
        // Leaders of dots and lone brackets are no words.
        let words = || text.split_whitespace().filter(|word| word.contains(char::is_alphanumeric));
        Ok(PageWords { words: words().count(), beginning: words().take(6).collect::<Vec<_>>().join(" ") })
    }
}

#[derive(Serialize, Deserialize)]
struct Unreadable {
    page: u32,
    reason: String,
}

/// What is done about a page that cannot be read: here it is noted.
#[workflow]
struct NoteUnreadable;

#[workflow]
impl NoteUnreadable {
    #[step]
    async fn note(&self, _ctx: &StepContext, input: Unreadable) -> StepResult<Unreadable> {
        Ok(input)
    }
}

type Document = Vec<Result<PageWords, Unreadable>>;

/// A whole document: what there is to say of each page, in their order.
#[workflow]
struct ReadDocument {
    documents: Arc<Documents>,
}

#[workflow]
impl ReadDocument {
    #[step]
    fn split(&self, _ctx: &StepContext, input: PathBuf) -> StepResult<u32> {
        let document = self.documents.open(&input).map_err(StepError::fatal)?;
        Ok(document.pages())
    }

    #[step]
    async fn read(&self, ctx: &StepContext, input: PathBuf, split: u32) -> StepResult<Document> {
        let inputs = (1..=split).map(|number| Page { file: input.clone(), number });
        let mut children = ctx.spawn_all::<ReadPage>(inputs).keyed(|page| page.number.to_string()).await?;
        let mut progress = Progress::of(split);
        let mut pages: Vec<_> = (0..split).map(|_| None).collect();
        while let Some(child) = children.next().await {
            let page = child.index as u32 + 1;
            pages[child.index] = Some(match child.result {
                Ok(words) => Ok(words),
                Err(error) if error.is_cancelled() => return Err(error.into()),
                Err(error) => {
                    let unreadable = Unreadable { page, reason: error.message().to_owned() };
                    let note = ctx.spawn::<NoteUnreadable>(unreadable).key(format!("note-{page}")).await?;
                    Err(note.result().await?)
                }
            });
            progress.advance();
        }
        Ok(pages.into_iter().flatten().collect())
    }
}

async fn read_document(file: &Path) -> Result<Document, Error> {
    let documents = Arc::new(Documents::default());
    let hatchet = Hatchet::from_env().await?;
    let worker = hatchet
        .worker()
        .register(ReadPage { documents: Arc::clone(&documents) })
        .register(ReadDocument { documents })
        // The steps compute, so more of them at once than there are processors would only take memory.
        .slots(available_parallelism().map_or(1, usize::from))
        .start()
        .await?;
    let result = hatchet.run::<ReadDocument>(file.to_owned()).await;
    worker.shutdown().await?;
    result
}

#[tokio::main]
async fn main() -> ExitCode {
    let (options, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let as_json = options == ["--json"];
    if files.len() > 1 || !(options.is_empty() || as_json) {
        eprintln!("usage: pdf_pages [--json] [FILE.pdf]");
        return ExitCode::from(2);
    }
    // The worker that reads the file may have another working directory.
    let file = files.first().map_or_else(render::repository_documents, std::path::absolute);
    let file = match file {
        Ok(file) => file,
        Err(error) => return fail(&format!("there is no file to read: {error}")),
    };
    let result = read_document(&file).await;
    if files.is_empty() {
        // The rendered one; that it stays is no reason to fail.
        drop(std::fs::remove_file(&file));
    }
    match result {
        Ok(document) if as_json => report::print_json(&file, &document),
        Ok(document) => report::print_table(&file, &document),
        Err(Error::Run(error)) => return fail(error.message()),
        Err(error) => return fail(&error.to_string()),
    }
    ExitCode::SUCCESS
}

fn fail(why: &str) -> ExitCode {
    eprintln!("pdf_pages: {why}");
    ExitCode::FAILURE
}
