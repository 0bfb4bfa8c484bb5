//! The documents that this process has open. All steps of a worker share them, so that a file is read once and not once
//! for each page: opening one of two thousand pages takes hundreds of times as long as reading a page of it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use crate::pdf::{Pdf, PdfError};

/// How many documents stay open at most.
const MOST: usize = 4;

#[derive(Default)]
pub(crate) struct Documents {
    /// The one that was asked for last is the last.
    open: Mutex<Vec<(Version, Place)>>,
}

/// A file as it was when it was opened: one that has changed since is another.
#[derive(Clone, PartialEq)]
struct Version {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
}

/// Locked while the document is being opened, so that others who want it wait for it instead of opening it too.
type Place = Arc<Mutex<Option<Arc<Pdf>>>>;

impl Documents {
    /// The document at `path`; opens it if that was not done before. Blocks.
    pub(crate) fn open(&self, path: &Path) -> Result<Arc<Pdf>, PdfError> {
        let found = std::fs::metadata(path);
        let found = found.map_err(|source| PdfError::Open { path: path.display().to_string(), source })?;
        let version = Version { path: path.to_owned(), length: found.len(), modified: found.modified().ok() };
        let place = self.place(version);
        let mut document = place.lock().unwrap_or_else(PoisonError::into_inner);
        match &*document {
            Some(document) => Ok(Arc::clone(document)),
            None => Ok(Arc::clone(document.insert(Arc::new(Pdf::open(path)?)))),
        }
    }

    fn place(&self, version: Version) -> Place {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match open.iter().position(|(there, _)| *there == version) {
            Some(at) => open.remove(at).1,
            None => Place::default(),
        };
        open.retain(|(there, _)| there.path != version.path);
        open.push((version, Arc::clone(&place)));
        let superfluous = open.len().saturating_sub(MOST);
        open.drain(..superfluous);
        place
    }
}
