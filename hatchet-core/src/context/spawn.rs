//! Spawning children: one, or many at once.

use std::{collections::BTreeMap, fmt, future::IntoFuture, marker::PhantomData, ops::Range, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    StepContext,
    children::{ChildHandle, Children},
};
use crate::{
    backend::{Extras, Name, NewRun, Pairs, Payload, Priority, Started},
    definition::{BoxFuture, Options},
    engine::attempt::outbox::{CHUNK, CHUNK_BYTES, Wanted},
    error::{Error, check_name, check_pairs},
    ids::{RunId, Slot},
    interceptor::{StartEnd, Together},
    journal::{Journal, Place, child_entry},
    payload::{encode, encode_into, fingerprint},
    registry::{announced, options_of},
    workflow::{AsInput, Workflow},
};

/// A step that spawns more children than this has a large fan-out: what it spawns beyond, or with one call that goes beyond, takes
/// turns with what else is ready.
const LARGE_FAN_OUT: u32 = 64;

impl StepContext {
    /// Spawns a child that runs `W`. Await the returned builder.
    ///
    /// A child is identified by this run, this step and its [`key`](Spawn::key). Without a key it is identified by
    /// its index: the number of children that this attempt spawned before it, with or without keys.
    ///
    /// A replay finds the same child in its current state. A retry finds it too, with one exception: a child that
    /// failed, expired or was cancelled in an earlier attempt runs again, unless the step has `on_retry = "keep"`.
    ///
    /// # When the child is stored
    /// The call does not wait for the store. Children are stored in the order of the calls, in batches that form while
    /// earlier calls to the store are in progress. So a loop of spawns costs about as much as one
    /// [`spawn_all`](Self::spawn_all). The call waits only if 1 000 children, or 1 MiB of inputs, are not stored yet.
    ///
    /// A child is stored before anything that depends on it: before a later durable call of this step is made (for
    /// example the call in [`run`](Self::run)), before the step is parked, and before it ends. If the worker dies
    /// before that, the step runs again and spawns the same child under the same identity. To wait until the children
    /// are stored, use [`flush`](Self::flush) or [`ChildHandle::stored`]. How durable a stored child is depends on the
    /// settings of the backend.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// async fn scatter_and_gather<Child: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<u64> {
    ///     let mut children = Vec::new();
    ///     for i in 0..10 {
    ///         children.push(ctx.spawn::<Child>(i).key(format!("child{i}")).await?);
    ///     }
    ///     Ok(ctx.gather(children).await?.into_iter().sum())
    /// }
    /// ```
    ///
    /// # Errors
    /// When awaited:
    /// * [`Error::ChildConflict`] if the index was used before with another workflow or input, or the key with
    ///   another workflow.
    /// * [`Error::DuplicateKey`] if this attempt used the key before with another input.
    /// * [`Error::UnknownWorkflow`] if no worker has ever announced `W`; [`Error::NeedsRegistration`] instead if `W`
    ///   is linked into this program and its struct has state.
    /// * [`Error::Payload`] if the input cannot be encoded or is too large.
    /// * [`Error::InvalidName`] if the key or the queue is not valid.
    /// * [`Error::InvalidOption`] if the metadata or the headers exceed 64 KiB.
    /// * [`Error::Backend`] if the workflow had to be looked up and that failed.
    ///
    /// At the next durable call or wait of the step:
    /// * [`Error::ChildConflict`] if only the store knows that the key was used before with another workflow.
    /// * [`Error::Backend`] if children could not be stored. A store that refuses is asked again for a minute, and one
    ///   that is full or not available for as long as that lasts.
    ///
    /// After such an error nothing more of the attempt is stored: the attempt fails with it, whatever its code returns.
    ///
    /// # Cancel safety
    /// If the future is dropped after its first poll, the child will exist. Spawning it again finds it.
    pub fn spawn<W: Workflow>(&self, input: impl AsInput<W::Input>) -> Spawn<'_, W::Output> {
        let template = Template::typed(self, &W::OPTIONS);
        Spawn::new(self, template, input.as_input())
    }

    /// Spawns a child by the name of its workflow, with any serializable input. Otherwise the same as
    /// [`spawn`](Self::spawn). Its [`result`](ChildHandle::result) can be decoded as any type.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult};
    /// async fn resize(ctx: &StepContext) -> StepResult<u64> {
    ///     let child = ctx.spawn_named("Resize", ("photo.png", 800)).key("photo").await?;
    ///     Ok(child.result::<u64>().await?)
    /// }
    /// ```
    pub fn spawn_named(&self, workflow: impl AsRef<str>, input: impl Serialize) -> Spawn<'_, Untyped> {
        let template = Template::named(self, workflow.as_ref());
        Spawn::new(self, template, &input)
    }

    /// Waits until all children that this step has spawned are stored. See [`spawn`](Self::spawn) for when that is needed.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// async fn announce<Child: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    ///     for i in 0..10 {
    ///         ctx.spawn::<Child>(i).detached().await?;
    ///     }
    ///     ctx.flush().await?;
    ///     println!("10 children are stored");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::ChildConflict`] or [`Error::Backend`] if children could not be stored; see [`spawn`](Self::spawn).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn flush(&self) -> Result<(), Error> {
        self.state.check_not_over().await?;
        self.state.flush().await
    }

    /// Spawns many children in few backend calls, one for each input. Returns one handle for all of them. The
    /// children are identified by their indexes, or by keys if [`keyed`](SpawnAll::keyed) is set.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// async fn all<Child: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<Vec<u64>> {
    ///     Ok(ctx.spawn_all::<Child>(0..100_000).await?.gather().await?)
    /// }
    /// ```
    ///
    /// # Errors
    /// When awaited, as [`spawn`](Self::spawn). If one input causes an error, children for the inputs before it may
    /// have been created.
    pub fn spawn_all<'a, W: Workflow>(
        &'a self,
        inputs: impl IntoIterator<Item = impl AsInput<W::Input> + Send + 'a>,
    ) -> SpawnAll<'a, W, impl AsInput<W::Input> + Send + 'a> {
        SpawnAll::new(self, inputs)
    }
}

