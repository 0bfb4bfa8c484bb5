//! Clients and workers whose runtime is gone, in real time.

use std::{sync::Arc, time::Duration};

use hatchet::{Error, Hatchet, RunStatus, backend::Backend};
use tokio::runtime::{Builder, Runtime};

use crate::play::{Do, Leaf};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// More than any machine needs for something that does not hang.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(40), what).await.expect("it hangs")
}

/// Two runtimes, and a client that was made and used on the first.
fn stage() -> (Runtime, Runtime, Hatchet) {
    let (first, second) = (runtime(), runtime());
    let client = first.block_on(async {
        let backend: Arc<dyn Backend> = crate::backend_in_real_time().await;
        let client = Hatchet::on(backend);
        client.counts().await.unwrap();
        client
    });
    (first, second, client)
}

#[test]
fn a_client_whose_runtime_is_gone_goes_on_with_the_one_that_calls() {
    let (first, second, client) = stage();
    drop(first);
    second.block_on(soon(async {
        let run = client.start::<Leaf>(Do::Give(4)).unchecked().await.unwrap();
        assert_eq!(run.status().await.unwrap(), RunStatus::Queued);
        let worker = client.worker().only_registered().register(Leaf).start().await.unwrap();
        assert_eq!(run.result().await.unwrap(), 4);
        let other = client.start::<Leaf>(Do::Wait).await.unwrap();
        other.signal("never", &1_u64).await.unwrap();
        assert_eq!(other.result().await.unwrap(), 1);
        worker.shutdown().await.unwrap();
        client.close().await;
    }));
}

#[test]
fn who_waits_by_a_runtime_that_goes_waits_on() {
    let (first, second, client) = stage();
    let run = first.block_on(soon(async { client.start::<Leaf>(Do::Give(4)).unchecked().await.unwrap() }));
    let waiting = second.spawn({
        let run = run.clone();
        async move { run.result().await }
    });
    // Whether it waits already makes no difference; mostly it does.
    std::thread::sleep(Duration::from_millis(50));
    drop(first);
    second.block_on(soon(async {
        let worker = client.worker().only_registered().register(Leaf).start().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 4);
        worker.shutdown().await.unwrap();
    }));
}

#[test]
fn what_a_worker_held_whose_runtime_is_gone_goes_to_others() {
    let (first, second, client) = stage();
    let lease = Duration::from_millis(500);
    let (worker, run) = first.block_on(soon(async {
        let worker = client.worker().only_registered().register(Leaf).lease(lease).start().await.unwrap();
        let run = client.start::<Leaf>(Do::Wait).await.unwrap();
        while run.view().await.unwrap().started.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (worker, run)
    }));
    drop(first);
    second.block_on(soon(async {
        assert!(matches!(worker.shutdown().await, Err(Error::Interrupted(_))));
        let worker = client.worker().only_registered().register(Leaf).lease(lease).start().await.unwrap();
        run.signal("never", &9_u64).await.unwrap();
        assert_eq!(run.result().await.unwrap(), 9);
        worker.shutdown().await.unwrap();
    }));
}
