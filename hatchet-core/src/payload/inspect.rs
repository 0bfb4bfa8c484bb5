//! Finds out whether and where a value cannot be stored as JSON: a walk over the value that writes nothing.
//!
//! The writer in `payload.rs` only suspects: a `null` may be a valid `None`. This module decides. It sees only what
//! `Serialize` produces, not what the type's own `Deserialize` accepts.

use std::fmt::{self, Display, Write};

use serde::{
    Serialize, Serializer,
    ser::{
        self, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

use super::{MAX_DEPTH, Unfaithful, depth_of};

/// Why `value` would not come back as it is, and its path below the root, such as `.readings[3].value`.
pub(super) fn fault<T: Serialize + ?Sized>(value: &T, keys: Keys) -> Option<(String, Unfaithful)> {
    let found = value.serialize(Walk { depth: 0, keys }).err()?;
    Some((found.path(), found.why))
}

/// Whether the keys of maps are looked at: serde_json has refused the bad ones already, without their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    Look,
    Trust,
}

/// A longer path is cut in its middle.
const LONGEST_PATH: usize = 240;

/// What is wrong, and the way to it from the inside out.
#[derive(Debug)]
pub(super) struct Fault {
    why: Unfaithful,
    way: Vec<String>,
}

impl Fault {
    fn new(why: Unfaithful) -> Self {
        Self { why, way: Vec::new() }
    }

    fn at(mut self, segment: impl FnOnce() -> String) -> Self {
        self.way.push(segment());
        self
    }

    fn path(&self) -> String {
        let whole: String = self.way.iter().rev().map(String::as_str).collect();
        if whole.len() <= LONGEST_PATH {
            return whole;
        }
        let letters: Vec<char> = whole.chars().collect();
        let (head, tail) = (&letters[..LONGEST_PATH / 3], &letters[letters.len() - LONGEST_PATH / 3..]);
        head.iter().chain(&['…']).chain(tail).collect()
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.why, f)
    }
}

impl std::error::Error for Fault {}

impl ser::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Unfaithful::Refused(message.to_string()))
    }
}

fn field(name: &str) -> String {
    format!(".{name}")
}

fn index(number: usize) -> String {
    format!("[{number}]")
}

/// The key of a map's entry, as a path has it.
fn key_segment<K: Serialize + ?Sized>(key: &K) -> Option<String> {
    let text = serde_json::to_string(&OneKey(key)).ok()?;
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).ok()?;
    let (key, _) = object.into_iter().next()?;
    let is_word = !key.is_empty() && key.chars().all(|letter| letter.is_alphanumeric() || "_-".contains(letter));
    Some(if is_word { field(&key) } else { format!("[{key:?}]") })
}

/// A map of this one key.
struct OneKey<'k, K: ?Sized>(&'k K);

impl<K: Serialize + ?Sized> Serialize for OneKey<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0, ())])
    }
}

/// The walk through one value. It gives whether the value is a JSON `null`.
#[derive(Clone, Copy)]
struct Walk {
    /// How many arrays and objects are open around the value.
    depth: usize,
    keys: Keys,
}

type Answer = Result<bool, Fault>;

impl Walk {
    /// Goes into so many arrays or objects.
    fn inside(self, levels: usize) -> Result<Self, Fault> {
        let depth = self.depth + levels;
        if depth > MAX_DEPTH { Err(Fault::new(Unfaithful::TooDeep)) } else { Ok(Self { depth, ..self }) }
    }

    fn many(self, levels: usize, variant: Option<&'static str>) -> Result<Many, Fault> {
        Ok(Many { walk: self.inside(levels)?, at: 0, variant, key: None, is_null: false })
    }
}

macro_rules! never_null {
    ($($method:ident($type:ty);)*) => {
        $(fn $method(self, _: $type) -> Answer {
            Ok(false)
        })*
    };
}

impl Serializer for Walk {
    type Ok = bool;
    type Error = Fault;
    type SerializeSeq = Many;
    type SerializeTuple = Many;
    type SerializeTupleStruct = Many;
    type SerializeTupleVariant = Many;
    type SerializeMap = Many;
    type SerializeStruct = Many;
    type SerializeStructVariant = Many;

    never_null! {
        serialize_bool(bool); serialize_char(char); serialize_str(&str); serialize_bytes(&[u8]);
        serialize_i8(i8); serialize_i16(i16); serialize_i32(i32); serialize_i64(i64); serialize_i128(i128);
        serialize_u8(u8); serialize_u16(u16); serialize_u32(u32); serialize_u64(u64); serialize_u128(u128);
    }

