//! The floor on Redis: a bare client that makes the same transitions in batches of the same sizes. A child is pushed with its
//! payload, popped into a claim log, its result is put into its parent's hash and told to the parent's process in the reply.
//! There is no fence, no lease, no journal, no retry and no key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use redis::{Script, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
};

use super::memory::{decode, encode};
use crate::{
    Result,
    flows::{Page, Summary, sum_of},
};

/// How many children the SDK starts in one call, and how many it claims and ends at once with its default of 512 slots.
const STARTS: usize = 500;
const CLAIMS: usize = 256;
/// How many calls of a kind are under way at once.
const FLIGHTS: usize = 2;

/// Ends what was claimed, and claims more. KEYS: queue, claim log, results, open children. ARGV: how many to claim, then
/// index and output of each that ends. The reply is what was claimed, index and input in one, and the outputs that were stored.
/// Results of 64 neighbours share a hash, and those that are neighbours in the call a command.
const STEP: &str = r"
local outputs, fields, key = {}, {}, nil
local function flush()
  if key then redis.call('HSET', key, unpack(fields)) end
end
for i = 2, #ARGV, 2 do
  local index = tonumber(ARGV[i])
  local at = index % 64
  local of = KEYS[3] .. (index - at) / 64
  if of ~= key then
    flush()
    fields, key = {}, of
  end
  fields[#fields + 1], fields[#fields + 2] = at, ARGV[i + 1]
  outputs[#outputs + 1] = ARGV[i + 1]
end
flush()
if #outputs > 0 then
  redis.call('DECRBY', KEYS[4], #outputs)
  redis.call('LTRIM', KEYS[2], #outputs, -1)
end
local want = tonumber(ARGV[1])
local claimed = want > 0 and redis.call('LPOP', KEYS[1], want) or {}
if #claimed > 0 then redis.call('RPUSH', KEYS[2], unpack(claimed)) end
return { claimed, outputs }
";

const QUEUE: &str = "{floor}:queue";
const LOG: &str = "{floor}:log";
const RESULTS: &str = "{floor}:results:";
const OPEN: &str = "{floor}:open";

#[derive(Clone)]
pub(crate) struct Bare {
    connection: MultiplexedConnection,
    step: Script,
}

impl Bare {
    pub(crate) fn new(connection: MultiplexedConnection) -> Self {
        Self { connection, step: Script::new(STEP) }
    }

    /// One fan-out and its gathering.
    pub(crate) async fn gather(&self, children: usize) -> Result<Duration> {
        let _: () = redis::cmd("FLUSHALL").query_async(&mut self.connection.clone()).await?;
        let start = Instant::now();
        self.push(children).await?;
        let sum = self.work_all().await?;
        let time = start.elapsed();
        if sum != sum_of(children) {
            return Err(format!("{children} children gave {sum}").into());
        }
        Ok(time)
    }

    async fn push(&self, children: usize) -> Result<()> {
        let mut flying = JoinSet::new();
        for from in (0..children).step_by(STARTS) {
            let to = children.min(from + STARTS);
            let mut push = redis::pipe();
            push.cmd("INCRBY").arg(OPEN).arg(to - from).ignore();
            push.cmd("RPUSH").arg(QUEUE);
            for index in from..to {
                push.arg(element(index as u32, &encode(&Page::numbered(index))?));
            }
            let mut connection = self.connection.clone();
            flying.spawn(async move { push.ignore().query_async::<()>(&mut connection).await });
            if flying.len() == FLIGHTS {
                flying.join_next().await.ok_or("nothing in flight")???;
            }
        }
        while let Some(pushed) = flying.join_next().await {
            pushed??;
        }
        Ok(())
    }

    /// Claims and ends children until there are none; the sum of what they gave.
    async fn work_all(&self) -> Result<u64> {
        let mut flying = JoinSet::new();
        for _ in 0..FLIGHTS {
            let bare = self.clone();
            flying.spawn(async move { bare.work().await });
        }
        let mut sum = 0;
        while let Some(done) = flying.join_next().await {
            sum += done??;
        }
        Ok(sum)
    }

    async fn work(&self) -> Result<u64> {
        let (mut ended, mut sum) = (Vec::new(), 0);
        loop {
            let (claimed, outputs) = self.step(&ended, CLAIMS).await?;
            for output in &outputs {
                sum += decode::<Summary>(output)?.number();
            }
            if claimed.is_empty() {
                return Ok(sum);
            }
            ended = claimed.iter().map(|element| end(element)).collect::<Result<_>>()?;
        }
    }

    /// Ends children, and claims others: what is claimed, and the outputs that are stored.
    async fn step(&self, ended: &[(u32, Bytes)], want: usize) -> Result<(Vec<Vec<u8>>, Vec<Vec<u8>>)> {
        let mut call = self.step.prepare_invoke();
        call.key(QUEUE).key(LOG).key(RESULTS).key(OPEN).arg(want);
        for (index, output) in ended {
            call.arg(*index).arg(&output[..]);
        }
        Ok(call.invoke_async(&mut self.connection.clone()).await?)
    }
}

/// Fires what is due. KEYS: the timers, the results. ARGV: the time in ms, how many at most. The reply is what was fired.
const FIRE: &str = r"
local due = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
if #due == 0 then return due end
local fields = {}
for i, member in ipairs(due) do fields[2 * i - 1], fields[2 * i] = member, 't' end
redis.call('ZREM', KEYS[1], unpack(due))
redis.call('HSET', KEYS[2], unpack(fields))
return due
";

const TIMERS: &str = "{floor}:timers";

impl Bare {
    /// Reads what [`gather`](Self::gather) has stored, some hashes at a time; the sum.
    pub(crate) async fn read_results(&self, children: usize) -> Result<u64> {
        const HASHES: usize = 16;
        let mut sum = 0;
        let hashes: Vec<usize> = (0..children.div_ceil(64)).collect();
        for some in hashes.chunks(HASHES) {
            let mut read = redis::pipe();
            for hash in some {
                read.cmd("HVALS").arg(format!("{RESULTS}{hash}"));
            }
            let outputs: Vec<Vec<Vec<u8>>> = read.query_async(&mut self.connection.clone()).await?;
            for output in outputs.iter().flatten() {
                sum += decode::<Summary>(output)?.number();
            }
        }
        Ok(sum)
    }

    /// Sets so many timers for one moment, fires them in batches, and ends who slept; how late each was over.
    pub(crate) async fn sleep_all(&self, sleepers: usize, moment: Instant) -> Result<Vec<Duration>> {
        let wait = moment.saturating_duration_since(Instant::now());
        let due = (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + wait).as_millis() as u64;
        let numbers: Vec<usize> = (0..sleepers).collect();
        for some in numbers.chunks(STARTS) {
            let mut set = redis::cmd("ZADD");
            set.arg(TIMERS);
            for number in some {
                set.arg(due).arg(element(*number as u32, &encode(&Page::numbered(*number))?));
            }
            set.query_async::<()>(&mut self.connection.clone()).await?;
        }
        tokio::time::sleep_until(moment.into()).await;
        let (fire, mut lateness) = (Script::new(FIRE), Vec::with_capacity(sleepers));
        while lateness.len() < sleepers {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
            let mut call = fire.prepare_invoke();
            call.key(TIMERS).key(RESULTS).arg(now + 1).arg(STARTS);
            let fired: Vec<Vec<u8>> = call.invoke_async(&mut self.connection.clone()).await?;
            let ended = fired.iter().map(|element| end(element)).collect::<Result<Vec<_>>>()?;
            lateness.extend(ended.iter().map(|_| moment.elapsed()));
            self.step(&ended, 0).await?;
        }
        Ok(lateness)
    }
}

/// Runs one by one for whoever asks, in the batches that form by themselves while a call is under way.
pub(crate) struct Service {
    asked: mpsc::UnboundedSender<Asked>,
    _tasks: JoinSet<Result<()>>,
}

struct Asked {
    index: u32,
    page: Page,
    answer: oneshot::Sender<Bytes>,
}

/// Who waits for which run.
type Waiting = Arc<Mutex<HashMap<u32, oneshot::Sender<Bytes>>>>;

impl Service {
    pub(crate) fn start(bare: &Bare) -> Self {
        let (asked, asking) = mpsc::unbounded_channel();
        let (waiting, pushed) = (Waiting::default(), Arc::new(Notify::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(bare.clone().serve_starts(asking, Arc::clone(&waiting), Arc::clone(&pushed)));
        tasks.spawn(bare.clone().serve_work(waiting, pushed));
        Self { asked, _tasks: tasks }
    }

    pub(crate) async fn run(&self, index: u32, page: Page) -> Result<Summary> {
        let (answer, answered) = oneshot::channel();
        self.asked.send(Asked { index, page, answer }).map_err(|_| "the service is gone")?;
        decode(&answered.await?)
    }
}

impl Bare {
    async fn serve_starts(
        mut self,
        mut asking: mpsc::UnboundedReceiver<Asked>,
        waiting: Waiting,
        pushed: Arc<Notify>,
    ) -> Result<()> {
        let mut batch = Vec::new();
        while asking.recv_many(&mut batch, STARTS).await > 0 {
            let mut push = redis::cmd("RPUSH");
            push.arg(QUEUE);
            for Asked { index, page, answer } in batch.drain(..) {
                push.arg(element(index, &encode(&page)?));
                waiting.lock().map_err(|_| "poisoned")?.insert(index, answer);
            }
            let _: usize = push.query_async(&mut self.connection).await?;
            pushed.notify_one();
        }
        Ok(())
    }

    async fn serve_work(self, waiting: Waiting, pushed: Arc<Notify>) -> Result<()> {
        let mut ended: Vec<(u32, Bytes)> = Vec::new();
        loop {
            let (claimed, outputs) = self.step(&ended, CLAIMS).await?;
            for ((index, _), output) in ended.iter().zip(outputs) {
                if let Some(answer) = waiting.lock().map_err(|_| "poisoned")?.remove(index) {
                    let _ = answer.send(output.into());
                }
            }
            ended = claimed.iter().map(|element| end(element)).collect::<Result<_>>()?;
            if ended.is_empty() {
                pushed.notified().await;
            }
        }
    }
}

/// A queue element: the index, and the payload.
fn element(index: u32, input: &[u8]) -> Vec<u8> {
    [&index.to_be_bytes(), input].concat()
}

fn end(element: &[u8]) -> Result<(u32, Bytes)> {
    let (index, input) = element.split_first_chunk().ok_or("a queue element is too short")?;
    Ok((u32::from_be_bytes(*index), encode(&Summary::of(&decode::<Page>(input)?))?))
}
