//! A TCP proxy before a server, which can lose replies, misbehave at random, and be cut off. What becomes of bytes is
//! decided for a command or a reply as a whole.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    collections::VecDeque,
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
    mischief: Mutex<Option<Mischief>>,
    /// How many connections it has broken.
    broken: AtomicU64,
    is_cut: watch::Sender<bool>,
}

#[derive(Debug)]
struct Mischief {
    random: Random,
    /// In how many of a hundred cases something is lost as a whole, and in how many one half of it.
    losses: usize,
    losable: fn(&str) -> Losable,
}

/// What may be lost of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Losable {
    /// It and its reply.
    Both,
    /// It, but not what the server replies to it.
    Request,
    Nothing,
}

/// The commands of a connection to which no reply has come, in their order.
type UnderWay = Mutex<VecDeque<Losable>>;

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// What becomes of a command or a reply.
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
        self.begin(Mischief { random: Random::new(seed), losses: 2, losable: |_| Losable::Both });
    }

    /// The same, but loses less, and of each command what this says by its name, or by that of the function which it calls.
    pub(crate) fn lose(&self, seed: u64, losable: fn(&str) -> Losable) {
        self.begin(Mischief { random: Random::new(seed), losses: 1, losable });
    }

    fn begin(&self, mischief: Mischief) {
        *self.shared.mischief.lock().expect("mischief") = Some(mischief);
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
    fn draw(&self, direction: Direction, message: &[u8], under_way: &UnderWay) -> Fate {
        let mut mischief = self.mischief.lock().expect("mischief");
        let may_break = may_break(direction, message, under_way, mischief.as_ref());
        if direction == Direction::ToClient && self.lose_next_reply.swap(false, Ordering::SeqCst) {
            return Fate::Lost;
        }
        let Some(Mischief { random, losses, .. }) = mischief.as_mut() else { return Fate::Pass };
        let time = Duration::from_micros(random.next() % 3000);
        match random.below(100) {
            drawn if drawn < *losses && may_break => Fate::Lost,
            drawn if drawn < 2 * *losses && may_break => Fate::Half,
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

/// Notes a command as under way until its reply was passed on; whether the connection may be broken instead of passing this on. What
/// else is under way is lost with it.
fn may_break(direction: Direction, message: &[u8], under_way: &UnderWay, mischief: Option<&Mischief>) -> bool {
    let mut under_way = under_way.lock().expect("what is under way");
    let loses_no_more = under_way.iter().all(|losable| *losable == Losable::Both);
    match direction {
        Direction::ToServer => {
            let losable = mischief.map_or(Losable::Both, |mischief| (mischief.losable)(&name_of(message)));
            under_way.push_back(losable);
            loses_no_more && losable != Losable::Nothing
        }
        Direction::ToClient => loses_no_more,
    }
}

/// The name of a command; for the call of a function, that of the function.
fn name_of(command: &[u8]) -> String {
    let mut words = command.split(|byte| *byte == b'\n').skip(2).step_by(2);
    let name = words.next().filter(|name| !name.eq_ignore_ascii_case(b"FCALL\r")).or_else(|| words.next());
    String::from_utf8_lossy(name.unwrap_or_default()).trim_end().to_owned()
}

/// Where the command or the reply ends that begins at this place; `None` if not all of it is there.
fn end_of(bytes: &[u8], begin: usize) -> Option<usize> {
    let line = bytes[begin..].iter().position(|byte| *byte == b'\n')?;
    let next = begin + line + 1;
    let number = || std::str::from_utf8(&bytes[begin + 1..next]).ok()?.trim_end().parse::<usize>().ok();
    match bytes[begin] {
        // A number below zero stands for nothing.
        b'$' => Some(number().map_or(next, |length| next + length + 2)).filter(|end| *end <= bytes.len()),
        b'*' => (0..number().unwrap_or(0)).try_fold(next, |at, _| end_of(bytes, at)),
        _ => Some(next),
    }
}

/// Passes bytes on in both directions until one of them ends.
async fn connect(client: TcpStream, server: TcpStream, shared: &Shared) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let under_way = UnderWay::default();
    tokio::select! {
        _ = pass_on(from_client, to_server, shared, Direction::ToServer, &under_way) => {}
        _ = pass_on(from_server, to_client, shared, Direction::ToClient, &under_way) => {}
    }
}

async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    direction: Direction,
    under_way: &UnderWay,
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(1 << 16);
    loop {
        let Some(end) = end_of(&bytes, 0) else {
            if from.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let message: Vec<u8> = bytes.drain(..end).collect();
        shared.until_mended().await;
        let (first, second) = message.split_at(end / 2);
        match shared.draw(direction, &message, under_way) {
            Fate::Pass => to.write_all(&message).await?,
            Fate::Late(time) => {
                sleep(time).await;
                to.write_all(&message).await?;
            }
            Fate::Halves(time) => {
                to.write_all(first).await?;
                sleep(time).await;
                to.write_all(second).await?;
            }
            fate @ (Fate::Half | Fate::Lost) => {
                shared.broken.fetch_add(1, Ordering::SeqCst);
                let some = if matches!(fate, Fate::Half) { first } else { &[] };
                return to.write_all(some).await;
            }
        }
        if direction == Direction::ToClient {
            under_way.lock().expect("what is under way").pop_front();
        }
    }
}
