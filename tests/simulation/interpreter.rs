//! How the steps of the simulation's workflows do what their programs say.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hatchet::{
    __private::{StepCall, StepDef},
    ChildHandle, Children, Error, Limit, RunErrorKind, RunId,
    prelude::*,
};

use super::{
    fleet::Awaited,
    ledger::StepOfRun,
    process::Process,
    program::{A_WHILE, Command, Failing, How, ONLY_ONE, Part, Spawning},
    roots::patiently,
    shapes::{Code, Given, NOBODYS_QUEUE, Node, OLD, Shape, TIMEOUT, name_in, position_in, shape, step_at, with_shape},
};

/// Makes each call's value another one.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// A limit of time that is never reached.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// One pass through the code of a step.
struct Pass<'a> {
    process: &'a Process,
    ctx: &'a StepContext,
    step: StepOfRun,
    code: Code,
    /// The detached runs that it has spawned.
    leaves: Mutex<BTreeSet<RunId>>,
}

impl Process {
    /// Runs a step of a graph.
    pub(super) async fn step(&self, number: usize, code: Code, position: usize, call: &StepCall) -> StepResult<u64> {
        let shape = shape(number);
        let steps = shape.steps.len();
        let ctx = call.ctx();
        let step = (ctx.run_id(), ctx.step().to_owned());
        let session = self.wire.session();
        self.world.ledger.begins(&step, ctx.attempt(), session, self.wire.is_cut_off());
        let Some(at) = step_at(code, steps, position) else { return Ok(0) };
        if at < steps {
            self.world.ledger.takes_place(ctx.run_id(), at, ctx.step());
        }
        if code != OLD {
            self.world.ledger.begins_by_new_code(&step, ctx.attempt());
        }
        let pass = Pass { process: self, ctx, step, code, leaves: Mutex::default() };
        let node = call.input::<Node>()?;
        let part = self.world.programs.get(node.0).parts[at].clone();
        let mut sum = 0;
        let def = shape.steps.get(at).or(shape.hook).expect("a step of the shape");
        if at < shape.steps.len() {
            for &need in def.needs {
                let need = usize::from(need);
                let position = position_in(code, steps, need) as u16;
                sum += call.output::<u64>(position, name_in(code, number, need))?;
            }
        } else {
            if call.failure()?.errors.is_empty() {
                self.world.ledger.fault(format!("the hook of {} was given no failure", ctx.run_id()));
            }
            self.world.ledger.hook_ran(ctx.run_id());
        }
        let result = pass.part(&part, def).await.map(|own| own + sum);
        pass.returns(&shape, at, &part, def, &result);
        if result.is_ok() {
            self.world.ledger.leaves(&pass.step, pass.leaves.into_inner().unwrap());
        }
        self.world.ledger.returns(pass.step, ctx.attempt(), session);
        result
    }
}