/// Stands for the output type of a run that was started by name. The type is chosen when the result is taken.
#[derive(Debug)]
pub enum Untyped {}

/// What children of one kind have in common.
#[derive(Clone, Debug)]
struct Template {
    workflow: Name,
    queue: Name,
    priority: Priority,
    extras: Extras,
    strict: bool,
    /// The version is that which open workers have.
    by_name: bool,
}

impl Template {
    fn typed(ctx: &StepContext, options: &Options) -> Self {
        // The names of what this worker runs are there already.
        let (workflow, queue) = match ctx.state.catalog().get(options.name) {
            Some((name, _)) if options.queue == ctx.queue() => (name.clone(), ctx.state.info().queue.clone()),
            Some((name, _)) => (name.clone(), options.queue.into()),
            None => (options.name.into(), options.queue.into()),
        };
        let extras = Extras {
            metadata: ctx.state.info().metadata.clone(),
            headers: ctx.state.info().headers.clone(),
            queue_timeout: options.queue_timeout,
            timeout: options.timeout,
            ..Extras::default()
        };
        Self { workflow, queue, priority: options.priority, extras, strict: false, by_name: false }
    }

    fn named(ctx: &StepContext, workflow: &str) -> Self {
        let registered = ctx.state.catalog().latest(workflow).map(|(_, options)| *options);
        let known = registered.or_else(|| options_of(workflow));
        let mut template = Self::typed(ctx, &known.unwrap_or(Options::UNKNOWN));
        template.workflow = workflow.into();
        template.by_name = true;
        template
    }

    fn check(&self) -> Result<(), Error> {
        check_name("queue", &self.queue)?;
        check_pairs("metadata", self.extras.metadata.as_ref())?;
        check_pairs("headers", self.extras.headers.as_ref())
    }

    fn wants<'a>(&'a self, slot: Slot, key: Option<&'a Name>, input: u64) -> Wanted<'a> {
        Wanted { slot, key, workflow: &self.workflow, input, strict: self.strict }
    }

    fn new_run(&self, id: RunId, input: Payload, fingerprint: u64, key: Option<Name>) -> NewRun {
        NewRun {
            id,
            workflow: self.workflow.clone(),
            queue: self.queue.clone(),
            priority: self.priority,
            input,
            fingerprint,
            key,
            extras: self.extras.clone(),
        }
    }
}

