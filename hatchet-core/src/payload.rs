//! Payloads: what runs take and give, as JSON text that everything below the codec treats as opaque bytes.
//!
//! JSON because it can be read in a console, survives new optional fields, and round-trips every integer. Backends and
//! scripts never look into it.

use std::{cell::Cell, ops::Range};

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::hash::{combine64, hash64};

/// The JSON text of a value, cheap to clone.
pub type Payload = Bytes;

/// The largest payload that is accepted unless a worker or client says otherwise: 4 MiB.
pub const DEFAULT_MAX_PAYLOAD: usize = 4 << 20;

/// A value could not be turned into a payload, or a payload into the type that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The value has no JSON form, for example a map whose keys are not strings.
    #[error("{what} cannot be written as JSON")]
    Encode {
        /// What the value was.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The JSON is not of the declared type.
    #[error("{what} is not a {expected}")]
    Decode {
        /// What the payload was.
        what: String,
        /// The type that was declared.
        expected: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The payload is larger than the limit. Store large data elsewhere and pass a reference to it.
    #[error("{what} has {size} bytes, more than the limit of {limit}: store it elsewhere and pass a reference")]
    TooLarge {
        /// What the payload was.
        what: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Encodes `value`; `what` names it in errors.
pub(crate) fn encode<T: Serialize + ?Sized>(what: &str, value: &T, limit: usize) -> Result<Payload, PayloadError> {
    let mut desk = DESK.take();
    desk.text.clear();
    // What is encoded meanwhile, by the value itself, has a desk of its own.
    encode_into(&mut desk.text, what, value, limit)?;
    let payload = desk.copy();
    DESK.set(desk);
    Ok(payload)
}

thread_local! {
    static DESK: Cell<Desk> = Cell::default();
}

/// Where a thread encodes payloads: small ones that are made one after the other share a block of memory, since a block for
/// each takes longer than all the rest, and more room than they have text.
#[derive(Default)]
struct Desk {
    text: Vec<u8>,
    /// What is left of the block.
    block: BytesMut,
}

impl Desk {
    /// The most that one small payload which is kept for long keeps in memory.
    const BLOCK: usize = 4096;
    /// Beyond this a payload has memory of its own.
    const SMALL: usize = 256;

    /// The text as a payload.
    fn copy(&mut self) -> Payload {
        if self.text.len() > Self::SMALL {
            // A large text leaves no large desk.
            return if self.text.len() > Self::BLOCK {
                Bytes::from(std::mem::take(&mut self.text).into_boxed_slice())
            } else {
                Bytes::copy_from_slice(&self.text)
            };
        }
        if self.block.capacity() < self.text.len() {
            self.block = BytesMut::with_capacity(Self::BLOCK);
        }
        self.block.extend_from_slice(&self.text);
        self.block.split().freeze()
    }
}

/// Encodes `value` behind what is in `texts`, so that many payloads can share one allocation.
pub(crate) fn encode_into<T: Serialize + ?Sized>(
    texts: &mut Vec<u8>,
    what: &str,
    value: &T,
    limit: usize,
) -> Result<Range<usize>, PayloadError> {
    let start = texts.len();
    serde_json::to_writer(&mut *texts, value)
        .map_err(|source| PayloadError::Encode { what: what.to_owned(), source })?;
    let size = texts.len() - start;
    if size > limit {
        return Err(PayloadError::TooLarge { what: what.to_owned(), size, limit });
    }
    Ok(start..texts.len())
}

/// Decodes `payload`; `what` names it in errors.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, payload: &[u8]) -> Result<T, PayloadError> {
    // The text is checked as a whole, which is quicker than string by string; one that is none is refused with the place.
    let decoded = match std::str::from_utf8(payload) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(payload),
    };
    decoded.map_err(|source| PayloadError::Decode {
        what: what.to_owned(),
        expected: std::any::type_name::<T>(),
        source,
    })
}

/// A hash of a JSON text that does not depend on the order of an object's fields, since that of a map varies, nor on white space.
///
/// Takes well-formed JSON; of other bytes it gives some number. A text may be nested deeper than a thread's stack is, so the open
/// objects and arrays are on one of our own.
pub(crate) fn fingerprint(json: &[u8]) -> u64 {
    let mut whole = Open::Array(0);
    // The innermost one apart, since few texts are nested deeper than that.
    let (mut inner, mut outer): (Option<Open>, Vec<Open>) = (None, Vec::new());
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let start = at;
        at += 1;
        let value = match byte {
            b'{' | b'[' => {
                let opened = if *byte == b'{' { Open::Object { sum: 1, key: None } } else { Open::Array(2) };
                outer.extend(inner.replace(opened));
                continue;
            }
            b'}' | b']' => match std::mem::replace(&mut inner, outer.pop()) {
                Some(closed) => closed.hash(),
                None => continue,
            },
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => continue,
            _ => {
                at = end_of_scalar(json, start);
                hash64(3, &json[start..at])
            }
        };
        inner.as_mut().unwrap_or(&mut whole).take(value);
    }
    whole.hash()
}

