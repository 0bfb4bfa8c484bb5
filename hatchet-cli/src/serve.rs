//! `dashboard`: serves the dashboard of a store until the process receives a signal to stop.

use std::{net::SocketAddr, time::Duration};

use hatchet_dashboard::Options;
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tracing::{Level, Metadata};
use tracing_subscriber::{Layer as _, filter::filter_fn, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    api,
    args::{Common, DashboardArgs},
    failure::{Failure, Outcome, plain},
    out::Out,
};

/// How long requests that are under way may take after the end was asked for. A page that follows a run never ends by itself.
const GRACE: Duration = Duration::from_secs(3);

pub(crate) async fn dashboard(out: &Out, common: &Common, args: &DashboardArgs) -> Outcome {
    let token = common.token.clone().filter(|token| !token.is_empty());
    if !args.bind.is_loopback() && token.is_none() {
        return Err(Failure::Usage(format!(
            "at {} anybody in the network could act on the runs: give --token or set HATCHET_TOKEN, or leave out --bind",
            args.bind
        )));
    }
    if api::url_of(common)?.starts_with("http") {
        return Err(Failure::Usage(
            "a dashboard is served for a store, and the URL names another dashboard".to_owned(),
        ));
    }
    let address = SocketAddr::new(args.bind, args.port);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let why = plain(&error.to_string()).to_lowercase();
        Failure::No(format!("cannot listen at {address}: {why}; another port is set by --port"))
    })?;
    let address = listener.local_addr()?;
    log();
    let hatchet = api::connect_store(common).await?;
    // Without a token, a page whose name was made to point to this machine must not act here.
    let names = if token.is_none() { &["127.0.0.1", "localhost", "[::1]"][..] } else { &[] };
    let options = Options::default().read_only(args.read_only).token(token.unwrap_or_default());
    let options = options.hosts(names.iter().copied());
    let router = hatchet_dashboard::router(hatchet.clone(), options);
    match out.json {
        true => out.value(&serde_json::json!({ "url": format!("http://{address}/") }))?,
        false => out.line(format!("the dashboard is at http://{address}/"))?,
    }
    let (stop, stopped) = watch::channel(false);
    let wait = |mut stopped: watch::Receiver<bool>| async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    let serving = axum::serve(listener, router).with_graceful_shutdown(wait(stopped.clone()));
    let late = async {
        wait(stopped).await;
        sleep(GRACE).await;
    };
    let served = tokio::select! {
        served = async { serving.await } => served,
        () = late => Ok(()),
        () = async { asked_to_stop().await; stop.send_replace(true); std::future::pending().await } => Ok(()),
    };
    hatchet.close().await;
    served.map_err(Failure::from)
}

/// Waits for Ctrl-C, or for what a supervisor sends.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// What operators of a dashboard want to know, on standard error: who did what, and what goes wrong.
fn log() {
    let levels = |metadata: &Metadata<'_>| match metadata.target() {
        "hatchet::audit" => *metadata.level() <= Level::INFO,
        _ => *metadata.level() <= Level::WARN,
    };
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    // A second one in a process would be refused; there is none.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter_fn(levels))).try_init();
}
