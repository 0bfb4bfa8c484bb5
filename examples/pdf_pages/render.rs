//! Renders text files into a PDF, so that the example has one to read.

use std::{
    io,
    path::{Path, PathBuf},
};

use lopdf::{
    Dictionary, Document, Object, ObjectId, Stream,
    content::{Content, Operation},
    dictionary,
};

const LINES: usize = 60;
const COLUMNS: usize = 90;

/// Renders the documents at the top of the repository, and behind them a page that is damaged; answers where the PDF is.
pub(crate) fn repository_documents() -> io::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found: Result<Vec<PathBuf>, _> = root.read_dir()?.map(|entry| Ok::<_, io::Error>(entry?.path())).collect();
    let mut files = found?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    let mut pdf = Pdf::new();
    for file in files {
        let text = std::fs::read_to_string(file)?;
        let lines: Vec<String> = text.lines().flat_map(wrap).collect();
        lines.chunks(LINES).for_each(|lines| pdf.add_page(content(lines)));
    }
    pdf.add_page(damaged());
    let path = std::env::temp_dir().join(format!("pdf_pages-{}.pdf", std::process::id()));
    pdf.save(&path)?;
    Ok(path)
}

struct Pdf {
    document: Document,
    tree: ObjectId,
    resources: ObjectId,
    pages: Vec<Object>,
}

impl Pdf {
    fn new() -> Self {
        let mut document = Document::with_version("1.5");
        let tree = document.new_object_id();
        let font = document.add_object(dictionary! {
            "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Courier", "Encoding" => "WinAnsiEncoding",
        });
        let resources = document.add_object(dictionary! { "Font" => dictionary! { "F1" => font } });
        Self { document, tree, resources, pages: Vec::new() }
    }

    fn add_page(&mut self, content: Stream) {
        let content = self.document.add_object(content);
        let page = dictionary! { "Type" => "Page", "Parent" => self.tree, "Contents" => content };
        self.pages.push(self.document.add_object(page).into());
    }

    fn save(mut self, path: &Path) -> io::Result<()> {
        let tree = dictionary! {
            "Type" => "Pages",
            "Count" => self.pages.len() as i64,
            "Kids" => self.pages,
            "Resources" => self.resources,
            "MediaBox" => vec![0.into(), 0.into(), 595.into(), 842.into()],
        };
        self.document.objects.insert(self.tree, tree.into());
        let catalog = self.document.add_object(dictionary! { "Type" => "Catalog", "Pages" => self.tree });
        self.document.trailer.set("Root", catalog);
        self.document.save(path).map(drop)
    }
}

/// A page of text in a font whose letters are all equally wide.
fn content(lines: &[String]) -> Stream {
    let mut operations = vec![
        Operation::new("BT", vec![]),
        Operation::new("Tf", vec!["F1".into(), 10.into()]),
        Operation::new("TL", vec![12.into()]),
        Operation::new("Td", vec![25.into(), 790.into()]),
    ];
    for line in lines {
        operations.push(Operation::new("Tj", vec![Object::string_literal(latin(line))]));
        operations.push(Operation::new("T*", vec![]));
    }
    operations.push(Operation::new("ET", vec![]));
    let content = Content { operations }.encode().unwrap_or_default();
    Stream::new(Dictionary::new(), content)
}

/// A page whose content says that it is compressed, and is not.
fn damaged() -> Stream {
    Stream::new(dictionary! { "Filter" => "FlateDecode" }, b"this was not compressed".to_vec())
}

/// The line in pieces that fit on a page.
fn wrap(line: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    for word in line.split(' ') {
        if !piece.is_empty() && piece.chars().count() + 1 + word.chars().count() > COLUMNS {
            pieces.push(std::mem::take(&mut piece));
        } else if !piece.is_empty() {
            piece.push(' ');
        }
        piece.push_str(word);
    }
    pieces.push(piece);
    pieces
}

/// The letters that the encoding has at the place where Unicode has them, and a question mark for others.
fn latin(text: &str) -> Vec<u8> {
    text.chars()
        .map(|letter| u8::try_from(letter).ok().filter(|byte| !(0x7f..0xa0).contains(byte)).unwrap_or(b'?'))
        .collect()
}
