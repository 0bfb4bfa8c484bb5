//! A TCP proxy before a server, which can lose replies, misbehave at random, and be cut off.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use crate::random::Random;

/// A running proxy. It is stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    lose_next_reply: AtomicBool,
    mischief: Mutex<Option<Random>>,
    /// How many connections it has broken.
    broken: AtomicU64,
    is_cut: watch::Sender<bool>,
}

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// What becomes of some bytes.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Pass,
    Late(Duration),
    /// One half, and the other one later.
    Halves(Duration),
    /// One half, and the connection ends.
    Half,
    /// The connection ends without them.
    Lost,
}

impl Proxy {
    /// Starts a proxy before the server of this URL.
    pub(crate) async fn start(url: &str) -> Self {
        let server = url.trim_start_matches("redis://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            server,
            lose_next_reply: AtomicBool::new(false),
            mischief: Mutex::new(None),
            broken: AtomicU64::new(0),
            is_cut: watch::Sender::new(false),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { port, shared, task }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Lets the next command reach the server, and cuts the connection instead of passing its reply on.
    pub(crate) fn lose_next_reply(&self) {
        self.shared.lose_next_reply.store(true, Ordering::SeqCst);
    }

    /// From now on delivers late, in halves, half or not at all, as is drawn from a seed.
    pub(crate) fn misbehave(&self, seed: u64) {
        *self.shared.mischief.lock().expect("mischief") = Some(Random::new(seed));
    }

    pub(crate) fn behave(&self) {
        *self.shared.mischief.lock().expect("mischief") = None;
    }

    /// How many connections it has broken so far.
    pub(crate) fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::SeqCst)
    }

    /// From now on nothing comes through, and nobody is told.
    pub(crate) fn cut(&self) {
        self.shared.is_cut.send_replace(true);
    }

    /// What was held up comes through, as the network sends again what was not confirmed.
    pub(crate) fn mend(&self) {
        self.shared.is_cut.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn draw(&self, direction: Direction) -> Fate {
        if direction == Direction::ToClient && self.lose_next_reply.swap(false, Ordering::SeqCst) {
            return Fate::Lost;
        }
        let mut mischief = self.mischief.lock().expect("mischief");
        let Some(random) = mischief.as_mut() else { return Fate::Pass };
        let time = Duration::from_micros(random.next() % 3000);
        match random.below(100) {
            0..2 => Fate::Lost,
            2..4 => Fate::Half,
            4..10 => Fate::Halves(time),
            10..20 => Fate::Late(time),
            _ => Fate::Pass,
        }
    }

    async fn until_mended(&self) {
        let mut is_cut = self.is_cut.subscribe();
        let _ = is_cut.wait_for(|is_cut| !is_cut).await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            shared.until_mended().await;
            if let Ok(server) = TcpStream::connect(&shared.server).await {
                connect(client, server, &shared).await;
            }
        });
    }
}

/// Passes bytes on in both directions until one of them ends.
async fn connect(client: TcpStream, server: TcpStream, shared: &Shared) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        _ = pass_on(from_client, to_server, shared, Direction::ToServer) => {}
        _ = pass_on(from_server, to_client, shared, Direction::ToClient) => {}
    }
}

async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    direction: Direction,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        shared.until_mended().await;
        let (whole, half) = (&bytes[..count], count / 2);
        match shared.draw(direction) {
            Fate::Pass => to.write_all(whole).await?,
            Fate::Late(time) => {
                sleep(time).await;
                to.write_all(whole).await?;
            }
            Fate::Halves(time) => {
                to.write_all(&whole[..half]).await?;
                sleep(time).await;
                to.write_all(&whole[half..]).await?;
            }
            fate @ (Fate::Half | Fate::Lost) => {
                shared.broken.fetch_add(1, Ordering::SeqCst);
                let some = if matches!(fate, Fate::Half) { half } else { 0 };
                return to.write_all(&whole[..some]).await;
            }
        }
    }
}