    fn serialize_f32(self, value: f32) -> Answer {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Answer {
        if value.is_finite() { Ok(false) } else { Err(Fault::new(Unfaithful::NotFinite(value))) }
    }

    fn serialize_none(self) -> Answer {
        Ok(true)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Answer {
        match value.serialize(self)? {
            true => Err(Fault::new(Unfaithful::SomeNull)),
            false => Ok(false),
        }
    }

    fn serialize_unit(self) -> Answer {
        Ok(true)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Answer {
        Ok(true)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Answer {
        Ok(false)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Answer {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Answer {
        let walked = self.inside(1).and_then(|inside| value.serialize(inside));
        walked.map_err(|fault| fault.at(|| field(variant))).map(|_| false)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Many, Fault> {
        self.many(1, None)
    }

    fn serialize_tuple(self, _: usize) -> Result<Many, Fault> {
        self.many(1, None)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Many, Fault> {
        self.many(1, None)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Many, Fault> {
        self.many(2, Some(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Many, Fault> {
        self.many(1, None)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Many, Fault> {
        self.many(if name == RAW { 0 } else { 1 }, None)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Many, Fault> {
        self.many(2, Some(variant))
    }
}

/// The name by which serde_json knows its `RawValue`, as a struct and as its field.
const RAW: &str = "$serde_json::private::RawValue";

/// The walk through the elements or fields of one value.
struct Many {
    /// For each of them.
    walk: Walk,
    at: usize,
    variant: Option<&'static str>,
    /// The key that came last.
    key: Option<String>,
    is_null: bool,
}

impl Many {
    fn one<T: Serialize + ?Sized>(&mut self, value: &T, segment: impl FnOnce() -> String) -> Result<(), Fault> {
        let Err(fault) = value.serialize(self.walk) else { return Ok(()) };
        let fault = fault.at(segment);
        Err(match self.variant {
            Some(variant) => fault.at(|| field(variant)),
            None => fault,
        })
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let at = self.at;
        self.at += 1;
        self.one(value, || index(at))
    }

    /// A text that is JSON already.
    fn raw<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let text = serde_json::to_value(value).unwrap_or_default();
        let text = text.as_str().unwrap_or_default();
        self.is_null = text.trim() == "null";
        self.walk.inside(depth_of(text.as_bytes())).map(drop)
    }

    fn check_key<K: Serialize + ?Sized>(&self, key: &K) -> Result<(), Fault> {
        match self.walk.keys == Keys::Look && serde_json::to_writer(Nowhere, &OneKey(key)).is_err() {
            true => Err(Fault::new(Unfaithful::Key)),
            false => Ok(()),
        }
    }
}

struct Nowhere;

impl std::io::Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident;)*) => {
        $(impl $trait for Many {
            type Ok = bool;
            type Error = Fault;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                self.element(value)
            }

            fn end(self) -> Answer {
                Ok(false)
            }
        })*
    };
}

elements! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

impl SerializeMap for Many {
    type Ok = bool;
    type Error = Fault;

    fn serialize_key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), Fault> {
        self.check_key(key)?;
        self.key = key_segment(key);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let key = self.key.take();
        self.one(value, || key.unwrap_or_default())
    }

    fn serialize_entry<K: Serialize + ?Sized, T: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &T,
    ) -> Result<(), Fault> {
        self.check_key(key)?;
        self.one(value, || key_segment(key).unwrap_or_default())
    }

    fn end(self) -> Answer {
        Ok(false)
    }
}

impl SerializeStruct for Many {
    type Ok = bool;
    type Error = Fault;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Fault> {
        if name == RAW {
            return self.raw(value);
        }
        self.one(value, || field(name))
    }

    fn end(self) -> Answer {
        Ok(self.is_null)
    }
}

impl SerializeStructVariant for Many {
    type Ok = bool;
    type Error = Fault;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Fault> {
        self.one(value, || field(name))
    }

    fn end(self) -> Answer {
        Ok(false)
    }
}

/// Numbers as they are said: `NaN`, `infinity`.
pub(super) fn say_number(value: f64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if value.is_nan() {
        return f.write_str("NaN");
    }
    if value < 0.0 {
        f.write_char('-')?;
    }
    f.write_str("infinity")
}