impl Pass<'_> {
    async fn part(&self, part: &Part, def: &StepDef) -> StepResult<u64> {
        let mut sum = 0;
        let fails = self.ctx.attempt() <= part.failures;
        for (at, command) in part.commands.iter().enumerate() {
            if fails && at == part.fails_at {
                self.fail(part, def).await?;
            }
            // One that does nothing beside it holds its slot.
            let computes = matches!(command, Command::Compute(_) | Command::MakeWay(_));
            let _computing = computes.then(|| self.process.computes(self.ctx.queue()));
            sum += self.command(&at.to_string(), command).await?;
        }
        if fails {
            self.fail(part, def).await?;
        }
        Ok(sum)
    }

    async fn fail(&self, part: &Part, def: &StepDef) -> StepResult<()> {
        self.fails(part, def);
        match part.how {
            Failing::Error => Err(StepError::new("it fails")),
            Failing::Fatal => Err(StepError::fatal("it fails for good")),
            Failing::Later(wait) => Err(StepError::new("it fails").retry_after(Duration::from_millis(wait))),
            // A panic that is not told on the terminal.
            Failing::Panic => std::panic::resume_unwind(Box::new("it panics")),
            Failing::Hang => {
                // It holds its slot.
                let _late = self.process.world.ledger.lasting();
                std::future::pending().await
            }
        }
    }

    /// The attempt is about to fail: if another one follows, that is to begin after its wait.
    fn fails(&self, part: &Part, def: &StepDef) {
        let attempt = self.ctx.attempt();
        if part.how == Failing::Fatal || attempt > def.retries {
            return;
        }
        let now = tokio::time::Instant::now();
        let (mut least, mut most) = (Duration::ZERO, Duration::ZERO);
        if let Some((first, longest)) = def.backoff {
            most = (first * (1 << (attempt - 1))).min(longest);
            least = if first == longest { longest } else { most.mul_f64(0.75) };
        }
        if let Failing::Later(wait) = part.how {
            (least, most) = (least.max(Duration::from_millis(wait)), most.max(Duration::from_millis(wait)));
        }
        if part.how == Failing::Hang {
            let left = TIMEOUT.saturating_sub(self.ledger().first_begin(&self.step, attempt).elapsed());
            (least, most) = (Duration::ZERO, most + left);
        }
        self.ledger().due(self.step.clone(), attempt + 1, now + least, most);
    }

    /// The step gave something: what needs nothing more is to begin.
    fn returns(&self, shape: &Shape, at: usize, part: &Part, def: &StepDef, result: &StepResult<u64>) {
        let ctx = self.ctx;
        // Not checked: the end of a child that is cancelled with its whole tree may be there before the step itself is stopped.
        let with_its_tree = |error: &StepError| {
            let error = error.to_string();
            error.ends_with("was cancelled: unwanted") || error.ends_with("was cancelled: its parent ended")
        };
        let is_fault = result.as_ref().is_err_and(|error| !with_its_tree(error));
        if is_fault && ctx.attempt() > part.failures && !ctx.is_stopped() {
            let fault = format!("{:?} attempt {} of {def:?}: {result:?}", self.step, ctx.attempt());
            return self.ledger().fault(fault);
        }
        if result.is_ok() {
            let now = tokio::time::Instant::now();
            let after = shape.steps.iter().filter(|step| step.needs == [at as u16]);
            after.for_each(|step| {
                self.ledger().due((ctx.run_id(), step.name.to_owned()), 1, now, Duration::ZERO);
            });
        }
    }

    fn ledger(&self) -> &super::ledger::Ledger {
        &self.process.world.ledger
    }

    /// Notes what the code met, unless the attempt is over.
    fn note(&self, place: &str, what: impl Debug) {
        // One that has lost its lease may find what a later attempt has written, and nobody hears of what it makes of that.
        if self.is_at_work() {
            self.ledger().note(&self.step, self.ctx.attempt(), place, format!("{what:?}"));
        }
    }

    /// Whether the attempt is this one's, as far as it knows.
    fn is_at_work(&self) -> bool {
        !self.process.wire.is_cut_off() && !self.ctx.is_stopped()
    }

    /// Runs a command that stands at a place of the program.
    async fn command(&self, at: &str, command: &Command) -> StepResult<u64> {
        let ctx = self.ctx;
        match command {
            Command::Count => Ok(1),
            Command::Compute(millis) => {
                tokio::time::sleep(Duration::from_millis(*millis)).await;
                Ok(1)
            }
            Command::Call => {
                let call = async || Ok::<_, StepError>(CALLS.fetch_add(1, Ordering::Relaxed));
                self.note(at, ctx.run(at, call).await?);
                Ok(1)
            }
            Command::FailingCall => {
                let call = async || Err::<(), _>(StepError::new(CALLS.fetch_add(1, Ordering::Relaxed)));
                match ctx.run(at, call).await {
                    Err(error @ Error::Recorded { .. }) => self.note(at, error),
                    Err(error) => return Err(error.into()),
                    Ok(()) => return Err(StepError::fatal("it should have failed")),
                }
                Ok(1)
            }
            Command::Ask => {
                self.note(at, (ctx.now().await?, ctx.random(), ctx.uuid()));
                Ok(1)
            }
            Command::Sleep(millis, keyed) => self.sleep(at, *millis, *keyed).await,
            Command::SleepUntil(millis, keyed) => self.sleep_until(at, *millis, *keyed).await,
            Command::Wait => Ok(ctx.wait_for("go").await?),
            Command::Await(millis) => self.await_signal(at, *millis).await,
            Command::WaitInVain(millis) => self.wait_in_vain(at, *millis).await,
            Command::Once { after, race } => self.once(at, *after, *race).await,
            Command::Patched => self.patched(at).await,
            Command::Toil(calls) => {
                for number in 0..*calls {
                    let place = format!("{at}.{number}");
                    let call = async || {
                        tokio::time::sleep(Duration::from_millis(A_WHILE)).await;
                        Ok::<_, StepError>(CALLS.fetch_add(1, Ordering::Relaxed))
                    };
                    self.note(&place, ctx.run(&place, call).await?);
                }
                Ok(1)
            }
            Command::Poison => {
                self.process.wire.die();
                std::future::pending().await
            }
            Command::MakeWay(millis) => {
                let began = tokio::time::Instant::now();
                tokio::select! {
                    biased;
                    () = ctx.shutting_down() => {}
                    () = tokio::time::sleep(Duration::from_millis(*millis)) => {}
                }
                self.process.check_that_it_learned_of_it(began);
                Ok(1)
            }
            Command::Child { node, how, twice } => {
                let child = self.spawn(at, *node, *how).await?;
                if *twice && self.spawn(at, *node, *how).await?.id() != child.id() {
                    return Err(StepError::fatal("one key is two children"));
                }
                self.result_of(at, child).await
            }
            Command::Children { nodes, keyed, bulk, how } => {
                let children = self.spawn_children(at, nodes, *keyed, *bulk).await?;
                self.all(at, children, *how).await
            }
            Command::Recover { failing, node } => {
                let failing = self.spawn(&format!("{at} fails"), *failing, KEYED).await?;
                match failing.result().await {
                    Ok(_) => Err(StepError::fatal("it should have failed")),
                    Err(error) if error.kind() == RunErrorKind::Failed => {
                        let recovery = self.spawn(&format!("{at} recovers"), *node, KEYED).await?;
                        self.result_of(at, recovery).await
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Command::Both(left, right) => {
                let (left, right) = tokio::join!(self.branch(at, 'l', left), self.branch(at, 'r', right));
                Ok(left? + right?)
            }
            Command::Signal(node) => self.signal(at, *node).await,
            Command::Cancel(node) => {
                let child = self.spawn(at, *node, KEYED).await?;
                child.cancel("not wanted").await?;
                self.ends_with(at, child, |kind| kind == RunErrorKind::Cancelled).await
            }
            Command::Leave(node) => {
                self.spawn(at, *node, KEYED).await?;
                Ok(1)
            }
            Command::Expire(node, millis) => self.expires(at, *node, *millis, Limit::Run).await,
            Command::ExpireInQueue(node, millis) => self.expires(at, *node, *millis, Limit::Queue).await,
            Command::Detach(node) => {
                let child = with_shape!(self.shape_of(*node), W => ctx.spawn::<W>(Node(*node)));
                let child = child.key(at).detached().await?;
                self.leaves.lock().unwrap().insert(child.id());
                self.ledger().detached(child.id(), *node);
                Ok(1)
            }
            Command::Race(node, millis) => {
                let child = self.spawn(at, *node, KEYED).await?;
                let winner = tokio::select! {
                    biased;
                    result = child.result() => result.map_or_else(|error| format!("{:?}", error.kind()), |_| "child".to_owned()),
                    _ = ctx.sleep(Duration::from_millis(*millis)).key(at) => "timer".to_owned(),
                };
                self.note(at, winner);
                Ok(1)
            }
            Command::Insist(millis) => self.insist(*millis).await,
        }
    }

    /// Makes a call as the code does that this process has.
    async fn patched(&self, at: &str) -> StepResult<u64> {
        let (ctx, attempt) = (self.ctx, self.ctx.attempt());
        let (old, new) = (format!("{at} old"), format!("{at} new"));
        let call = async || Ok::<_, StepError>(CALLS.fetch_add(1, Ordering::Relaxed));
        // Where no other code comes, all have what this one has.
        if self.code == OLD && self.process.world.has_new_code {
            ctx.run(old, call).await?;
            if self.is_at_work() {
                self.ledger().went_the_old_way(&self.step, attempt, at);
            }
            return Ok(1);
        }
        let is_patched = ctx.patched(at).await?;
        if is_patched && self.is_at_work() {
            self.ledger().goes_the_new_way(&self.step, attempt, at);
        }
        self.note(at, (is_patched, ctx.run(if is_patched { new } else { old }, call).await?));
        Ok(1)
    }

    async fn branch(&self, at: &str, side: char, commands: &[Command]) -> StepResult<u64> {
        let mut sum = 0;
        for (number, command) in commands.iter().enumerate() {
            sum += Box::pin(self.command(&format!("{at}{side}{number}"), command)).await?;
        }
        Ok(sum)
    }

    // ---- waits

    async fn sleep(&self, at: &str, millis: u64, keyed: bool) -> StepResult<u64> {
        let length = Duration::from_millis(millis);
        self.ledger().waits(&self.step, at);
        let sleep = self.ctx.sleep(length);
        if keyed {
            sleep.key(at).await?
        } else {
            sleep.await?
        }
        self.ledger().waited(&self.step, at, length);
        Ok(0)
    }

    /// As a loop does that goes on whatever its wait says. Once the attempt is over, that must not be answered again and again.
    async fn insist(&self, millis: u64) -> StepResult<u64> {
        for _ in 0..1_000 {
            if self.ctx.sleep(Duration::from_millis(millis)).await.is_ok() {
                return Ok(0);
            }
        }
        self.ledger().fault(format!("{:?} is over, and its loop is not stopped", self.step));
        Ok(0)
    }

    async fn sleep_until(&self, at: &str, millis: u64, keyed: bool) -> StepResult<u64> {
        let length = Duration::from_millis(millis);
        self.ledger().waits(&self.step, at);
        let moment = self.ctx.now().await? + length;
        let sleep = self.ctx.sleep_until(moment);
        if keyed {
            sleep.key(at).await?
        } else {
            sleep.await?
        }
        self.ledger().waited(&self.step, at, length);
        Ok(0)
    }

    async fn await_signal(&self, at: &str, millis: u64) -> StepResult<u64> {
        let signal = format!("come {at} {}", self.ctx.step());
        if self.ledger().awaits(self.ctx.run_id(), &signal) {
            let after = Duration::from_millis(millis);
            let awaited = Awaited { run: self.ctx.run_id(), signal: signal.clone(), after, times: 1 };
            drop(self.process.world.awaited.send(awaited));
        }
        Ok(self.ctx.wait_for::<u64>(&signal).await?)
    }

    async fn once(&self, at: &str, after: u64, race: u64) -> StepResult<u64> {
        let (ctx, signal) = (self.ctx, format!("once {at} {}", self.ctx.step()));
        if self.ledger().awaits(ctx.run_id(), &signal) {
            let after = Duration::from_millis(after);
            let awaited = Awaited { run: ctx.run_id(), signal: signal.clone(), after, times: 3 };
            drop(self.process.world.awaited.send(awaited));
        }
        let raced = tokio::select! {
            biased;
            number = ctx.wait_for::<u64>(&signal) => Some(number?),
            slept = ctx.sleep(Duration::from_millis(race)).key(at) => slept.map(|()| None)?,
        };
        self.note(at, raced);
        let number = match raced {
            Some(number) => number,
            None => ctx.wait_for(&signal).await?,
        };
        match ctx.wait_for::<u64>(&signal).timeout(Duration::from_millis(ONLY_ONE)).await {
            Err(Error::Timeout { .. }) => Ok(number),
            Err(error) => Err(error.into()),
            Ok(_) => Err(StepError::fatal("one signal was taken twice")),
        }
    }

    async fn wait_in_vain(&self, at: &str, millis: u64) -> StepResult<u64> {
        let length = Duration::from_millis(millis);
        self.ledger().waits(&self.step, at);
        match self.ctx.wait_for::<u64>(format!("never {at}")).timeout(length).await {
            Err(Error::Timeout { .. }) => self.ledger().waited(&self.step, at, length),
            Err(error) => return Err(error.into()),
            Ok(number) => return Err(StepError::fatal(format!("nobody sent {number}"))),
        }
        Ok(1)
    }

    async fn signal(&self, at: &str, node: u32) -> StepResult<u64> {
        let child = self.spawn(at, node, KEYED).await?;
        let (client, id) = (&self.process.hatchet, child.id());
        let send = async || match patiently(|| client.signal(id, "go", &1)).await {
            // It may be sent again, to a child that has taken it and ended.
            Ok(()) | Err(Error::Ended(_)) => Ok(()),
            Err(error) => Err(error),
        };
        self.ctx.run(at, send).await?;
        self.result_of(at, child).await
    }

    /// Waits for a child that is over its time.
    async fn expires(&self, at: &str, node: u32, millis: u64, limit: Limit) -> StepResult<u64> {
        let length = Duration::from_millis(millis);
        self.ledger().waits(&self.step, at);
        let spawn = with_shape!(self.shape_of(node), W => self.ctx.spawn::<W>(Node(node)));
        let child = match limit {
            Limit::Run => spawn.key(at).timeout(length).await?,
            Limit::Queue => spawn.key(at).queue(NOBODYS_QUEUE).queue_timeout(length).await?,
        };
        let given = self.ends_with(at, child, |kind| kind == RunErrorKind::Expired(limit)).await?;
        // In a retry it is another child, and another wait.
        if self.ctx.attempt() == 1 {
            self.ledger().waited(&self.step, at, length);
        }
        Ok(given)
    }

    async fn ends_with(
        &self,
        at: &str,
        child: ChildHandle<'_, Given>,
        how: impl Fn(RunErrorKind) -> bool,
    ) -> StepResult<u64> {
        match child.result().await {
            Ok(given) => Err(StepError::fatal(format!("it gave {given:?} and should have ended otherwise"))),
            Err(error) if how(error.kind()) => {
                self.note(at, error);
                Ok(1)
            }
            Err(error) => Err(error.into()),
        }
    }

    // ---- children

    fn shape_of(&self, node: u32) -> usize {
        self.process.world.programs.get(node).shape
    }

    async fn spawn(&self, at: &str, node: u32, how: Spawning) -> StepResult<ChildHandle<'_, Given>> {
        let ctx = self.ctx;
        let mut spawn = with_shape!(self.shape_of(node), W => ctx.spawn::<W>(Node(node)));
        if how.keyed {
            spawn = spawn.key(at);
        }
        if how.strict {
            spawn = spawn.strict();
        }
        if let Some(priority) = how.priority {
            spawn = spawn.priority(priority);
        }
        if let Some(queue) = how.queue {
            spawn = spawn.queue(queue);
        }
        if how.limits {
            spawn = spawn.timeout(FAR).queue_timeout(FAR);
        }
        if how.labelled {
            spawn = spawn.metadata("at", at);
        }
        let delay = Duration::from_millis(how.delay.unwrap_or(0));
        if how.delay.is_some() {
            spawn = spawn.delay(delay);
        }
        let asked = self.ledger().first_asked(&self.step, at);
        let child = spawn.await?;
        if how.stored {
            child.stored().await?;
            let found = self.process.world.backend.get(vec![child.id()]).await;
            let is_missing = found.is_ok_and(|found| found.iter().all(Option::is_none));
            if is_missing && self.is_at_work() && !self.ledger().is_unsure() {
                self.ledger().fault(format!(
                    "{:?} has stored child {} at {at}, which nobody finds",
                    self.step,
                    child.id()
                ));
            }
        }
        let shape = shape(self.shape_of(node));
        for step in shape.steps.iter().filter(|step| step.needs.is_empty()) {
            self.ledger().due((child.id(), step.name.to_owned()), 1, asked + delay, delay);
        }
        Ok(child)
    }

    async fn spawn_children(
        &self,
        at: &str,
        nodes: &[u32],
        keyed: bool,
        bulk: bool,
    ) -> StepResult<Children<'_, Given>> {
        if bulk && let Some(&first) = nodes.first() {
            let inputs = nodes.iter().map(|&node| Node(node));
            return Ok(with_shape!(self.shape_of(first), W => self.ctx.spawn_all::<W>(inputs).await?));
        }
        let mut children = Vec::new();
        for (number, &node) in nodes.iter().enumerate() {
            let how = Spawning { keyed, ..Spawning::default() };
            children.push(self.spawn(&format!("{at}.{number}"), node, how).await?);
        }
        Ok(self.ctx.together(children))
    }

    async fn result_of(&self, at: &str, child: ChildHandle<'_, Given>) -> StepResult<u64> {
        let result = child.result().await;
        if !is_unavailable(&result) {
            self.note(at, &result);
        }
        given(result)
    }

    async fn all(&self, at: &str, children: Children<'_, Given>, how: How) -> StepResult<u64> {
        let mut all = self.ctx.together(children.handles().collect::<Vec<_>>());
        match how {
            How::Settled => drop(all),
            How::Gather => match all.gather().await {
                Err(error) if error.kind() == RunErrorKind::Unavailable => return Err(error.into()),
                result => self.note(at, result),
            },
            How::First => {
                let first = all.first().await;
                self.note(at, first.map(|child| (child.index, child.result)));
            }
            How::Next => {
                let mut order = Vec::new();
                while let Some(child) = all.next().await {
                    order.push((child.index, child.result));
                }
                self.note(at, order);
            }
        }
        children.settled().await.into_iter().map(given).sum()
    }
}

const KEYED: Spawning = Spawning {
    keyed: true,
    strict: false,
    priority: None,
    queue: None,
    delay: None,
    limits: false,
    labelled: false,
    stored: false,
};

fn is_unavailable(result: &Result<Given, RunError>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == RunErrorKind::Unavailable)
}

/// What a child gave; 1 if it failed.
fn given(result: Result<Given, RunError>) -> StepResult<u64> {
    match result {
        Ok(Given(number)) => Ok(number),
        Err(error) if error.kind() == RunErrorKind::Failed => Ok(1),
        Err(error) => Err(error.into()),
    }
}
