//! Durable calls other than children, timers and signals: recorded calls, the time, random numbers.

use std::{
    error::Error as StdError,
    future::Future,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Places, StepContext};
use crate::{
    backend::{Entry, Name, Payload, Resolution},
    engine::attempt::state::extension_prefix,
    error::{Error, check_name},
    failure::{StepError, StoredError},
    journal::{Mode, PATCH, Place},
    mismatch::Mismatch,
    payload,
};

/// The result of a recorded call as it is stored.
#[derive(Serialize, Deserialize)]
struct Call {
    /// The attempt that made it.
    attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ok: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<StoredError>,
}

impl StepContext {
    /// Makes a call and records its result under `key`. A replay does not repeat the call; it returns the recorded
    /// result, including a recorded failure. A retry of the step repeats the call only if it had failed.
    ///
    /// The call may happen more than once if the worker dies before the result is recorded. A recorded success is
    /// never repeated. A key counts as used as soon as the future is polled, even if it is then dropped.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # async fn http_get(url: &str) -> Result<String, std::io::Error> { Ok(url.to_owned()) }
    /// async fn fetch(ctx: &StepContext, url: &str) -> StepResult<usize> {
    ///     let body: String = ctx.run("fetch", || http_get(url)).await?;
    ///     Ok(body.len())
    /// }
    /// ```
    ///
    /// # Errors
    /// * [`Error::Recorded`] if the call failed, now or when it was recorded. If the step returns this error with
    ///   `?`, the step fails with the kind, the details and the causes of the call's error. The call's error also
    ///   decides whether the step is retried.
    /// * [`Error::DuplicateKey`] if this attempt used the key before.
    /// * [`Error::InvalidName`] if the key is not valid.
    /// * [`Error::Payload`] if the result cannot be encoded, is too large, or the recorded value is not a `T`.
    /// * [`Error::Backend`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the call. Its result may or may not be recorded.
    pub async fn run<T, E, F>(&self, key: impl AsRef<str>, call: impl FnOnce() -> F) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        E: Into<Box<dyn StdError + Send + Sync>>,
        F: Future<Output = Result<T, E>>,
    {
        let key = key.as_ref();
        self.state.check_not_over().await?;
        let name = self.take_key("a recorded call", "run", key)?;
        let stored =
            self.stored_value(&name).map(|value| payload::decode::<Call>("a recorded call", &value)).transpose()?;
        let replaces = match stored {
            Some(Call { attempt, error: Some(_), .. }) if attempt < self.attempt() => true,
            Some(call) => {
                let answered = self.unless_other_code_recorded(answer(key, call)).await;
                if answered.is_ok() {
                    self.state.unless_rehearsed().await?;
                }
                return answered;
            }
            None => false,
        };
        self.state.unless_rehearsing().await?;
        // What it does may depend on what was spawned before.
        self.state.flush().await?;
        let mut result = Call { attempt: self.attempt(), ok: None, error: None };
        match call().await {
            Ok(value) => {
                let value = payload::encode(&format!("the result of {key:?}"), &value, self.state.max_payload())?;
                result.ok = Some(serde_json::from_slice(&value).map_err(|e| unreadable(key, e))?);
            }
            Err(error) => {
                result.error = Some(StepError::from_box(error.into()).stored());
            }
        }
        let value = payload::encode_own(&result).map_err(|e| unreadable(key, e))?;
        let recorded = self.state.write(name, Entry::Value(value), replaces).await?;
        match recorded.entry {
            Entry::Value(value) => {
                self.unless_other_code_recorded(answer(key, payload::decode("a recorded call", &value)?)).await
            }
            _ => answer(key, result),
        }
    }

