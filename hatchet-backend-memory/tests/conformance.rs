//! The contract of a backend, case by case.

use hatchet_backend_memory::{MemoryBackend, MemoryOptions};
use hatchet_core::conformance::Fixture;

hatchet_core::conformance_suite!(memory, async |settings| {
    Fixture::new(MemoryBackend::with_options(MemoryOptions::default().retention(settings.retention)))
});
