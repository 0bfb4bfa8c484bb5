//! An HTTP API and a dashboard for durable workflows.
//!
//! The types of the API are in [`api`].

pub mod api;
