//! Payloads: what runs take and give, as JSON text that everything below the codec treats as opaque bytes.
//!
//! JSON because it can be read in a console, survives new optional fields, and round-trips every integer. Backends and
//! scripts never look into it.
//!
//! What would not come back as it went in is refused when it is encoded, since nobody could read it later.

mod inspect;

use std::{cell::Cell, error::Error as StdError, fmt, io, ops::Range};

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::ser::Formatter;

use crate::{
    failure::said::shown,
    hash::{combine64, hash64},
};

/// The JSON text of a value, cheap to clone.
pub type Payload = Bytes;

/// The default maximum payload size: 4 MiB. A client or a worker can set another one.
pub const DEFAULT_MAX_PAYLOAD: usize = 4 << 20;

/// A value could not be encoded as a payload, or a payload could not be decoded as the requested type.
#[derive(Debug)]
#[non_exhaustive]
pub enum PayloadError {
    /// The value has no JSON form, or could not be read back unchanged. Nothing was stored.
    #[non_exhaustive]
    Encode {
        /// What the value is, such as "the input".
        what: String,
        /// The path inside the value, such as `input.readings[3].value`. The root is called `input`, `output`,
        /// `result`, `signal`, `details` or `value`.
        path: String,
        /// The reason.
        why: Unfaithful,
    },
    /// The JSON does not have the declared type.
    Decode {
        /// What the payload is, such as "the output".
        what: String,
        /// The declared type.
        expected: &'static str,
        /// The position and the reason.
        source: serde_json::Error,
    },
    /// A signal does not have the type that the step awaits. The step fails with this error as with any other and may
    /// be retried. A retry takes the same signal if it can be decoded by then (for example after a deployment), and
    /// otherwise the next signal.
    #[non_exhaustive]
    Signal {
        /// The name of the signal.
        signal: String,
        /// The awaited type.
        expected: &'static str,
        /// The position and the reason.
        source: serde_json::Error,
    },
    /// The payload exceeds the size limit. Store large data elsewhere and pass a reference to it.
    TooLarge {
        /// What the payload is, such as "the input".
        what: String,
        /// The size of the payload in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encode { what, path, why } => write!(f, "{what} cannot be stored as JSON: {path}: {why}"),
            Self::Decode { what, expected, .. } => write!(f, "{what} is not a {expected}"),
            Self::Signal { signal, expected, .. } => {
                write!(f, "signal {signal:?} is not a {expected}: send one of that type, and the next attempt takes it")
            }
            Self::TooLarge { what, size, limit } => {
                let advice = "store it elsewhere and pass a reference";
                write!(f, "{what} has {size} bytes, more than the limit of {limit}: {advice}")
            }
        }
    }
}

impl StdError for PayloadError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        shown(self).or(match self {
            Self::Decode { source, .. } | Self::Signal { source, .. } => Some(source as _),
            _ => None,
        })
    }
}

/// Why a value cannot be stored as JSON.
///
/// The check sees only what `Serialize` produces. It does not detect:
///
/// * types whose `Deserialize` does not accept the output of their `Serialize`;
/// * untagged enums whose value is read as another variant;
/// * skipped fields.
///
/// If a type has its own `Deserialize` that distinguishes `Some(None)` from `None` by a missing field, give it a
/// `Serialize` that writes the inner value without a call to `serialize_some`. The check then accepts it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Unfaithful {
    /// A number is NaN or infinite. JSON has no such numbers.
    NotFinite(f64),
    /// A `Some` contains a value that is JSON `null`, such as `Some(())`, `Some(None)` or `Some(Value::Null)`. It
    /// would be read back as `None`.
    SomeNull,
    /// Arrays and objects are nested more than 126 levels deep, which cannot be read back.
    TooDeep,
    /// A map has a key that is not a string, a finite number, a `bool` or the name of an enum variant.
    Key,
    /// The value's own `Serialize` returned an error.
    Refused(String),
}

impl fmt::Display for Unfaithful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite(value) => {
                inspect::say_number(*value, f)?;
                f.write_str(" has no JSON form")
            }
            Self::SomeNull => f.write_str("this `Some` would be read back as `None`"),
            Self::TooDeep => write!(f, "it is nested more than {MAX_DEPTH} levels deep, which cannot be read back"),
            Self::Key => {
                f.write_str("a key of this map has no JSON form: use strings or numbers as keys, or a list of pairs")
            }
            Self::Refused(message) => f.write_str(message),
        }
    }
}

/// How deep arrays and objects may be nested. What is read may have 127 levels, and the outputs of several last steps get one more
/// around them.
const MAX_DEPTH: usize = 126;

