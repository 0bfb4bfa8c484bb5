//! TLS, with certificates that the tests make.

#![cfg(feature = "tls")]

#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{path::Path, process::Command};

use hatchet_backend_redis::{Options, RedisBackend};
use server::{Server, free_port};
use session::{Session, told};

/// Runs openssl.
fn openssl(directory: &Path, words: &str) {
    let output = Command::new("openssl").current_dir(directory).args(words.split(' ')).output();
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes an authority, `ca.crt`, and a certificate of this machine that it has signed, `server.crt`.
fn make_certificates(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(directory, &format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority"));
    openssl(directory, &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    std::fs::write(directory.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1").expect("a file");
    openssl(
        directory,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
    );
}

struct World {
    directory: tempdir::Directory,
    _server: Server,
    port: u16,
}

impl World {
    fn new() -> Self {
        let directory = tempdir::Directory::new();
        make_certificates(&directory.0);
        let port = free_port();
        let file = |name: &str| directory.0.join(name).to_str().expect("a path").to_owned();
        let server = Server::start(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.crt"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.crt"),
            "--tls-auth-clients",
            "no",
        ]);
        Self { directory, _server: server, port }
    }

    fn url(&self) -> String {
        format!("rediss://localhost:{}?ca={}", self.port, self.directory.0.join("ca.crt").display())
    }
}

mod tempdir {
    //! A directory that is gone with the test.

    pub(crate) struct Directory(pub(crate) std::path::PathBuf);

    impl Directory {
        pub(crate) fn new() -> Self {
            let name = format!("hatchet-tls-{}", hatchet_core::backend::RunId::random());
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&directory).expect("a directory");
            Self(directory)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[tokio::test]
async fn runs_go_through_tls() {
    let world = World::new();
    let session = Session::open(&world.url()).await;
    session.start(10).await;
    let tasks = session.claim(100).await;
    assert_eq!(tasks.len(), 10);
    session.end(&tasks).await;
    session.check().await;
}

#[tokio::test]
async fn a_server_that_no_known_authority_vouches_for_is_refused() {
    let world = World::new();
    let url = format!("rediss://localhost:{}", world.port);
    let error = RedisBackend::connect(Options::from_url(&url).unwrap()).await.expect_err("nobody vouches for it");
    assert!(told(&error).to_lowercase().contains("certificate"), "{}", told(&error));
}

#[tokio::test]
async fn certificates_that_are_not_there_are_named() {
    let options = Options::from_url("rediss://localhost:1?ca=/nowhere/ca.crt").unwrap();
    let error = RedisBackend::connect(options).await.expect_err("no such file");
    assert!(told(&error).contains("/nowhere/ca.crt"), "{}", told(&error));
}
