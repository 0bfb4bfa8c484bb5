//! TLS, with certificates that the tests make.

#![cfg(feature = "tls")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{path::Path, process::Command, time::Duration};

use cluster::ask;
use hatchet_backend_redis::{Options, RedisBackend};
use server::{Server, free_port};
use session::{Session, told};

/// Runs openssl.
fn openssl(directory: &Path, words: &str) {
    let output = Command::new("openssl").current_dir(directory).args(words.split(' ')).output();
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes an authority, `ca.crt`, and a certificate for these names that it has signed, `server.crt`.
fn make_certificates(directory: &Path, names: &str) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(directory, &format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority"));
    openssl(directory, &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    std::fs::write(directory.join("names"), format!("subjectAltName={names}")).expect("a file");
    openssl(
        directory,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
    );
}

const THIS_MACHINE: &str = "DNS:localhost,IP:127.0.0.1";

/// Certificates, with an authority for them.
struct Certificates(tempdir::Directory);

impl Certificates {
    fn new(names: &str) -> Self {
        let directory = tempdir::Directory::new();
        make_certificates(&directory.0, names);
        Self(directory)
    }

    fn file(&self, name: &str) -> String {
        self.0.0.join(name).to_str().expect("a path").to_owned()
    }

    /// Starts a server that listens on this port for TLS. Clients need no certificate.
    fn start(&self, port: u16, start: impl FnOnce(&[&str]) -> Server) -> Server {
        let words = self.settings(port).map(|(name, value)| [format!("--{name}"), value]);
        start(&words.as_flattened().iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn settings(&self, port: u16) -> [(&str, String); 5] {
        [
            ("tls-port", port.to_string()),
            ("tls-cert-file", self.file("server.crt")),
            ("tls-key-file", self.file("server.key")),
            ("tls-ca-cert-file", self.file("ca.crt")),
            ("tls-auth-clients", "no".to_owned()),
        ]
    }

    /// Names this port of the machine by the scheme, and the authority.
    fn url(&self, scheme: &str, port: u16) -> String {
        format!("{scheme}://localhost:{port}?ca={}", self.file("ca.crt"))
    }
}

async fn live(session: &Session) {
    session.start(10).await;
    let tasks = session.claim(100).await;
    assert_eq!(tasks.len(), 10);
    session.end(&tasks).await;
    session.check().await;
}

async fn refusal(url: &str) -> String {
    let options = Options::from_url(url).expect("a URL").patience(Duration::ZERO);
    told(&RedisBackend::connect(options).await.expect_err("a refusal"))
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
    let (certificates, port) = (Certificates::new(THIS_MACHINE), free_port());
    let _server = certificates.start(port, Server::start);
    live(&Session::open(&certificates.url("rediss", port)).await).await;
}

#[tokio::test]
async fn the_nodes_of_a_cluster_are_reached_through_tls() {
    let (certificates, port) = (Certificates::new(THIS_MACHINE), free_port());
    let node = certificates.start(port, |settings| {
        Server::start_node(&[settings, &["--tls-cluster", "yes", "--cluster-announce-ip", "127.0.0.1"]].concat())
    });
    ask(&node, &["cluster", "addslotsrange", "0", "16383"]);
    live(&Session::open(&certificates.url("rediss-cluster", port)).await).await;
}

#[tokio::test]
async fn sentinels_and_the_master_they_know_are_reached_through_tls() {
    let certificates = Certificates::new(THIS_MACHINE);
    let (port, port_of_sentinel) = (free_port(), free_port());
    let master = certificates.start(port, Server::start);
    let settings = certificates.settings(port_of_sentinel).map(|(name, value)| format!("{name} {value}"));
    let settings = [&settings.each_ref().map(String::as_str)[..], &["tls-replication yes"]].concat();
    let _sentinel = Server::start_sentinel_with(&master, port, &settings);
    let url = format!("{}&service=main", certificates.url("rediss-sentinel", port_of_sentinel));
    live(&Session::open(&url).await).await;
}

#[tokio::test]
async fn a_server_that_no_known_authority_vouches_for_is_refused() {
    let (certificates, port) = (Certificates::new(THIS_MACHINE), free_port());
    let _server = certificates.start(port, Server::start);
    let told = refusal(&format!("rediss://localhost:{port}")).await;
    assert!(told.to_lowercase().contains("certificate"), "{told}");
}

#[tokio::test]
async fn a_server_with_the_certificate_of_another_is_refused() {
    let (certificates, port) = (Certificates::new("DNS:elsewhere.example"), free_port());
    let _server = certificates.start(port, Server::start);
    let told = refusal(&certificates.url("rediss", port)).await;
    assert!(told.contains("not valid for name"), "{told}");
}

#[tokio::test]
async fn certificates_that_are_not_there_are_named() {
    let told = refusal("rediss://localhost:1?ca=/nowhere/ca.crt").await;
    assert!(told.contains("/nowhere/ca.crt"), "{told}");
}

/// Why there is no connection, and that nobody waits for it to come.
async fn refusal_at_once(url: &str) -> String {
    let options = Options::from_url(url).expect("a URL").patience(Duration::from_secs(60));
    let began = std::time::Instant::now();
    let told = told(&RedisBackend::connect(options).await.expect_err("a refusal"));
    assert!(began.elapsed() < Duration::from_secs(30), "{told}");
    told
}

#[tokio::test]
async fn what_only_other_settings_mend_is_said_at_once_with_what_to_change() {
    let (certificates, port) = (Certificates::new(THIS_MACHINE), free_port());
    let server = certificates.start(port, Server::start);
    let told = refusal_at_once(&format!("rediss://localhost:{port}")).await;
    assert!(told.contains("set ca= to a file"), "{told}");
    let others = Certificates::new(THIS_MACHINE);
    let told = refusal_at_once(&others.url("rediss", port)).await;
    assert!(told.contains("not signed by a CA in /") && told.contains("ca.crt"), "{told}");
    let told = refusal_at_once(&others.url("rediss-cluster", port)).await;
    assert!(told.contains("not signed by a CA in /"), "{told}");
    std::fs::write(others.file("ca.crt"), "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
        .expect("a file");
    let told = refusal_at_once(&others.url("rediss", port)).await;
    assert!(told.contains("ca.crt"), "{told}");
    for scheme in ["redis", "redis-cluster"] {
        let told = refusal_at_once(&format!("{scheme}://localhost:{port}")).await;
        assert!(told.contains("uses TLS on this port"), "{told}");
    }
    for scheme in ["rediss", "rediss-cluster"] {
        let told = refusal_at_once(&certificates.url(scheme, server.port())).await;
        assert!(told.contains("does not use TLS on this port"), "{told}");
    }
}

#[tokio::test]
async fn a_server_with_the_certificate_of_another_is_refused_at_once() {
    let (certificates, port) = (Certificates::new("DNS:elsewhere.example"), free_port());
    let _server = certificates.start(port, Server::start);
    let told = refusal_at_once(&certificates.url("rediss", port)).await;
    assert!(told.contains("not valid for name"), "{told}");
}
