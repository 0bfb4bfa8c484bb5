//! Handles of spawned children: wait for one, some or all of them.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use serde::de::DeserializeOwned;

use super::{Places, StepContext, spawn::Untyped};
use crate::{
    backend::{Cancelled, Name, Watched},
    engine::attempt::journal::OVER,
    error::Error,
    failure::{RunError, RunErrorKind},
    ids::RunId,
    journal::{Journal, Mode, Place},
    mismatch::Mismatch,
};

/// A handle for a child of this step. Dropping the handle does not cancel the child. A non-detached child is
/// cancelled when its parent ends.
pub struct ChildHandle<'a, T> {
    ctx: &'a StepContext,
    place: Place,
    output: PhantomData<fn() -> T>,
}

impl<T> Clone for ChildHandle<'_, T> {
    fn clone(&self) -> Self {
        Self { ctx: self.ctx, place: self.place, output: PhantomData }
    }
}

impl<T> fmt::Debug for ChildHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChildHandle({})", self.id())
    }
}

impl<'a, T> ChildHandle<'a, T> {
    pub(super) fn new(ctx: &'a StepContext, place: Place) -> Self {
        Self { ctx, place, output: PhantomData }
    }

    /// The id of the child's run. It follows from the parent and the key or index, so it is known before the child is
    /// stored.
    pub fn id(&self) -> RunId {
        self.ctx.child_id(self.place)
    }

    /// The explicit key of the child, if it has one.
    pub fn key(&self) -> Option<String> {
        self.ctx.child_key(self.place).map(|key| key.to_string())
    }

    /// Waits until the child is stored. Spawning does not wait for that: see [`StepContext::spawn`].
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let page = ctx.spawn::<Page>(1).await?;
    /// page.stored().await?;                                                     // from here on others can see it
    /// println!("see run {}", page.id());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::ChildConflict`] or [`Error::Backend`] if children of this step could not be stored.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn stored(&self) -> Result<(), Error> {
        self.ctx.flush().await
    }

    /// Cancels the child. Its own children are cancelled soon after, except detached ones. A child that has already
    /// ended does not change.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let mut pages = ctx.spawn_all::<Page>(0..10).await?;
    /// let first = pages.next().await;
    /// for page in pages.handles() {
    ///     page.cancel("one is enough").await?;                                  // those that have ended do not change
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`] if the child's run was removed, [`Error::Backend`].
    pub async fn cancel(&self, reason: impl AsRef<str>) -> Result<(), Error> {
        let session = self.ctx.state.session();
        let id = self.id();
        let reason = crate::error::reason(reason.as_ref());
        self.ctx.state.check_not_over().await?;
        self.ctx.state.flush().await?;
        let answer = session.patiently(|| session.cancel(id, &reason)).await;
        let answer = self.ctx.state.unless_lost(answer).await?;
        match answer.first() {
            Some(Cancelled::NotFound) => Err(Error::NotFound(id)),
            _ => Ok(()),
        }
    }
}

impl<T: DeserializeOwned> ChildHandle<'_, T> {
    /// Waits for the child's output. The step holds no slot while it waits.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let words = ctx.spawn::<Page>(1).key("cover").await?.result().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the child did not succeed: [`RunError::kind`] says how it ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn result(self) -> Result<T, RunError> {
        self.ctx.result_of(self.place, StepContext::ended_result).await
    }
}

impl ChildHandle<'_, Untyped> {
    /// Waits for the output of a child that was spawned by name, and decodes it as a `T`, for example
    /// `serde_json::Value`. The step holds no slot while it waits.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// # async fn f(ctx: &StepContext) -> StepResult<()> {
    /// let words = ctx.spawn_named("page", 1).await?.result::<u64>().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the child did not succeed: [`RunError::kind`] says how it ended. [`RunErrorKind::Unreadable`] if its output
    /// is not a `T`.
    pub async fn result<T: DeserializeOwned>(self) -> Result<T, RunError> {
        self.ctx.result_of(self.place, StepContext::result_at).await
    }
}

/// A handle for many children of this step, in the order of their inputs.
///
/// An output larger than 4 KiB is dropped from memory once it has been returned. If it is requested again, by another
/// handle or by [`settled`](Self::settled) after [`next`](Self::next), it is read from the store.
pub struct Children<'a, T> {
    ctx: &'a StepContext,
    places: Arc<[Place]>,
    /// How far `next` has looked through the order in which the step's children ended.
    looked: usize,
    /// Which child is at which place, of those that `next` has not given; made when it is first asked.
    numbers: Option<HashMap<Place, usize>>,
    /// Which child, and its number, `next` was reading again when it was dropped.
    unread: Option<(usize, Place)>,
    /// The wait of `next`, which goes on from one call to the other.
    waiter: Option<u32>,
    output: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Children<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Children").field("count", &self.places.len()).finish_non_exhaustive()
    }
}

/// A child that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct EndedChild<T> {
    /// The position of the child among the children of the handle, from 0.
    pub index: usize,
    /// The explicit key of the child, if it has one.
    pub key: Option<String>,
    /// The id of the child's run.
    pub run: RunId,
    /// Its output, or the error that says how it ended.
    pub result: Result<T, RunError>,
}

impl<'a, T> Children<'a, T> {
    pub(super) fn new(ctx: &'a StepContext, places: Vec<Place>) -> Self {
        Self { ctx, places: places.into(), looked: 0, numbers: None, unread: None, waiter: None, output: PhantomData }
    }

    /// The number of children.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns true if there are no children.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns a handle for each child.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let pages = ctx.spawn_all::<Page>(0..10).await?;
    /// let ids: Vec<_> = pages.handles().map(|page| page.id()).collect();
    /// let words: u64 = pages.gather().await?.into_iter().sum();
    /// # Ok(()) }
    /// ```
    pub fn handles(&self) -> impl Iterator<Item = ChildHandle<'a, T>> + use<'a, '_, T> {
        let ctx = self.ctx;
        self.places.iter().map(move |&place| ChildHandle::new(ctx, place))
    }
}

