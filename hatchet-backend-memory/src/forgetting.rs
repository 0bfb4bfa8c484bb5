//! A store that forgets, for tests: what a server is that dies before it has kept its latest changes, and comes back.

use std::fmt;

use crate::{MemoryBackend, store::Store};

/// All that a store contained at a moment.
pub struct Image(Box<Store>);

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").finish_non_exhaustive()
    }
}

impl MemoryBackend {
    /// Copies all that the store contains.
    pub fn image(&self) -> Image {
        Image(Box::new(self.lock().clone()))
    }

    /// Makes the store what it was when the image was made: whatever changed since is forgotten. Time goes on, and no
    /// fencing token is used again.
    pub fn go_back(&self, Image(before): Image) {
        let mut store = self.lock();
        let mut notifies: Vec<_> = store.sessions.notify_all().collect();
        let forgotten = std::mem::replace(&mut *store, *before);
        store.keep_time_and_tokens(&forgotten);
        notifies.extend(store.sessions.notify_all());
        drop(store);
        notifies.iter().for_each(|notify| notify.notify_waiters());
    }
}