/// The options that one child and many have.
macro_rules! child_options {
    () => {
        /// Lets the child continue when this run ends or is cancelled. By default the child is then cancelled.
        ///
        /// ```
        /// # use hatchet_core::{StepContext, StepResult, Workflow};
        /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
        /// ctx.spawn::<Page>(1).key("audit").detached().await?;                      // continues when this run has ended
        /// # Ok(()) }
        /// ```
        pub fn detached(mut self) -> Self {
            self.template.extras.detached = true;
            self
        }

        /// Sets the priority of the child among the tasks of its queue. Default: the priority of its workflow.
        pub fn priority(mut self, priority: Priority) -> Self {
            self.template.priority = priority;
            self
        }

        /// Sets the queue. Default: the queue of its workflow.
        pub fn queue(mut self, queue: impl AsRef<str>) -> Self {
            self.template.queue = queue.as_ref().into();
            self
        }

        /// Adds a metadata entry to those inherited from this run.
        pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
            overlay(&mut self.template.extras.metadata, key.into(), value.into());
            self
        }

        /// Adds a header to those inherited from this run.
        pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
            overlay(&mut self.template.extras.headers, key.into(), value.into());
            self
        }

        /// Limits the duration of the child's run. A run that takes longer ends as expired. The time counts from its
        /// start and includes waits and retries, but not its delay.
        ///
        /// ```
        /// # use hatchet_core::{StepContext, StepResult, Workflow};
        /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
        /// ctx.spawn::<Page>(1).timeout(std::time::Duration::from_secs(60)).await?;
        /// # Ok(()) }
        /// ```
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.template.extras.timeout = Some(timeout);
            self
        }

        /// Limits the time in the queue. A child that no worker claims within this time ends as expired. Its delay
        /// does not count.
        pub fn queue_timeout(mut self, timeout: Duration) -> Self {
            self.template.extras.queue_timeout = Some(timeout);
            self
        }

        /// Delays the start of the child by this duration.
        pub fn delay(mut self, delay: Duration) -> Self {
            self.template.extras.delay = Some(delay);
            self
        }

        /// Makes it an error ([`Error::ChildConflict`]) if the key was used before with another input. By default the
        /// existing child is returned, whatever its input was.
        ///
        /// ```
        /// # use hatchet_core::{Error, StepContext, StepResult, Workflow};
        /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
        /// ctx.spawn::<Page>(1).key("cover").strict().await?.result().await?;
        /// let other = ctx.spawn::<Page>(2).key("cover").strict().await;             // the same key with another input
        /// assert!(matches!(other, Err(Error::ChildConflict(_) | Error::DuplicateKey { .. })));
        /// # Ok(()) }
        /// ```
        pub fn strict(mut self) -> Self {
            self.template.strict = true;
            self
        }
    };
}

/// Adds a pair to a map that others may share.
pub(crate) fn overlay(pairs: &mut Option<Pairs>, key: String, value: String) {
    let mut map: BTreeMap<String, String> = pairs.as_deref().cloned().unwrap_or_default();
    map.insert(key, value);
    *pairs = Some(Arc::new(map));
}

/// A builder for a child: set its options, then await it to spawn the child.
#[derive(Debug)]
#[must_use = "a child is spawned when this is awaited"]
pub struct Spawn<'a, T> {
    ctx: &'a StepContext,
    template: Template,
    input: Result<Payload, Error>,
    index: u32,
    key: Option<String>,
    output: PhantomData<fn() -> T>,
}

impl<'a, T> Spawn<'a, T> {
    fn new(ctx: &'a StepContext, template: Template, input: &impl Serialize) -> Self {
        let input = encode("the input of a child", input, ctx.state.max_payload()).map_err(Error::from);
        // Here, in the call, and not when it is polled: what runs concurrently would count in any order.
        let index = ctx.next_index();
        Self { ctx, template, input, index, key: None, output: PhantomData }
    }

    /// Identifies the child by a key instead of its index, so that the order of children can vary. Length: 1 to 255
    /// bytes.
    ///
    /// The key is the identity of the child. If an earlier attempt, or this attempt before an interruption, used the
    /// key, the existing child is returned, whatever its input was. Within one attempt, a key can be used with one
    /// input only.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// let cover = ctx.spawn::<Page>(1).key("cover").await?;
    /// # Ok(()) }
    /// ```
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    child_options!();