impl<T: DeserializeOwned> Children<'_, T> {
    /// Waits for all children and returns their outputs in the order of the inputs. Returns early, with an error, as
    /// soon as one child does not succeed.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let words: Vec<u64> = ctx.spawn_all::<Page>(0..10).await?.gather().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The error of the child that was the first to end without success. The order is the order in which the children
    /// ended.
    pub async fn gather(self) -> Result<Vec<T>, RunError> {
        let Some(&any) = self.places.first() else { return Ok(Vec::new()) };
        let waited = self.ctx.wait(Places::Many(Arc::clone(&self.places)), Mode::AllOrFailure).await;
        waited.map_err(|error| self.ctx.unavailable(any, &error))?;
        if let Some(place) = self.ctx.first_failure(&self.places) {
            return self.ctx.ended_result(place).map(|output| vec![output]);
        }
        self.ctx.read_again(&self.places).await.map_err(|error| self.ctx.unavailable(any, &error))?;
        let outputs = self.places.iter().map(|&place| self.ctx.ended_result(place)).collect();
        self.ctx.give_back(&self.places);
        outputs
    }

    /// Waits for all children and returns the result of each, in the order of the inputs.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// async fn failed<Child: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<usize> {
    ///     let results = ctx.spawn_all::<Child>(0..100).await?.settled().await;
    ///     Ok(results.iter().filter(|result| result.is_err()).count())
    /// }
    /// ```
    pub async fn settled(self) -> Vec<Result<T, RunError>> {
        let waited = async {
            self.ctx.wait(Places::Many(Arc::clone(&self.places)), Mode::All).await?;
            self.ctx.read_again(&self.places).await
        };
        match waited.await {
            Ok(()) => {
                let results = self.places.iter().map(|&place| self.ctx.ended_result(place)).collect();
                self.ctx.give_back(&self.places);
                results
            }
            Err(error) => self.places.iter().map(|&place| Err(self.ctx.unavailable(place, &error))).collect(),
        }
    }

    /// Waits for the first child to end, with or without success. Returns `None` if there are no children. The other
    /// children continue.
    pub async fn first(mut self) -> Option<EndedChild<T>> {
        self.next().await
    }

    /// Waits for the next child to end, with or without success. Children are returned in the order in which they
    /// end. Returns `None` after the last one.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Child: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let mut children = ctx.spawn_all::<Child>(0..100).await?;
    /// while let Some(child) = children.next().await {
    ///     println!("{} gave {:?}", child.index, child.result);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call returns what this call would have returned.
    pub async fn next(&mut self) -> Option<EndedChild<T>> {
        let places = &self.places;
        // Backwards, so that a child that is named twice has its first number.
        let numbered = || places.iter().enumerate().rev().map(|(at, &place)| (place, at)).collect();
        self.numbers.get_or_insert_with(numbered);
        let next = match self.unread.take() {
            Some(unread) => Ok(Some(unread)),
            None => Next { children: self }.await,
        };
        match next {
            Ok(None) => None,
            Ok(Some((index, place))) => {
                self.unread = Some((index, place));
                let read = self.ctx.read_again(&[place]).await;
                self.unread = None;
                let mut ended = self.ended(index, place);
                if let Err(error) = read {
                    ended.result = Err(self.ctx.unavailable(place, &error));
                }
                self.ctx.give_back(&[place]);
                Some(ended)
            }
            Err(error) => {
                // One by one, so that a loop over all of them ends.
                let numbers = self.numbers.as_mut()?;
                let (place, index) =
                    numbers.iter().map(|(&place, &index)| (place, index)).min_by_key(|(_, index)| *index)?;
                numbers.remove(&place);
                let mut ended = self.ended(index, place);
                ended.result = Err(self.ctx.unavailable(place, &error));
                Some(ended)
            }
        }
    }

    /// The next one in the order in which they ended, if there is one that was not given.
    fn take_ended(&mut self, journal: &Journal) -> Option<(usize, Place)> {
        while let Some((behind, place)) = journal.next_ended(self.looked) {
            self.looked = behind;
            if let Some(index) = self.numbers.as_mut().and_then(|numbers| numbers.remove(&place)) {
                return Some((index, place));
            }
        }
        None
    }

    fn ended(&self, index: usize, place: Place) -> EndedChild<T> {
        EndedChild {
            index,
            key: self.ctx.child_key(place).map(|key| key.to_string()),
            run: self.ctx.child_id(place),
            result: self.ctx.ended_result(place),
        }
    }
}

