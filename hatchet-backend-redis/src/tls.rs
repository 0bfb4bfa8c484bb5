//! Why there is no connection where only a change of the settings helps: certificates that are not accepted, TLS where the server
//! speaks none, and none where it does.

use std::time::Duration;

use futures_util::future::join_all;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, RedisError};

use crate::{error::Error, options::Options};

/// How long a server may take to answer in the other way.
const LIMIT: Duration = Duration::from_secs(1);

/// The same error, or what to change.
pub(crate) async fn explained(error: Error, options: &Options) -> Error {
    if let Error::Redis(failed) = &error
        && let Some(fault) = fault(failed)
    {
        let authority = options.authority.as_ref().map(|file| file.display().to_string());
        return Error::Settings(match (fault, authority) {
            (Fault::Unknown, Some(file)) => format!("{error}: the certificate is not signed by a CA in {file}"),
            (Fault::Unknown, None) => {
                format!(
                    "{error}: the certificate is not signed by a CA of the system; set ca= to a file with the right CA"
                )
            }
            (Fault::Certificate, _) => format!("{error}: the server's certificate is not valid"),
            (Fault::NoTls, _) => {
                format!("{error}: the server does not use TLS on this port: use redis:// instead of rediss://")
            }
            (Fault::Refused, _) => format!("{error}: the server rejected the TLS handshake"),
        });
    }
    if !error.is_silence() {
        return error;
    }
    let other = join_all(options.servers.iter().map(speaks_otherwise)).await;
    other.into_iter().flatten().next().unwrap_or(error)
}

/// What is wrong with TLS.
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "without TLS nothing is"))]
enum Fault {
    /// Nobody known has signed the certificate.
    Unknown,
    Certificate,
    NoTls,
    Refused,
}

#[cfg(feature = "tls")]
fn fault(error: &RedisError) -> Option<Fault> {
    use std::{error::Error as _, sync::Arc};

    use rustls::{CertificateError, Error as Tls};
    // The client library shows the cause behind a pointer.
    let cause = error.source()?.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
    let io = cause.downcast_ref::<std::io::Error>()?;
    match io.get_ref()?.downcast_ref::<Tls>()? {
        // The second one is that of a namesake.
        Tls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            Some(Fault::Unknown)
        }
        Tls::InvalidCertificate(_) => Some(Fault::Certificate),
        Tls::InvalidMessage(_) => Some(Fault::NoTls),
        Tls::AlertReceived(_) => Some(Fault::Refused),
        _ => None,
    }
}

#[cfg(not(feature = "tls"))]
fn fault(_: &RedisError) -> Option<Fault> {
    None
}

/// What to change, where a server speaks TLS and is named without, or the other way round.
async fn speaks_otherwise(server: &ConnectionInfo) -> Option<Error> {
    let (address, plain) = (server.addr().to_string(), server.addr());
    let (otherwise, hint) = match plain {
        ConnectionAddr::TcpTls { host, port, .. } => (
            ConnectionAddr::Tcp(host.clone(), *port),
            "does not use TLS on this port: use redis:// instead of rediss://",
        ),
        ConnectionAddr::Tcp(host, port) if cfg!(feature = "tls") => (
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
            "uses TLS on this port: use rediss:// instead of redis://",
        ),
        _ => return None,
    };
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(LIMIT)).set_response_timeout(Some(LIMIT));
    // No password goes where it may be read.
    let other = server.clone().set_addr(otherwise).set_redis_settings(redis::RedisConnectionInfo::default());
    let answers = match redis::Client::open(other).ok()?.get_multiplexed_async_connection_with_config(&config).await {
        Ok(mut connection) => match redis::cmd("PING").exec_async(&mut connection).await {
            Ok(()) => true,
            Err(error) => error.code().is_some(),
        },
        Err(error) => error.code().is_some() || matches!(fault(&error), Some(Fault::Unknown | Fault::Certificate)),
    };
    answers.then(|| Error::Settings(format!("redis at {address} {hint}")))
}