    async fn spawn(self) -> Result<ChildHandle<'a, T>, Error> {
        let Self { ctx, mut template, input, index, key, .. } = self;
        template.extras.fan_out = index >= LARGE_FAN_OUT;
        let slot = slot(index, key.as_deref())?;
        let input = input?;
        template.check()?;
        ctx.state.check_not_over().await?;
        let hash = fingerprint(&input);
        let key: Option<Name> = key.map(Name::from);
        let id = match ctx.find_child(&template, slot, key.as_ref(), hash)? {
            Found::Contradicts(error) => return ctx.state.unless_contradicted(Err(error)).await,
            Found::Here(place) => {
                ctx.state.unless_rehearsed().await?;
                return Ok(ChildHandle::new(ctx, place));
            }
            Found::Missing(id) => id,
        };
        ctx.state.unless_rehearsing().await?;
        let template = ctx.resolve_workflow(template).await?;
        let mut run = template.new_run(id, input, hash, key.clone());
        let inherited = ctx.state.info().headers.as_ref();
        let sending = ctx.state.scope().map(|scope| scope.spawn(&mut run, index, inherited));
        let replaces = id.origin().is_some_and(|origin| origin.generation > 0);
        let place = match ctx.state.hand_over(slot, run, template.strict, replaces) {
            Some(place) => {
                ctx.state.room_for_children().await?;
                place
            }
            None => {
                ctx.state.flush().await?;
                let stored = ctx.state.journal().child(slot).map(|child| child.place);
                stored.ok_or_else(|| Error::Interrupted("the step's journal could not be read".to_owned()))?
            }
        };
        if let Some(sending) = sending {
            sending.end(StartEnd::Done);
        }
        ask_for(&mut ctx.state.journal(), place, key.as_ref(), hash)?;
        Ok(ChildHandle::new(ctx, place))
    }
}

impl<'a, T: 'a> IntoFuture for Spawn<'a, T> {
    /// The handle of the child. The child is stored soon after: see [`StepContext::spawn`].
    type Output = Result<ChildHandle<'a, T>, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.spawn())
    }
}

/// A builder for many children: set their options, then await it to spawn them.
#[must_use = "children are spawned when this is awaited"]
pub struct SpawnAll<'a, W: Workflow, I> {
    ctx: &'a StepContext,
    template: Template,
    inputs: Vec<I>,
    first: u32,
    key: Option<KeyOf<'a, W::Input>>,
}

/// Makes a key from an input.
type KeyOf<'a, I> = Box<dyn Fn(&I) -> String + Send + 'a>;

impl<W: Workflow, I> fmt::Debug for SpawnAll<'_, W, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnAll")
            .field("template", &self.template)
            .field("count", &self.inputs.len())
            .finish_non_exhaustive()
    }
}

impl<'a, W: Workflow, I: AsInput<W::Input>> SpawnAll<'a, W, I> {
    fn new(ctx: &'a StepContext, inputs: impl IntoIterator<Item = I>) -> Self {
        let inputs: Vec<I> = inputs.into_iter().collect();
        let first = ctx.next_indexes(inputs.len() as u32);
        Self { ctx, template: Template::typed(ctx, &W::OPTIONS), inputs, first, key: None }
    }

    /// Identifies each child by a key computed from its input, instead of by its index. Inputs with the same key
    /// share one child.
    ///
    /// ```
    /// # use hatchet_core::{StepContext, StepResult, Workflow};
    /// # async fn f<Page: Workflow<Input = u32, Output = u64>>(ctx: &StepContext) -> StepResult<()> {
    /// // The keys stay the same if pages are added in front.
    /// let pages = ctx.spawn_all::<Page>([7, 12, 31]).keyed(|page| format!("page {page}")).await?;
    /// # Ok(()) }
    /// ```
    pub fn keyed(mut self, key: impl Fn(&W::Input) -> String + Send + 'a) -> Self {
        self.key = Some(Box::new(key));
        self
    }

    child_options!();