/// Waits for the next of many children.
struct Next<'c, 'a, T> {
    children: &'c mut Children<'a, T>,
}

impl<T: DeserializeOwned> Future for Next<'_, '_, T> {
    /// Which child, by its number and place; nothing if all were given.
    type Output = Result<Option<(usize, Place)>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let children = &mut *self.children;
        let ctx = children.ctx;
        if ctx.is_stopped() {
            return ctx.state.poll_over(OVER).map(Err);
        }
        if let Some(unstored) = ctx.state.poll_unstored() {
            return unstored.map(Err);
        }
        let mut journal = ctx.state.journal();
        if let Some(ended) = children.take_ended(&journal) {
            return Poll::Ready(Ok(Some(ended)));
        }
        let open = children.numbers.iter().flat_map(HashMap::keys);
        if open.clone().next().is_none() {
            return Poll::Ready(Ok(None));
        }
        match children.waiter {
            Some(id) => {
                journal.arm(id, true);
                journal.poll_waiter(id, cx.waker());
            }
            None => children.waiter = journal.wait(open.copied(), Mode::Any, cx.waker()),
        }
        drop(journal);
        Poll::Pending
    }
}

impl<T> Drop for Next<'_, '_, T> {
    fn drop(&mut self) {
        if let Some(id) = self.children.waiter {
            self.children.ctx.state.journal().arm(id, false);
        }
    }
}

impl<T> Drop for Children<'_, T> {
    fn drop(&mut self) {
        if let Some(id) = self.waiter.take() {
            self.ctx.state.journal().stop_waiting(id);
        }
    }
}

