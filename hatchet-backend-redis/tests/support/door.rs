//! Where a server of the tests is reached: by programs, and by other servers that copy or watch it. Both can be held up, each for
//! itself, and what programs and the server say to each other can take a while.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::{Builder, sleep, spawn},
    time::Duration,
};

/// A port that leads to a server. Its threads last as long as this process.
#[derive(Debug)]
pub(crate) struct Door {
    port: u16,
    passage: Arc<Passage>,
}

#[derive(Debug, Default)]
struct Passage {
    target: AtomicU16,
    held: Mutex<Held>,
    changed: Condvar,
}

/// Who is held up. What they say is not lost, and comes through later, as a network sends again what was not confirmed.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    programs: bool,
    peers: bool,
    /// How long what is said to programs and by them is on its way.
    delay: Duration,
}

impl Door {
    /// A door without a server behind it yet: a server needs the port of its door when it starts.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let passage = Arc::new(Passage::default());
        let of_listener = Arc::clone(&passage);
        spawn(move || {
            for caller in listener.incoming().flatten() {
                let passage = Arc::clone(&of_listener);
                let _ = thread(move || connect(caller, &passage));
            }
        });
        Self { port, passage }
    }

    pub(crate) fn leads_to(&self, port: u16) {
        self.passage.target.store(port, Ordering::SeqCst);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Holds programs up, or lets them through.
    pub(crate) fn hold_programs(&self, held: bool) {
        self.change(|now| now.programs = held);
    }

    /// Holds up replicas and sentinels, or lets them through.
    pub(crate) fn hold_peers(&self, held: bool) {
        self.change(|now| now.peers = held);
    }

    /// Has what programs and the server say take so long to the other.
    pub(crate) fn delay(&self, delay: Duration) {
        self.change(|now| now.delay = delay);
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.passage.held.lock().expect("who is held up"));
        self.passage.changed.notify_all();
    }
}

impl Passage {
    fn until_open(&self, is_peer: &AtomicBool) {
        let is_held = |held: &mut Held| if is_peer.load(Ordering::SeqCst) { held.peers } else { held.programs };
        let held = self.changed.wait_while(self.held.lock().expect("who is held up"), is_held);
        let delay = held.expect("who is held up").delay;
        if !is_peer.load(Ordering::SeqCst) && !delay.is_zero() {
            sleep(delay);
        }
    }
}

fn connect(caller: TcpStream, passage: &Arc<Passage>) -> Option<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, passage.target.load(Ordering::SeqCst))).ok()?;
    let (back_from, back_to) = (server.try_clone().ok()?, caller.try_clone().ok()?);
    for side in [&server, &caller] {
        side.set_nodelay(true).ok()?;
    }
    let is_peer = Arc::new(AtomicBool::new(false));
    let (of_back, passage_back) = (Arc::clone(&is_peer), Arc::clone(passage));
    thread(move || pass_on(back_from, back_to, &passage_back, |_| &of_back))?;
    let mut begun = 0;
    pass_on(caller, server, passage, |bytes| {
        // Replicas and sentinels say who they are before anything else.
        if begun < 4096 {
            begun += bytes.len();
            let says = |word: &[u8]| bytes.windows(word.len()).any(|part| part == word);
            is_peer.fetch_or(says(b"REPLCONF") || says(b"sentinel-"), Ordering::SeqCst);
        }
        &is_peer
    })
}

fn pass_on<'a>(
    mut from: TcpStream,
    mut to: TcpStream,
    passage: &Passage,
    mut who_says: impl FnMut(&[u8]) -> &'a AtomicBool,
) -> Option<()> {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        passage.until_open(who_says(&bytes[..count]));
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    None
}

/// There are two of them for each connection.
fn thread(work: impl FnOnce() -> Option<()> + Send + 'static) -> Option<()> {
    Builder::new().stack_size(128 << 10).spawn(work).ok().map(drop)
}