/// Encodes `value`, unless it would not come back as it is; `what` names it in errors.
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
    let mut seen = Seen::default();
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut *texts, Watch(&mut seen)));
    if written.is_err() || seen.nulls {
        refuse_unfaithful(what, value, written)?;
    }
    let size = texts.len() - start;
    if size > limit {
        return Err(PayloadError::TooLarge { what: what.to_owned(), size, limit });
    }
    Ok(start..texts.len())
}

/// Gives the error if `value`, which was written like this, would not come back as it is.
#[cold]
fn refuse_unfaithful<T: Serialize + ?Sized>(
    what: &str,
    value: &T,
    written: Result<(), serde_json::Error>,
) -> Result<(), PayloadError> {
    let keys = if written.is_err() { inspect::Keys::Look } else { inspect::Keys::Trust };
    let found = inspect::fault(value, keys);
    let found = found.or_else(|| {
        let error = written.err()?;
        let why = if error.is_io() { Unfaithful::TooDeep } else { Unfaithful::Refused(error.to_string()) };
        Some((String::new(), why))
    });
    match found {
        Some((path, why)) => {
            Err(PayloadError::Encode { what: what.to_owned(), path: format!("{}{path}", root(what)), why })
        }
        None => Ok(()),
    }
}

/// How a path calls the value itself.
fn root(what: &str) -> &'static str {
    const ROOTS: [&str; 5] = ["input", "output", "result", "signal", "details"];
    // What is quoted is a user's.
    let own = what.split('"').next().unwrap_or_default();
    ROOTS.into_iter().find(|root| own.contains(root)).unwrap_or("value")
}

/// What was seen while a value was written.
#[derive(Default)]
struct Seen {
    /// How many arrays and objects are open.
    depth: usize,
    /// Whether there was a `null`: an innocent one, a number that JSON does not have, or a `Some` that would not come back.
    nulls: bool,
}

impl Seen {
    fn open(&mut self) -> io::Result<()> {
        self.depth += 1;
        // Before the writer's own stack is at its end.
        if self.depth > MAX_DEPTH { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }
}

/// Writes compactly, and takes notice. That costs nothing to speak of, and a walk through the value to look for a fault is only
/// needed where there was a `null`.
struct Watch<'s>(&'s mut Seen);

impl Formatter for Watch<'_> {
    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.nulls = true;
        writer.write_all(b"null")
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.open()?;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.depth -= 1;
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.open()?;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.depth -= 1;
        writer.write_all(b"}")
    }

    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if self.0.depth + depth_of(fragment.as_bytes()) > MAX_DEPTH {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.0.nulls |= fragment.trim() == "null";
        writer.write_all(fragment.as_bytes())
    }
}

