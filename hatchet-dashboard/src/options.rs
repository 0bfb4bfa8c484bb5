//! The options of the dashboard.

use std::{fmt, sync::Arc, time::Duration};

use hatchet_core::{Name, RunId};
use serde_json::Value;

/// A function that removes secrets from a payload before it is shown. See [`Options::redact`].
pub type Redact = dyn Fn(&Place, &mut Value) + Send + Sync;

/// Returns metrics of the program as Prometheus text.
pub(crate) type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The options of [`router`](crate::router). By default it needs no token, allows all actions and shows all payloads, so
/// it must not be reachable from outside.
///
/// ```
/// use hatchet_dashboard::{Options, Part};
///
/// let options = Options::default()
///     .title("Orders")
///     .token("a long random secret")
///     .redact(|place, payload| {
///         if place.part == Part::Input && &*place.workflow == "login" {
///             if let Some(password) = payload.get_mut("password") {
///                 *password = "hidden".into();
///             }
///         }
///     });
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The title of the pages.
    pub title: String,
    /// The path below which a reverse proxy shows the dashboard, if that proxy removes it from the requests.
    pub prefix: String,
    /// Whether actions are refused.
    pub read_only: bool,
    /// How long the store has to answer one call. After that the answer is 503.
    pub patience: Duration,
    /// How long runs are looked for before something is done with all of them.
    pub(crate) scan: Duration,
    pub(crate) hosts: Vec<String>,
    pub(crate) token: Option<Arc<str>>,
    pub(crate) redact: Option<Arc<Redact>>,
    pub(crate) metrics: Option<Metrics>,
}

/// The place of a payload: what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The run.
    pub run: RunId,
    /// The name of its workflow.
    pub workflow: Name,
    /// Which payload of the run.
    pub part: Part,
}

/// A payload of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The input.
    Input,
    /// The output of the run.
    Output,
    /// The output of a step.
    StepOutput,
    /// The failure of the run or of a step, as an object: messages, causes and details.
    Failure,
    /// A value of a journal: the result of a recorded call, the payload of a signal, the output of a child.
    Journal,
    /// All headers of the run, as an object of strings.
    Headers,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            title: "Workflows".to_owned(),
            prefix: String::new(),
            read_only: false,
            patience: Duration::from_secs(10),
            scan: Duration::from_secs(60),
            hosts: Vec::new(),
            token: None,
            redact: None,
            metrics: None,
        }
    }
}

impl Options {
    /// Requires a token: as `Authorization: Bearer …` from programs, by a form from people. An empty token is none.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = Some(token.into()).filter(|token| !token.is_empty()).map(Arc::from);
        Self { token, ..self }
    }

    /// Refuses all actions, and shows no buttons for them.
    #[must_use]
    pub fn read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    /// Sets a function that changes each payload before it is shown or sent. A payload that is not JSON is left out then.
    /// Integers outside of 64 bits lose digits. Metadata is not a payload: put no secrets into it.
    #[must_use]
    pub fn redact(self, redact: impl Fn(&Place, &mut Value) + Send + Sync + 'static) -> Self {
        Self { redact: Some(Arc::new(redact)), ..self }
    }

    /// Sets a function that returns metrics of this program as Prometheus text. `/metrics` shows them after the numbers of
    /// the store. Use it with the feature `metrics` of the library and an exporter that renders text.
    #[must_use]
    pub fn metrics(self, metrics: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { metrics: Some(Arc::new(metrics)), ..self }
    }

    /// Sets the title of the pages.
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..self }
    }

    /// Sets the path below which a reverse proxy shows the dashboard, if that proxy removes it from the requests. It is
    /// not needed for `Router::nest`.
    #[must_use]
    pub fn prefix(self, prefix: impl AsRef<str>) -> Self {
        let prefix = prefix.as_ref().trim_matches('/');
        Self { prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") }, ..self }
    }

    /// Sets the names under which browsers may reach the dashboard, such as `localhost` (on any port) or `127.0.0.1:8233`
    /// (on this one). All other names are refused, but for probes and for programs with the token. Without a token this
    /// keeps pages of other sites out that let a name of theirs point to this address.
    #[must_use]
    pub fn hosts(self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { hosts: hosts.into_iter().map(Into::into).collect(), ..self }
    }

    /// Sets how long the store has to answer one call. Default: 10 seconds.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, prefix, read_only, patience, scan: _, hosts, token, redact, metrics } = self;
        let mut debug = f.debug_struct("Options");
        debug.field("title", title).field("prefix", prefix).field("read_only", read_only).field("patience", patience);
        debug.field("hosts", hosts);
        debug.field("has_token", &token.is_some()).field("redacts", &redact.is_some());
        debug.field("has_metrics", &metrics.is_some()).finish()
    }
}