    async fn spawn(self) -> Result<Children<'a, W::Output>, Error> {
        let Self { ctx, mut template, inputs, first, key, .. } = self;
        template.extras.fan_out = first as usize + inputs.len() > LARGE_FAN_OUT as usize;
        template.check()?;
        ctx.state.check_not_over().await?;
        let mut checked = false;
        let mut left = inputs.len();
        let mut places = Places::with_capacity(left);
        let mut chunk = Chunk::of(left);
        for (offset, input) in inputs.into_iter().enumerate() {
            let key: Option<Name> = key.as_ref().map(|key| key(input.as_input()).into());
            let slot = slot(first + offset as u32, key.as_deref())?;
            let input =
                encode_into(&mut chunk.inputs, "the input of a child", input.as_input(), ctx.state.max_payload())?;
            let hash = fingerprint(&chunk.inputs[input.clone()]);
            left -= 1;
            match ctx.find_child(&template, slot, key.as_ref(), hash)? {
                Found::Contradicts(error) => return ctx.state.unless_contradicted(Err(error)).await,
                Found::Here(place) => {
                    places.push(Some(place));
                    chunk.inputs.truncate(input.start);
                }
                Found::Missing(id) => {
                    chunk.children.push(NewChild { number: places.len(), slot, id, hash, key, input });
                    places.push(None);
                }
            }
            if chunk.is_full() {
                ctx.state.unless_rehearsing().await?;
                if !std::mem::replace(&mut checked, true) {
                    ctx.check_workflow(&template.workflow).await?;
                }
                let full = std::mem::replace(&mut chunk, Chunk::of(left));
                ctx.start_chunk(&template, full, first, &mut places, left).await?;
            }
        }
        if !chunk.children.is_empty() {
            ctx.state.unless_rehearsing().await?;
            ctx.check_workflow(&template.workflow).await?;
            ctx.start_chunk(&template, chunk, first, &mut places, 0).await?;
        }
        ctx.state.unless_rehearsed().await?;
        Ok(Children::new(ctx, places.into_iter().flatten().collect()))
    }
}

impl<'a, W: Workflow, I: AsInput<W::Input> + Send + 'a> IntoFuture for SpawnAll<'a, W, I> {
    /// The handle of the children, in the order of the inputs. It completes when they are stored.
    type Output = Result<Children<'a, W::Output>, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.spawn())
    }
}

/// Where the children of a call are, as far as it is known.
type Places = Vec<Option<Place>>;

/// Children to create with one call.
struct Chunk {
    children: Vec<NewChild>,
    /// Their inputs, one behind the other.
    inputs: Vec<u8>,
}

struct NewChild {
    /// Its number among those of the user's call.
    number: usize,
    slot: Slot,
    id: RunId,
    hash: u64,
    key: Option<Name>,
    /// Where its input is.
    input: Range<usize>,
}

impl Chunk {
    /// An empty one with room for some of so many children.
    fn of(children: usize) -> Self {
        Self { children: Vec::with_capacity(children.min(CHUNK)), inputs: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.children.len() >= CHUNK || self.inputs.len() >= CHUNK_BYTES
    }
}

/// Whether a child is there.
enum Found {
    Here(Place),
    /// It is to be created under this identity.
    Missing(RunId),
    /// There is another one, since before the code ran this time.
    Contradicts(Error),
}

fn slot(index: u32, key: Option<&str>) -> Result<Slot, Error> {
    match key {
        None => Ok(Slot::Index(index)),
        Some(key) => {
            check_name("key", key)?;
            Ok(Slot::of_key(key))
        }
    }
}

impl StepContext {
    /// Looks for a child in the journal.
    fn find_child(&self, template: &Template, slot: Slot, key: Option<&Name>, hash: u64) -> Result<Found, Error> {
        let mut journal = self.state.journal();
        let Some(child) = journal.child(slot) else {
            let origin = self.run_id().uid();
            return Ok(Found::Missing(RunId::child(origin, self.state.lease().step, slot, 0)));
        };
        let entry = child.entry;
        if let Err(conflict) = template.wants(slot, key, hash).check(entry.id, &entry.workflow, entry.fingerprint) {
            let error = Error::ChildConflict(conflict);
            return if child.is_of_before { Ok(Found::Contradicts(error)) } else { Err(error) };
        }
        if child.failed_before && !self.state.info().def.keep_failures {
            return Ok(Found::Missing(child.entry.id.next_generation()));
        }
        let place = child.place;
        ask_for(&mut journal, place, key, hash)?;
        Ok(Found::Here(place))
    }

