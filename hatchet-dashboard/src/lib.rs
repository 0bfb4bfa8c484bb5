//! An HTTP API and a dashboard for runs, as a router for axum.
