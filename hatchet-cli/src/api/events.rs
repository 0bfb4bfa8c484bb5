//! Server-sent events, as a body brings them.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::MOST_BYTES;
use crate::failure::{Failure, Outcome};

/// How long a stream may be silent. The server writes something every 15 seconds, so that nobody in between gives up.
const SILENCE: Duration = Duration::from_secs(45);

/// A stream of events.
pub(crate) struct Events {
    body: Body,
    /// What has arrived and is not a whole event yet.
    read: Vec<u8>,
    /// Who sends them, for people.
    name: String,
}

/// An event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) data: String,
}

impl Events {
    pub(super) fn new(body: Body, name: String) -> Self {
        Self { body, read: Vec::new(), name }
    }

    /// The next event. `None` at the end.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped.
    pub(crate) async fn next(&mut self) -> Outcome<Option<Event>> {
        loop {
            while let Some(block) = self.block() {
                if let Some(event) = parsed(&block) {
                    return Ok(Some(event));
                }
            }
            let frame = timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| Failure::Unreachable(format!("{} is silent", self.name)))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|_| Failure::Unreachable(format!("{} broke off", self.name)))?;
            self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
            if self.read.len() > MOST_BYTES {
                return Err(Failure::No("the answer is too large".to_owned()));
            }
        }
    }

    /// Takes what is before the next empty line.
    fn block(&mut self) -> Option<String> {
        let ends = [&b"\n\n"[..], b"\r\n\r\n"];
        let (at, length) = ends
            .into_iter()
            .filter_map(|end| Some((self.read.windows(end.len()).position(|bytes| bytes == end)?, end.len())))
            .min()?;
        let block: Vec<u8> = self.read.drain(..at + length).collect();
        Some(String::from_utf8_lossy(&block).into_owned())
    }
}

/// The event of a block. `None` if it is only a comment.
fn parsed(block: &str) -> Option<Event> {
    let (mut kind, mut data) = (String::from("message"), Vec::new());
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value.to_owned(),
            "data" => data.push(value),
            _ => {}
        }
    }
    (!data.is_empty()).then(|| Event { kind, data: data.join("\n") })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn events_are_read_however_they_are_cut() {
        let text = ": hello\n\nevent: run\nid: 7\ndata: {\"a\":\ndata: 1}\n\n:\n\nevent:run\r\ndata:é\r\n\r\nevent: run\ndata: half";
        for size in 1..text.len() {
            let parts: Vec<_> =
                text.as_bytes().chunks(size).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
            let mut events = Events::new(Body::from_stream(stream::iter(parts)), "x".to_owned());
            let mut seen = Vec::new();
            while let Some(event) = events.next().await.unwrap() {
                assert_eq!(event.kind, "run");
                seen.push(event.data);
            }
            assert_eq!(seen, ["{\"a\":\n1}", "é"], "in parts of {size}");
        }
    }
}
