//! A PDF that is open: how many pages it has, and the text of each.

use std::{collections::BTreeMap, path::Path};

use lopdf::{Document, Encoding, Object, ObjectId, content::Content};

/// Why a document or a page of it cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PdfError {
    #[error("cannot open {path}: {source}")]
    Open { path: String, source: std::io::Error },
    #[error("{path} is empty")]
    Empty { path: String },
    #[error("{path} is not a PDF that can be read: {source}")]
    Document { path: String, source: lopdf::Error },
    #[error("{path} is protected by a password")]
    Encrypted { path: String },
    #[error("{path} has no pages")]
    NoPages { path: String },
    #[error("there is no page {page}: the document has {pages}")]
    NoSuchPage { page: u32, pages: u32 },
    #[error("its content is damaged")]
    Damaged,
    #[error("{what}: {source}")]
    Page { what: &'static str, source: lopdf::Error },
}

/// An open document. Opening reads all of it, which is what takes time; a page is read where it lies.
pub(crate) struct Pdf {
    document: Document,
    pages: Vec<ObjectId>,
}

/// What one page may take in memory, decompressed.
const LARGEST_PAGE: usize = 64 << 20;

/// The longest that nothing gets when it is compressed. More that unpacks to nothing is damaged: lopdf gives what it could unpack.
const LONGEST_NOTHING: usize = 16;

impl Pdf {
    pub(crate) fn open(path: &Path) -> Result<Self, PdfError> {
        let name = || path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| PdfError::Open { path: name(), source })?;
        if bytes.is_empty() {
            return Err(PdfError::Empty { path: name() });
        }
        let document = Document::load_mem(&bytes).map_err(|source| PdfError::Document { path: name(), source })?;
        if document.is_encrypted() {
            return Err(PdfError::Encrypted { path: name() });
        }
        // Something that is hardly a PDF may load, and have no pages.
        let pages: Vec<ObjectId> = document.page_iter().collect();
        if pages.is_empty() {
            return Err(PdfError::NoPages { path: name() });
        }
        Ok(Self { document, pages })
    }

    pub(crate) fn pages(&self) -> u32 {
        self.pages.len() as u32
    }

    /// The text of a page, counted from 1, with a space or a line break wherever the next letters stand apart.
    pub(crate) fn text(&self, page: u32) -> Result<String, PdfError> {
        let at = (page as usize).checked_sub(1).and_then(|at| self.pages.get(at));
        let id = *at.ok_or(PdfError::NoSuchPage { page, pages: self.pages() })?;
        let fonts = self.fonts(id)?;
        let content = self.content(id)?;
        let content = Content::decode(&content).map_err(of_page("its content is not understood"))?;
        let mut font = None;
        let mut text = String::new();
        for operation in &content.operations {
            let operands = &operation.operands;
            match operation.operator.as_str() {
                "Tf" => font = operands.first().and_then(|name| fonts.get(name.as_name().ok()?)),
                "Td" | "TD" if number(operands.get(1)) == 0.0 => text.push(' '),
                "Td" | "TD" | "Tm" | "T*" | "ET" => text.push('\n'),
                "Tj" => show(&mut text, font, operands)?,
                "'" | "\"" => {
                    text.push('\n');
                    show(&mut text, font, operands.last())?;
                }
                "TJ" => {
                    let parts = operands.first().and_then(|parts| parts.as_array().ok());
                    show(&mut text, font, parts.into_iter().flatten())?;
                }
                _ => {}
            }
        }
        Ok(text)
    }

    fn fonts(&self, page: ObjectId) -> Result<BTreeMap<Vec<u8>, Encoding<'_>>, PdfError> {
        let fonts = self.document.get_page_fonts(page).map_err(of_page("its fonts cannot be found"))?;
        let encoded = fonts
            .into_iter()
            .map(|(name, font)| Ok((name, font.get_font_encoding_with_limit(&self.document, LARGEST_PAGE)?)));
        encoded.collect::<Result<_, _>>().map_err(of_page("the encoding of a font cannot be read"))
    }

    /// The content streams of a page, one after the other. A stream that is damaged is an error.
    fn content(&self, page: ObjectId) -> Result<Vec<u8>, PdfError> {
        let mut content = Vec::new();
        for id in self.document.get_page_contents(page) {
            let stream = self.document.get_object(id).and_then(Object::as_stream);
            let stream = stream.map_err(of_page("its content is missing"))?;
            let room = LARGEST_PAGE.saturating_sub(content.len());
            let part =
                stream.decompressed_content_with_limit(room).map_err(of_page("its content cannot be unpacked"))?;
            if part.is_empty() && stream.content.len() > LONGEST_NOTHING {
                return Err(PdfError::Damaged);
            }
            content.extend(part);
            content.push(b'\n');
        }
        Ok(content)
    }
}

/// A move to the right of more than this, in thousandths of the font's size, is the gap between two words.
const GAP: f32 = 180.0;

/// Appends what is shown: strings, and between them numbers that move to the left.
fn show<'a>(
    text: &mut String,
    font: Option<&Encoding<'_>>,
    parts: impl IntoIterator<Item = &'a Object>,
) -> Result<(), PdfError> {
    let Some(font) = font else { return Ok(()) };
    for part in parts {
        match part {
            Object::String(bytes, _) => {
                font.write_to_string(bytes, text).map_err(of_page("its letters cannot be decoded"))?
            }
            other if number(Some(other)) < -GAP => text.push(' '),
            _ => {}
        }
    }
    Ok(())
}

fn number(operand: Option<&Object>) -> f32 {
    operand.and_then(|operand| operand.as_float().ok()).unwrap_or_default()
}

fn of_page(what: &'static str) -> impl Fn(lopdf::Error) -> PdfError {
    move |source| PdfError::Page { what, source }
}
