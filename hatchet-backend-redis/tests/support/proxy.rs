//! A TCP proxy before a server, which can lose replies.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A running proxy. It is stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy before the server of this URL.
    pub(crate) async fn start(url: &str) -> Self {
        let server = url.trim_start_matches("redis://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let cut = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(accept(listener, server, Arc::clone(&cut)));
        Self { port, cut, task }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Lets the next command reach the server, and cuts the connection instead of passing its reply on.
    pub(crate) fn lose_next_reply(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: String, cut: Arc<AtomicBool>) {
    while let Ok((client, _)) = listener.accept().await {
        if let Ok(server) = TcpStream::connect(&server).await {
            tokio::spawn(pass_on(client, server, Arc::clone(&cut)));
        }
    }
}

async fn pass_on(mut client: TcpStream, mut server: TcpStream, cut: Arc<AtomicBool>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            Ok(n) = client.read(&mut up) => {
                if n == 0 || server.write_all(&up[..n]).await.is_err() {
                    return;
                }
            }
            Ok(n) = server.read(&mut down) => {
                if n == 0 || cut.swap(false, Ordering::SeqCst) || client.write_all(&down[..n]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}