/// How deep a JSON text is nested.
fn depth_of(json: &[u8]) -> usize {
    let (mut at, mut depth, mut deepest) = (0, 0usize, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = end_of_scalar(json, at) - 1,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

/// Encodes what is ours: a text that we know how to read, whatever is in it.
pub(crate) fn encode_own<T: Serialize + ?Sized>(value: &T) -> Result<Payload, serde_json::Error> {
    serde_json::to_vec(value).map(Payload::from)
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
    use serde_json::{Value, json, value::RawValue};

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

    fn refusal(value: &(impl Serialize + ?Sized)) -> String {
        let error = encode("the input", value, usize::MAX).expect_err("it is refused");
        error.to_string().strip_prefix("the input cannot be stored as JSON: ").expect("the prefix").to_owned()
    }

    #[derive(Serialize)]
    struct Reading {
        value: f64,
        unit: Option<Option<&'static str>>,
    }

    #[derive(Serialize)]
    enum Shape {
        Unit,
        New(Option<f32>),
        Tuple(u8, f32),
        Struct { side: f32 },
    }

    #[test]
    fn what_would_not_come_back_is_refused_with_its_path() {
        use std::collections::{BTreeMap, HashMap};
        let good = || Reading { value: 1.0, unit: None };
        let readings = [good(), good(), good(), Reading { value: f64::NAN, ..good() }];
        let cases = [
            (refusal(&HashMap::from([("readings", &readings)])), "input.readings[3].value: NaN has no JSON form"),
            (refusal(&f64::NEG_INFINITY), "input: -infinity has no JSON form"),
            (refusal(&(1, f32::INFINITY)), "input[1]: infinity has no JSON form"),
            (refusal(&Some(f64::NAN)), "input: NaN has no JSON form"),
            (refusal(&Some(())), "input: this `Some` would be read back as `None`"),
            (refusal(&[Some(Value::Null)]), "input[0]: this `Some` would be read back as `None`"),
            (refusal(&Reading { unit: Some(None), ..good() }), "input.unit: this `Some` would be read back as `None`"),
            (refusal(&Shape::New(Some(f32::NAN))), "input.New: NaN has no JSON form"),
            (refusal(&Shape::Tuple(1, f32::NAN)), "input.Tuple[1]: NaN has no JSON form"),
            (refusal(&Shape::Struct { side: f32::NAN }), "input.Struct.side: NaN has no JSON form"),
            (
                refusal(&BTreeMap::from([("two words", BTreeMap::from([(7, f64::NAN)]))])),
                "input[\"two words\"].7: NaN has no JSON form",
            ),
            (
                refusal(&[BTreeMap::from([((1, 2), 3)])]),
                "input[0]: a key of this map has no JSON form: use strings or numbers as keys, or a list of pairs",
            ),
            (
                refusal(&Some(RawValue::from_string(" null ".to_owned()).unwrap())),
                "input: this `Some` would be read back as `None`",
            ),
        ];
        for (got, expected) in cases {
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn an_innocent_null_is_accepted() {
        #[derive(Serialize)]
        struct Marker;
        #[derive(Serialize)]
        struct Wrapped(Option<u8>);
        let values = (Marker, (), None::<()>, Value::Null, Wrapped(None), Ok::<(), ()>(()), Shape::Unit, Some("null"));
        let text = encode("the input", &values, 1000).unwrap();
        assert_eq!(&text[..], br#"[null,null,null,null,null,{"Ok":null},"Unit","null"]"#);
    }

    #[test]
    fn nesting_is_refused_before_it_cannot_be_read() {
        let nested = |depth: usize| {
            (0..depth)
                .fold(json!(1), |inner, _| if depth.is_multiple_of(2) { json!([inner]) } else { json!({ "a": inner }) })
        };
        for depth in [1, MAX_DEPTH - 1, MAX_DEPTH] {
            let text = encode("the input", &nested(depth), usize::MAX).unwrap();
            assert_eq!(decode::<Value>("the input", &text).unwrap(), nested(depth));
            let raw = RawValue::from_string(nested(depth).to_string()).unwrap();
            assert!(encode("the input", &raw, usize::MAX).is_ok());
            // The outputs of several last steps are in one object.
            assert!(decode::<[Value; 1]>("the output", format!("[{}]", nested(depth)).as_bytes()).is_ok());
        }
        let raw = |depth| RawValue::from_string("[".repeat(depth) + &"]".repeat(depth)).unwrap();
        let cases = [refusal(&nested(MAX_DEPTH + 1)), refusal(&nested(128)), refusal(&raw(MAX_DEPTH + 1))];
        for refusal in cases.into_iter().chain([refusal(&(raw(MAX_DEPTH),))]) {
            assert!(
                refusal.ends_with("it is nested more than 126 levels deep, which cannot be read back"),
                "{refusal}"
            );
        }
        assert!(encode("the input", &(Value::Null, raw(MAX_DEPTH - 1)), usize::MAX).is_ok());
    }

    #[test]
    fn numbers_come_back_to_the_bit() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let numbers =
                (f64::from_bits(bits), f32::from_bits(bits as u32), bits, u128::from(bits) << 60, -i128::from(bits));
            match encode("the input", &numbers, 1000) {
                Ok(text) => {
                    let back: (f64, f32, u64, u128, i128) = decode("the input", &text).unwrap();
                    assert_eq!((back.0.to_bits(), back.1.to_bits()), (bits, bits as u32));
                    assert_eq!((back.2, back.3, back.4), (numbers.2, numbers.3, numbers.4));
                }
                Err(_) => assert!(!numbers.0.is_finite() || !numbers.1.is_finite()),
            }
        }
    }

    #[test]
    fn random_values_come_back_equal_or_are_refused() {
        for seed in 0..20_000 {
            let value = random::value(&mut random::Dice(seed), 4);
            match encode("the input", &value, usize::MAX) {
                Ok(text) => {
                    assert!(!value.is_unfaithful(), "{value:?} was accepted as {}", String::from_utf8_lossy(&text));
                    assert_eq!(decode::<random::Any>("the input", &text).unwrap(), value, "seed {seed}");
                }
                Err(error) => assert!(value.is_unfaithful(), "seed {seed}: {value:?} was refused: {error}"),
            }
        }
    }

    /// Random values of every kind that serde has.
    mod random {
        use std::collections::BTreeMap;

        use serde::{Deserialize, Serialize};

        pub(super) struct Dice(pub(super) u64);

        impl Dice {
            fn roll(&mut self, sides: u64) -> u64 {
                self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (self.0 >> 33) % sides
            }
        }

        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(super) struct Unit;

        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(super) struct New(Option<u8>);

        /// Externally tagged, so that each variant comes back as itself.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(super) enum Any {
            Empty,
            Bool(bool),
            Signed(i64),
            Wide(u128),
            Real(f64),
            Single(f32),
            Letter(char),
            Text(String),
            Nothing(()),
            Unit(Unit),
            New(New),
            MaybeNew(Option<New>),
            MaybeReal(Option<f64>),
            MaybeUnit(Option<Unit>),
            MaybeMaybe(Option<Option<bool>>),
            Pair(Box<Any>, Option<Box<Any>>),
            List(Vec<Any>),
            Named { first: Box<Any>, second: Option<u8> },
            Map(BTreeMap<String, Any>),
            Numbered(BTreeMap<i32, Any>),
            Flagged(BTreeMap<bool, Option<()>>),
        }

        impl Any {
            /// Whether something in it would not come back.
            pub(super) fn is_unfaithful(&self) -> bool {
                match self {
                    Self::Real(number) | Self::MaybeReal(Some(number)) => !number.is_finite(),
                    Self::Single(number) => !number.is_finite(),
                    Self::MaybeNew(Some(New(None))) | Self::MaybeUnit(Some(Unit)) | Self::MaybeMaybe(Some(None)) => {
                        true
                    }
                    Self::Pair(first, second) => {
                        first.is_unfaithful() || second.as_ref().is_some_and(|second| second.is_unfaithful())
                    }
                    Self::List(list) => list.iter().any(Self::is_unfaithful),
                    Self::Named { first, .. } => first.is_unfaithful(),
                    Self::Map(map) => map.values().any(Self::is_unfaithful),
                    Self::Numbered(map) => map.values().any(Self::is_unfaithful),
                    Self::Flagged(map) => map.values().any(Option::is_some),
                    _ => false,
                }
            }
        }

        fn maybe<T>(dice: &mut Dice, value: T) -> Option<T> {
            (dice.roll(2) == 0).then_some(value)
        }

        fn real(dice: &mut Dice) -> f64 {
            match dice.roll(40) {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => -0.0,
                3 => f64::MIN_POSITIVE / 3.0,
                number => (number as f64 - 20.0) / 7.0,
            }
        }

        fn many<T>(dice: &mut Dice, mut one: impl FnMut(&mut Dice) -> T) -> Vec<T> {
            (0..dice.roll(4)).map(|_| one(dice)).collect()
        }

        pub(super) fn value(dice: &mut Dice, depth: u32) -> Any {
            let kinds = if depth == 0 { 15 } else { 21 };
            match dice.roll(kinds) {
                0 => Any::Empty,
                1 => Any::Bool(dice.roll(2) == 0),
                2 => Any::Signed(dice.roll(u64::MAX) as i64 - (1 << 30)),
                3 => Any::Wide(u128::from(dice.roll(u64::MAX)) << dice.roll(97)),
                4 => Any::Real(real(dice)),
                5 => Any::Single(real(dice) as f32),
                6 => Any::Letter(char::from_u32(dice.roll(0xd800) as u32).unwrap_or('x')),
                7 => Any::Text(
                    many(dice, |dice| ['a', '"', '\\', '\0', 'é', '\u{2028}'][dice.roll(6) as usize])
                        .into_iter()
                        .collect(),
                ),
                8 => Any::Nothing(()),
                9 => Any::Unit(Unit),
                10 => Any::New(New(maybe(dice, 7))),
                11 => Any::MaybeNew(Some(New(maybe(dice, 7))).filter(|_| dice.roll(8) > 0)),
                12 => Any::MaybeReal({
                    let number = real(dice);
                    maybe(dice, number)
                }),
                13 => Any::MaybeUnit(Some(Unit).filter(|_| dice.roll(8) == 0)),
                14 => Any::MaybeMaybe(match dice.roll(8) {
                    0 => Some(None),
                    1 => None,
                    _ => Some(Some(true)),
                }),
                15 => Any::Pair(Box::new(value(dice, depth - 1)), {
                    let second = Box::new(value(dice, depth - 1));
                    maybe(dice, second)
                }),
                16 => Any::List(many(dice, |dice| value(dice, depth - 1))),
                17 => Any::Named { first: Box::new(value(dice, depth - 1)), second: maybe(dice, 1) },
                18 => Any::Map(
                    many(dice, |dice| (dice.roll(9).to_string(), value(dice, depth - 1))).into_iter().collect(),
                ),
                19 => Any::Numbered(
                    many(dice, |dice| (dice.roll(9) as i32 - 4, value(dice, depth - 1))).into_iter().collect(),
                ),
                _ => Any::Flagged(
                    many(dice, |dice| (dice.roll(2) == 0, (dice.roll(9) == 0).then_some(()))).into_iter().collect(),
                ),
            }
        }
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