impl StepContext {
    /// Waits for all these children and returns their outputs in the order of the handles. Returns early, with an
    /// error, as soon as one child does not succeed. The remaining children continue until this step's run ends.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let cover = ctx.spawn::<Page>(0).key("cover").await?;
    /// let index = ctx.spawn::<Page>(99).key("index").await?;
    /// let words: u64 = ctx.gather([cover, index]).await?.into_iter().sum();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The error of the child that was the first to end without success. The order is the order in which the children
    /// ended.
    pub async fn gather<'a, T: DeserializeOwned>(
        &'a self,
        children: impl IntoIterator<Item = ChildHandle<'a, T>>,
    ) -> Result<Vec<T>, RunError> {
        self.together(children).gather().await
    }

    /// Waits for all these children and returns the result of each, in the order of the handles.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let pages = [ctx.spawn::<Page>(0).await?, ctx.spawn::<Page>(1).await?];
    /// for result in ctx.settled(pages).await {
    ///     match result {
    ///         Ok(words) => println!("{words} words"),
    ///         Err(error) => println!("{error}"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn settled<'a, T: DeserializeOwned>(
        &'a self,
        children: impl IntoIterator<Item = ChildHandle<'a, T>>,
    ) -> Vec<Result<T, RunError>> {
        self.together(children).settled().await
    }

    /// Waits for the first of these children to end, with or without success. Returns `None` if there are no
    /// children.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// async fn fetch<Mirror: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    ///     let mirrors = [ctx.spawn::<Mirror>(1).await?, ctx.spawn::<Mirror>(2).await?];
    ///     if let Some(first) = ctx.first(mirrors).await {
    ///         println!("mirror {} ended first: {:?}", first.index, first.result);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub async fn first<'a, T: DeserializeOwned>(
        &'a self,
        children: impl IntoIterator<Item = ChildHandle<'a, T>>,
    ) -> Option<EndedChild<T>> {
        self.together(children).first().await
    }

    /// Combines these children into one handle, for example to process them in the order in which they end.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let pages = [ctx.spawn::<Page>(0).await?, ctx.spawn::<Page>(1).await?];
    /// let mut pages = ctx.together(pages);
    /// while let Some(page) = pages.next().await {
    ///     println!("page {} ended", page.index);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn together<'a, T>(&'a self, children: impl IntoIterator<Item = ChildHandle<'a, T>>) -> Children<'a, T> {
        Children::new(self, children.into_iter().map(|child| child.place).collect())
    }

    async fn result_of<T>(
        &self,
        place: Place,
        read: impl FnOnce(&Self, Place) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let waited = async {
            self.wait(Places::One(place), Mode::Any).await?;
            self.read_again(&[place]).await
        };
        match waited.await {
            Ok(()) => {
                let result = read(self, place);
                self.give_back(&[place]);
                result
            }
            Err(error) => Err(self.unavailable(place, &error)),
        }
    }

    /// Forgets the large outputs of children, once they were handed out.
    fn give_back(&self, places: &[Place]) {
        let mut journal = self.state.journal();
        places.iter().for_each(|&place| journal.give_back(place));
    }

    /// Reads from the store what was given back.
    async fn read_again(&self, places: &[Place]) -> Result<(), Error> {
        for &place in places {
            if !self.state.journal().was_given_back(place) {
                continue;
            }
            let id = self.child_id(place);
            let session = self.state.session();
            match session.patiently(|| session.wait_for(id)).await? {
                Some(Watched::Ended(outcome)) => self.state.journal().take_again(place, outcome),
                Some(Watched::NotFound) => return Err(Error::NotFound(id)),
                _ => return Err(Error::Interrupted("the lease ended".to_owned())),
            }
        }
        Ok(())
    }

    fn child_id(&self, place: Place) -> RunId {
        self.state.journal().child_at(place).map_or_else(|| self.run_id(), |child| child.id)
    }

    fn child_key(&self, place: Place) -> Option<Name> {
        self.state.journal().child_at(place).and_then(|child| child.key.clone())
    }

    /// The result of a child of a workflow that this code has. If its output cannot be decoded, other code gave it: then this code
    /// goes no further.
    fn ended_result<T: DeserializeOwned>(&self, place: Place) -> Result<T, RunError> {
        let result = self.result_at(place);
        if let Err(error) = &result
            && error.kind() == RunErrorKind::Unreadable
        {
            self.state.misfits(Mismatch::payload(self.step(), error));
        }
        result
    }

    /// The result of a child that has ended.
    fn result_at<T: DeserializeOwned>(&self, place: Place) -> Result<T, RunError> {
        let outcome = self.state.journal().outcome(place).map(|(_, outcome)| outcome.clone());
        let Some(outcome) = outcome else {
            return Err(self.unavailable(place, &Error::Interrupted("the run has not ended".to_owned())));
        };
        RunError::of_outcome(&outcome, || self.child_names(place))
    }

    /// The names by which errors tell a child.
    fn child_names(&self, place: Place) -> (Name, RunId, Option<Name>) {
        match self.state.journal().child_at(place) {
            Some(child) => (child.workflow.clone(), child.id, child.key.clone()),
            None => (self.state.info().workflow.clone(), self.run_id(), None),
        }
    }

    /// The first of these children to end without success.
    fn first_failure(&self, places: &[Place]) -> Option<Place> {
        let journal = self.state.journal();
        let failures = places.iter().filter_map(|&place| {
            let (sequence, outcome) = journal.outcome(place)?;
            (!outcome.is_success()).then_some((sequence, place))
        });
        failures.min().map(|(_, place)| place)
    }

    fn unavailable(&self, place: Place, error: &Error) -> RunError {
        let (workflow, id, key) = self.child_names(place);
        RunError::new(RunErrorKind::Unavailable, workflow, id, key, error.to_string())
    }
}