    /// Checks that somebody can run a workflow, and says which version of it.
    async fn resolve_workflow(&self, template: Template) -> Result<Template, Error> {
        if !template.by_name || self.state.catalog().get(&template.workflow).is_some() {
            self.check_workflow(&template.workflow).await?;
            return Ok(template);
        }
        check_name("workflow name", &template.workflow)?;
        let session = self.state.session();
        let resolved = session.patiently(|| session.resolve(&template.workflow)).await;
        let resolved = announced(&template.workflow, resolved);
        Ok(Template { workflow: self.state.unless_lost(resolved).await?, ..template })
    }

    /// Checks that somebody can run a workflow.
    async fn check_workflow(&self, workflow: &Name) -> Result<(), Error> {
        check_name("workflow name", workflow)?;
        if self.state.catalog().get(workflow).is_some() {
            return Ok(());
        }
        let session = self.state.session();
        let known = session.patiently(|| session.check_known(workflow)).await;
        self.state.unless_lost(announced(workflow, known)).await
    }

    /// Creates children that are not in the journal, of a call whose first child has the index `first`. `more` is how many of the same call may follow.
    async fn start_chunk(
        &self,
        template: &Template,
        chunk: Chunk,
        first: u32,
        places: &mut Places,
        more: usize,
    ) -> Result<(), Error> {
        self.state.open_journal().await?;
        let _call = self.state.unanswered();
        let Chunk { children, inputs } = chunk;
        let inputs = Payload::from(inputs);
        let (headers, sending) = match self.state.scope() {
            None => (Vec::new(), None),
            Some(scope) => {
                let (headers, sending) = scope.spawn_all(Together {
                    workflow: &template.workflow,
                    queue: &template.queue,
                    count: children.len(),
                    before: first as usize + children.first().map_or(0, |child| child.number),
                    inherited: self.state.info().headers.as_ref(),
                    headers: &template.extras.headers,
                });
                (headers, Some(sending))
            }
        };
        let new_run = |child: &NewChild| {
            template.new_run(child.id, inputs.slice(child.input.clone()), child.hash, child.key.clone())
        };
        let new_runs = || {
            let mut runs: Vec<NewRun> = children.iter().map(new_run).collect();
            runs.iter_mut().zip(&headers).for_each(|(run, headers)| run.extras.headers.clone_from(headers));
            runs
        };
        let answer = self.state.session().start_many(Some(*self.state.lease()), new_runs).await;
        let started = self.state.unless_over(answer).await;
        if let Some(sending) = sending {
            sending.end_with(&started);
        }
        let started = started?;
        let mut journal = self.state.journal();
        journal.reserve(children.len() + more);
        for (NewChild { number, slot, id, hash, key, .. }, started) in children.into_iter().zip(started) {
            places[number] = Some(adopt(&mut journal, template, slot, id, hash, key, started)?);
        }
        Ok(())
    }
}

/// Takes a child that the backend has into the journal.
fn adopt(
    journal: &mut Journal,
    template: &Template,
    slot: Slot,
    id: RunId,
    hash: u64,
    key: Option<Name>,
    started: Started,
) -> Result<Place, Error> {
    let asked = hash;
    let (id, hash) = match started {
        Started::Created => (id, hash),
        Started::Exists(there) => {
            let same = template.wants(slot, key.as_ref(), hash).check(there.id, &there.workflow, there.fingerprint);
            same.map_err(Error::ChildConflict)?;
            (there.id, there.fingerprint)
        }
    };
    let place = journal.insert_child(slot, child_entry(id, template.workflow.clone(), hash, key.clone()));
    ask_for(journal, place, key.as_ref(), asked)?;
    Ok(place)
}

/// A key that means two inputs within one attempt is a slip, as two recorded calls under one key are.
fn ask_for(journal: &mut Journal, place: Place, key: Option<&Name>, input: u64) -> Result<(), Error> {
    match key {
        Some(key) if !journal.ask_for(place, input) => {
            Err(Error::DuplicateKey { what: "a child with another input", key: key.to_string() })
        }
        _ => Ok(()),
    }
}