/// An object or array as far as it was read.
enum Open {
    Object { sum: u64, key: Option<u64> },
    Array(u64),
}

impl Open {
    /// Takes in the hash of an element, of a field's key, or of the value that belongs to the key before it.
    fn take(&mut self, hash: u64) {
        match self {
            Self::Object { sum, key } => match key.take() {
                None => *key = Some(hash),
                // A sum, so that the order of the fields does not matter.
                Some(key) => *sum = sum.wrapping_add(combine64(key, hash)),
            },
            Self::Array(all) => *all = combine64(*all, hash),
        }
    }

    fn hash(self) -> u64 {
        match self {
            Self::Object { sum, .. } => combine64(1, sum),
            Self::Array(hash) => hash,
        }
    }
}

fn end_of_scalar(json: &[u8], start: usize) -> usize {
    let mut rest = json[start + 1..].iter();
    if json[start] == b'"' {
        while let Some(byte) = rest.next() {
            match byte {
                b'"' => break,
                b'\\' => drop(rest.next()),
                _ => {}
            }
        }
        return json.len() - rest.len();
    }
    let length = rest.position(|byte| matches!(byte, b',' | b'}' | b']' | b':' | b' ' | b'\t' | b'\r' | b'\n'));
    length.map_or(json.len(), |length| start + 1 + length)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(text: &str) -> u64 {
        fingerprint(text.as_bytes())
    }

    #[test]
    fn the_order_of_fields_does_not_change_a_fingerprint() {
        assert_eq!(of(r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#), of(r#"{"b":{"d":"x","c":[1,2]},"a":1}"#));
    }

    #[test]
    fn white_space_does_not_change_a_fingerprint() {
        assert_eq!(of(r#"{"a":[1,"b c"]}"#), of(" {\n\t\"a\" : [ 1 ,\r\n\"b c\"] } "));
        assert_ne!(of(r#"["b c"]"#), of(r#"["bc"]"#));
    }

    #[test]
    fn a_fingerprint_takes_any_depth() {
        let nested = |depth| of(&format!("{}1{}", "[".repeat(depth), "]".repeat(depth)));
        assert_ne!(nested(1_000_000), nested(999_999));
    }

    #[test]
    fn different_values_have_different_fingerprints() {
        let texts = [
            "1",
            "\"1\"",
            "[1]",
            "[1,2]",
            "[2,1]",
            "[[1],2]",
            "{}",
            "[]",
            "null",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"1":"a"}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":1,"b":1}"#,
            r#"{"a":[1,2]}"#,
            r#""a\"b""#,
            r#""a\\""#,
            r#"["a","b"]"#,
            r#"["a,b"]"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            "\"\"",
            r#"{"":0}"#,
        ];
        let distinct: std::collections::BTreeSet<_> = texts.iter().map(|text| of(text)).collect();
        assert_eq!(distinct.len(), texts.len());
    }

    #[test]
    fn a_fingerprint_of_any_bytes_ends() {
        for text in ["{", "[", "\"", "{\"a\":", "}", "]]", ",,", "{,}", "\"\\", "1 2", "{\"a\"}"] {
            of(text);
        }
    }

    #[test]
    fn payloads_of_any_size_keep_their_text_side_by_side() {
        let texts: Vec<String> = (0..2000).map(|n| "x".repeat(n * n % 5000)).collect();
        let payloads: Vec<_> = texts.iter().map(|text| encode("input", text, usize::MAX).unwrap()).collect();
        for (text, payload) in texts.iter().zip(payloads) {
            assert_eq!(decode::<String>("input", &payload).unwrap(), *text);
        }
    }

    #[test]
    fn a_payload_that_cannot_be_encoded_leaves_no_trace() {
        let keys = std::collections::HashMap::from([((1, 2), 3)]);
        let list = (json!("begun"), keys);
        assert!(matches!(encode("input", &list, 100), Err(PayloadError::Encode { .. })));
        assert_eq!(&encode("input", &json!(1), 100).unwrap()[..], b"1");
    }

    #[test]
    fn a_value_may_encode_others_while_it_is_encoded() {
        struct Nested;
        impl Serialize for Nested {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let inner = encode("inner", &"inner", 100).unwrap();
                assert_eq!(&inner[..], b"\"inner\"");
                serializer.serialize_str("outer")
            }
        }
        assert_eq!(&encode("input", &[Nested, Nested], 100).unwrap()[..], br#"["outer","outer"]"#);
    }

    #[test]
    fn a_payload_over_the_limit_names_its_size() {
        let error = encode("input", &json!("12345678"), 9).unwrap_err();
        assert!(matches!(error, PayloadError::TooLarge { size: 10, limit: 9, .. }), "{error}");
        assert!(encode("input", &json!("1234567"), 9).is_ok());
    }

    #[test]
    fn a_payload_of_another_type_says_which_was_declared() {
        let error = decode::<u32>("input", b"\"x\"").unwrap_err();
        assert_eq!(error.to_string(), "input is not a u32");
    }
}
