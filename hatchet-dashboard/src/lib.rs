//! An HTTP API and a dashboard for durable workflows, as a router for [axum].
//!
//! The router looks at the store of a [`Hatchet`] client and acts on its runs. It needs no worker in its process and no
//! files besides the program. [`api`] has the data types of the API; `/api/v1/openapi.json` describes its paths.
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use hatchet_core::Hatchet;
//! use hatchet_dashboard::{Options, router};
//!
//! let hatchet = Hatchet::from_env().await?;
//! let options = Options::default().title("Orders").token(std::env::var("DASHBOARD_TOKEN")?);
//! let app = axum::Router::new().nest("/ops", router(hatchet, options));      // or at the root
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8233").await?;
//! axum::serve(listener, app).await?;
//! # Ok(()) }
//! ```
//!
//! # What it serves
//! | path | what |
//! | --- | --- |
//! | `/` | the overview: runs by status, queues, failures |
//! | `/runs`, `/runs/{id}` | lists by filter, and one run with its steps, children, payloads and buttons |
//! | `/attention` | stalled, failed, retried and unserved runs |
//! | `/queues`, `/workflows` | tasks by phase, and what workers have announced |
//! | `/api/v1/…` | the same as JSON, see `/api/v1/openapi.json` |
//! | `/metrics` | numbers for Prometheus |
//! | `/healthz`, `/readyz` | whether the server lives, and whether the store answers; they need no token |
//!
//! An action on many runs does one after the other. If its request is dropped, the rest is not done; asking again does it.
//!
//! # Security
//! Without a [token](Options::token) everybody who reaches the router may act; bind it to a local address then. With one,
//! programs send it as `Authorization: Bearer …` and people sign in. Requests that act are refused if a page of another
//! origin sends them. [`Options::read_only`] refuses all actions, and [`Options::redact`] keeps secrets in payloads from
//! being shown. Metadata, keys and names are always shown. Each action leaves a line in the log, with the target `hatchet::audit`.

mod acting;
mod answer;
pub mod api;
mod app;
mod bulk;
mod changes;
mod guard;
mod history;
mod listing;
mod options;
mod pages;
mod query;
mod refusal;
mod request;
mod routes;
mod views;

use axum::{Router, extract::Request, http::StatusCode, middleware::from_fn_with_state};
use hatchet_core::Hatchet;

pub use self::options::{Options, Part, Place, Redact};
use self::{api::ErrorCode, app::App, refusal::Refusal};

/// Creates the router of the API and the pages. It can be mounted anywhere: at the root, with `Router::nest`, or with
/// `Router::nest_service`, which also answers at the prefix with a slash at its end.
///
/// A call to a store that is unreachable is answered with 503 after [`Options::patience`].
pub fn router(hatchet: Hatchet, options: Options) -> Router {
    let app = App::new(hatchet, options);
    let routes = routes::api().into_iter().chain(pages::routes());
    let router = routes.fold(Router::new(), |router, (path, method)| router.route(path, method));
    router
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

async fn nowhere(request: Request) -> Refusal {
    Refusal::not_found(format!("there is nothing at {:?}", request.uri().path()))
}

async fn other_method(request: Request) -> Refusal {
    let message = format!("{} is not allowed here", request.method());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::BadRequest, message)
}