    /// What is recorded can be decoded by the code that recorded it. Where it cannot, other code did, and this code goes no further.
    async fn unless_other_code_recorded<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        match answer {
            Err(Error::Payload(error)) if !self.state.info().fails_on_mismatch => {
                self.state.misfits(Mismatch::payload(self.step(), &error));
                Err(self.state.over("the stored data does not match the code").await)
            }
            answer => answer,
        }
    }

    /// Returns the current time of the backend's clock and records it. Replays and retries return the same time.
    /// Calls are matched by their number, so call it before branches run concurrently.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # async fn f(ctx: &StepContext) -> StepResult<()> {
    /// let begin = ctx.now().await?;
    /// ctx.sleep(std::time::Duration::from_secs(3600)).await?;
    /// let passed = ctx.now().await?.duration_since(begin)?;                     // the same in every replay
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn now(&self) -> impl Future<Output = Result<SystemTime, Error>> + Send + '_ {
        let name: Name = format!("now:{}", self.count("now")).into();
        async move {
            self.state.check_not_over().await?;
            self.state.journal().use_named(&name);
            let stored = self.state.journal().entry(&name).map(|(_, _, at)| at);
            let at = match stored {
                Some(at) => {
                    self.state.unless_rehearsed().await?;
                    at
                }
                None => self.state.write(name, Entry::Value(Payload::new()), false).await?.at,
            };
            Ok(at.into())
        }
    }

    /// Returns whether this step takes the new path of a patch: `false` if it had passed this place before the patch was
    /// deployed, otherwise `true`. The answer is the same in each replay and retry, and wherever the step asks for it again.
    /// So the code of steps in progress can be changed:
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # async fn tax(cents: u64) -> Result<u64, String> { Ok(cents / 5) }
    /// # async fn new_tax(cents: u64) -> Result<u64, String> { Ok(cents / 4) }
    /// async fn total(ctx: &StepContext, cents: u64) -> StepResult<u64> {
    ///     let tax: u64 = if ctx.patched("new-tax").await? {
    ///         ctx.run("new tax", || new_tax(cents)).await?
    ///     } else {
    ///         ctx.run("tax", || tax(cents)).await?
    ///     };
    ///     Ok(cents + tax)
    /// }
    /// ```
    ///
    /// A step has passed a place if its replay still has journal entries to come there. When no run in flight has passed the
    /// place, the old path and this call can be removed.
    ///
    /// While old and new code are both at work, a step may go from one to the other. It ends under the code whose path it took
    /// first; what the other one has added meanwhile is ignored.
    ///
    /// # Errors
    /// [`Error::InvalidName`] if it cannot be the name of a patch, [`Error::Backend`].
    pub async fn patched(&self, patch: impl AsRef<str>) -> Result<bool, Error> {
        let patch = patch.as_ref();
        self.state.check_not_over().await?;
        check_name("patch", patch)?;
        let name: Name = format!("{PATCH}{patch}").into();
        if let Some(stored) = self.stored_value(&name) {
            self.state.settle_notes().await?;
            return Ok(&stored[..] == b"true");
        }
        // Where a retry keeps failures, it cannot be told from a replay.
        let repeats = self.state.replays() || self.state.info().def.keep_failures;
        let is_new = !repeats || !self.state.journal().has_more();
        if self.state.host().rehearsal().is_some() {
            return Ok(is_new);
        }
        let value: &'static [u8] = if is_new { b"true" } else { b"false" };
        match self.state.write(name, Entry::Value(Payload::from_static(value)), false).await?.entry {
            Entry::Value(stored) => Ok(&stored[..] == b"true"),
            _ => Ok(is_new),
        }
    }

    /// Returns a random number that is the same in every replay and retry. It is derived from the run, the step and
    /// the number of earlier calls. It costs no backend call, and it is not secret.
    ///
    /// For a root run with an idempotency key, the number is derived from the name of the workflow, with its version, and
    /// the key instead of the run. It is then the same even if the store lost the run and the run is started again. That
    /// does not hold for its children. Call it before branches run concurrently.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # async fn f(ctx: &StepContext) -> StepResult<()> {
    /// let winner = ctx.random() % 10;                                           // the same in every replay
    /// # Ok(()) }
    /// ```
    pub fn random(&self) -> u64 {
        self.seeded("random") as u64
    }

    /// Returns a random UUID (version 8) that is the same in every replay and retry, derived like
    /// [`random`](Self::random). Use it as an idempotency key for calls to other systems.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # async fn pay(idempotency_key: String) -> Result<u64, std::io::Error> { Ok(1) }
    /// async fn charge(ctx: &StepContext) -> StepResult<u64> {
    ///     let idempotency_key = ctx.uuid().to_string();
    ///     let receipt: u64 = ctx.run("pay", || pay(idempotency_key)).await?;
    ///     Ok(receipt)
    /// }
    /// ```
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_custom_bytes(self.seeded("uuid").to_be_bytes()).into_uuid()
    }

    /// Extends the timeout of this attempt by `by`. Calls accumulate; a replay does not extend the timeout again. It
    /// does nothing in a step without a timeout, and it does not change the timeout of the run.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # use std::time::Duration;
    /// # async fn convert(part: u32) -> Result<u64, std::io::Error> { Ok(u64::from(part)) }
    /// async fn transcode(ctx: &StepContext, parts: u32) -> StepResult<u64> {
    ///     let mut bytes: u64 = 0;
    ///     for part in 0..parts {
    ///         ctx.extend_timeout(Duration::from_secs(60)).await?;
    ///         bytes += ctx.run(format!("part {part}"), || convert(part)).await?;
    ///     }
    ///     Ok(bytes)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn extend_timeout(&self, by: Duration) -> impl Future<Output = Result<(), Error>> + Send + '_ {
        let name: Name = format!("{}{}", extension_prefix(self.attempt()), self.count("extend")).into();
        async move {
            self.state.check_not_over().await?;
            self.state.journal().use_named(&name);
            if self.state.journal().entry(&name).is_none() && self.state.host().rehearsal().is_none() {
                let value = u64::try_from(by.as_millis()).unwrap_or(u64::MAX).to_string().into_bytes();
                self.state.write(name, Entry::Value(value.into()), false).await?;
                self.state.count_extensions();
                self.state.bell().ring();
            }
            Ok(())
        }
    }

    fn stored_value(&self, name: &str) -> Option<Payload> {
        self.state.journal().use_named(name);
        match self.state.journal().entry(name) {
            Some((_, Entry::Value(value), _)) => Some(value.clone()),
            _ => None,
        }
    }

    /// Writes an entry unless it is there, and waits for its resolution.
    pub(super) async fn entry(&self, name: Name, entry: Entry) -> Result<Resolution, Error> {
        let place = self.ensure_entry(name, entry).await?;
        self.wait(Places::One(place), Mode::Any).await?;
        let resolution = self.state.journal().resolution(place).cloned();
        resolution.ok_or_else(|| Error::Interrupted("the step's journal could not be read".to_owned()))
    }

    /// Writes an entry unless it is there.
    pub(super) async fn ensure_entry(&self, name: Name, entry: Entry) -> Result<Place, Error> {
        self.state.journal().use_named(&name);
        let there = self.state.journal().entry(&name).map(|(place, ..)| place);
        if let Some(place) = there {
            return Ok(place);
        }
        self.state.write(name.clone(), entry, false).await?;
        let place = self.state.journal().entry(&name).map(|(place, ..)| place);
        place.ok_or_else(|| Error::Interrupted("the step's journal could not be read".to_owned()))
    }
}

fn answer<T: DeserializeOwned>(key: &str, call: Call) -> Result<T, Error> {
    match call {
        Call { error: Some(error), .. } => {
            let error = StepError::from(error);
            Err(Error::Recorded {
                key: key.to_owned(),
                message: error.to_string(),
                retryable: error.is_retryable(),
                error,
            })
        }
        Call { ok, .. } => {
            let text = ok.as_ref().map_or("null", |value| value.get());
            Ok(payload::decode(&format!("what is recorded under {key:?}"), text.as_bytes())?)
        }
    }
}

fn unreadable(key: &str, source: serde_json::Error) -> Error {
    let (what, expected) = (format!("the result of {key:?}"), "JSON text");
    payload::PayloadError::Decode { what, expected, source }.into()
}
