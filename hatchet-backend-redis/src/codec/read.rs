//! Reading: bytes from the front, and the parts of a reply.

use bytes::{Buf, Bytes};
use hatchet_core::backend::{Name, Timestamp};
use redis::Value;

use super::{Stored, name_of};
use crate::error::Error;

const SHORT: Error = Error::Malformed("a value that ends too early");

/// Reads bytes from the front without copying payloads.
#[derive(Clone, Debug)]
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn peek(&self) -> Result<u8, Error> {
        self.0.first().copied().ok_or(SHORT)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        self.0.try_get_u8().map_err(|_| SHORT)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.0.try_get_u16().map_err(|_| SHORT)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.0.try_get_u32().map_err(|_| SHORT)
    }

    pub(crate) fn u48(&mut self) -> Result<u64, Error> {
        self.0.try_get_uint(6).map_err(|_| SHORT)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.0.try_get_u64().map_err(|_| SHORT)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Error> {
        self.0.try_get_u128().map_err(|_| SHORT)
    }

    pub(crate) fn token(&mut self) -> Result<Stored, Error> {
        let mut token = Stored::default();
        self.0.try_copy_to_slice(&mut token).map_err(|_| SHORT)?;
        Ok(token)
    }

    /// A moment; 0 stands for none.
    pub(crate) fn moment(&mut self) -> Result<Option<Timestamp>, Error> {
        Ok(Some(self.u48()?).filter(|ms| *ms > 0).map(Timestamp))
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, Error> {
        if length > self.0.len() { Err(SHORT) } else { Ok(self.0.split_to(length)) }
    }

    /// Bytes behind their length.
    pub(crate) fn packed(&mut self) -> Result<Bytes, Error> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(crate) fn name(&mut self, length: usize) -> Result<Name, Error> {
        name_of(&self.take(length)?)
    }

    pub(crate) fn rest(self) -> Bytes {
        self.0
    }

    pub(crate) fn rest_as_name(self) -> Result<Name, Error> {
        name_of(&self.0)
    }
}

/// The names in the entry that was read last, which the next one mostly shares.
#[derive(Debug, Default)]
pub(crate) struct Names {
    queue: Option<Name>,
    workflow: Option<Name>,
}

impl Names {
    pub(crate) fn queue(&mut self, bytes: &[u8]) -> Result<Name, Error> {
        share(&mut self.queue, bytes)
    }

    pub(crate) fn workflow(&mut self, bytes: &[u8]) -> Result<Name, Error> {
        share(&mut self.workflow, bytes)
    }
}

fn share(last: &mut Option<Name>, bytes: &[u8]) -> Result<Name, Error> {
    match last {
        Some(name) if name.as_bytes() == bytes => Ok(Name::clone(name)),
        _ => Ok(Name::clone(last.insert(name_of(bytes)?))),
    }
}

/// Stands in a reply of a check for what cannot be read.
pub(crate) const DAMAGED: &[u8] = b"\0!";

/// Takes the parts of an array reply one after the other.
#[derive(Debug)]
pub(crate) struct Values(std::vec::IntoIter<Value>);

impl Values {
    pub(crate) fn of(value: Value) -> Result<Self, Error> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            // An empty table of a script.
            Value::Nil => Ok(Self(Vec::new().into_iter())),
            _ => Err(Error::Malformed("a reply that should be a list")),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many parts are left.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Why a part of a check could not be read, if that is what the reply says.
    pub(crate) fn complaint(&self) -> Option<String> {
        match self.0.as_slice() {
            [Value::BulkString(mark), Value::BulkString(why)] if mark == DAMAGED => {
                Some(String::from_utf8_lossy(why).into_owned())
            }
            _ => None,
        }
    }

    fn next(&mut self) -> Result<Value, Error> {
        self.0.next().ok_or(Error::Malformed("a reply that ends too early"))
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, Error> {
        bytes_of(self.next()?)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Error> {
        Ok(u64::try_from(self.signed()?).unwrap_or(0))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Error> {
        match self.next()? {
            Value::Int(number) => Ok(number),
            other => {
                let text = bytes_of(other)?;
                let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse::<f64>().ok());
                number.map(|number| number.ceil() as i64).ok_or(Error::Malformed("a number"))
            }
        }
    }

    pub(crate) fn moment(&mut self) -> Result<Timestamp, Error> {
        self.number().map(Timestamp)
    }

    pub(crate) fn list(&mut self) -> Result<Self, Error> {
        Self::of(self.next()?)
    }

    /// A list, or the string that stands in its place.
    pub(crate) fn list_or_bytes(&mut self) -> Result<Result<Self, Bytes>, Error> {
        match self.next()? {
            list @ (Value::Array(_) | Value::Nil) => Self::of(list).map(Ok),
            other => bytes_of(other).map(Err),
        }
    }
}

pub(crate) fn bytes_of(value: Value) -> Result<Bytes, Error> {
    match value {
        Value::BulkString(bytes) => Ok(Bytes::from(bytes)),
        Value::SimpleString(text) => Ok(Bytes::from(text)),
        Value::Int(number) => Ok(Bytes::from(number.to_string())),
        Value::Nil => Ok(Bytes::new()),
        _ => Err(Error::Malformed("a reply that should be a string")),
    }
}

pub(crate) fn bytes_text(value: Value) -> Result<String, Error> {
    String::from_utf8(bytes_of(value)?.to_vec()).map_err(|_| Error::Malformed("a reply that should be text"))
}
