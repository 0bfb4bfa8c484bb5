//! How a step is woken.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use super::lock;

/// Wakes the task that drives a step, and tells whether the step itself asked for it.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    pub(super) by_step: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl Bell {
    /// Has the driver look at the journal and at whether it may go on.
    pub(crate) fn ring(&self) {
        if let Some(driver) = &*lock(&self.driver) {
            driver.wake_by_ref();
        }
    }

    /// Sets the waker to use from now on. Returns true if it differs from the previous one.
    pub(super) fn set_driver(&self, waker: &Waker) -> bool {
        let mut driver = lock(&self.driver);
        let is_new = !driver.as_ref().is_some_and(|before| before.will_wake(waker));
        if is_new {
            *driver = Some(waker.clone());
        }
        is_new
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.by_step.store(true, Ordering::Release);
        self.ring();
    }
}
