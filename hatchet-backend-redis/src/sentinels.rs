//! The master that sentinels know, followed: an old master that is being replaced goes on taking writes for ten seconds, and all
//! of them are lost.
//!
//! Sentinels tell of what they do, and are asked each second too, all of them side by side. The newest configuration epoch
//! holds, also if only one of them has said it: a sentinel gives a master an epoch only with the votes of a majority, so that there is
//! one master to an epoch, and who names an older one has not heard of the newer yet. So nobody is gone back to, unless a majority says
//! so: then their state was set up anew, and their epochs begin from the start. From the moment at which they begin to replace a master that lives, nothing is sent to it: what it has
//! acknowledged before reaches its replicas meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::{future::join_all, stream::StreamExt as _};
use redis::{Pipeline, Value};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    codec::bytes_text,
    error::Error,
    lookup::{LIMIT, first_answers},
    node::{Lane, Node},
    servers::Servers,
    topology::Place,
};

/// How often sentinels are asked of which nothing is heard.
const PERIOD: Duration = Duration::from_secs(1);
const PERIOD_OF_A_FAILOVER: Duration = Duration::from_millis(100);
/// After this time nobody asks any more, and whoever wants to know does.
const OLD: Duration = Duration::from_secs(3);
/// How long a master that is being replaced is left alone. One that is not replaced by then is gone on with.
const LONGEST_HOLD: Duration = Duration::from_secs(3);
/// What sentinels tell about.
const EVENTS: [&str; 4] = ["+switch-master", BEGUN, "*failover*", "+promoted-slave"];
const BEGUN: &str = "+try-failover";

/// Sentinels that know a master by a name.
#[derive(Debug)]
pub(crate) struct Sentinels {
    service: String,
    sentinels: Vec<Arc<Node>>,
    known: watch::Sender<Known>,
    /// Something was heard.
    told: Notify,
    follower: Mutex<Option<(Lane, JoinHandle<()>)>>,
}

/// What is known of the master.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Since when it is being replaced.
    failover: Option<Instant>,
    /// When the sentinels were last asked.
    asked: Option<Instant>,
    /// Who is master, as far as is known.
    newest: Option<Answer>,
}

/// What one of them says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    master: Place,
    epoch: u64,
    is_replacing: bool,
}

impl Sentinels {
    pub(crate) fn new(service: String, sentinels: Vec<Arc<Node>>) -> Self {
        Self { service, sentinels, known: watch::Sender::default(), told: Notify::new(), follower: Mutex::default() }
    }

    /// Asks who is master.
    pub(crate) async fn ask(&self, lane: Lane) -> Result<Place, Error> {
        self.known.send_modify(|known| known.asked = Some(Instant::now()));
        let answers = self.sentinels.iter().map(|sentinel| (sentinel.silence(), self.ask_one(sentinel, lane)));
        let answers = first_answers(answers).await?;
        let mut chosen = None;
        self.known.send_modify(|known| {
            chosen = choose(&answers, known.newest.as_ref(), self.sentinels.len());
            let is_replacing = chosen.as_ref().is_some_and(|chosen| chosen.is_replacing);
            known.failover = if is_replacing { known.failover.or_else(|| Some(Instant::now())) } else { None };
            known.newest.clone_from(&chosen);
        });
        chosen.map(|chosen| chosen.master).ok_or(Error::NoAnswer)
    }

    async fn ask_one(&self, sentinel: &Node, lane: Lane) -> Result<Answer, Error> {
        let mut question = Pipeline::with_capacity(2);
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        question.cmd("SENTINEL").arg("MASTER").arg(&self.service);
        let mut answers = sentinel.send_each(lane, &question, 2).await?.into_iter();
        let (Some(address), Some(details)) = (answers.next(), answers.next()) else {
            return Err(Error::Malformed(REPLY));
        };
        let Value::Array(address) = address? else {
            return Err(Error::Settings(format!("the sentinels know no master named {:?}", self.service)));
        };
        let mut address = address.into_iter().map(bytes_text);
        let (Some(host), Some(port)) = (address.next(), address.next()) else { return Err(Error::Malformed(REPLY)) };
        let (host, port) = (host?, port?);
        // Without the right to ask for more the first one holds.
        let details = details.ok().map(read_details).unwrap_or_default();
        let field = |name: &str| details.get(name).map_or("", String::as_str);
        // As soon as a replica has taken over, the address is the new one's, and the details are still about the old one.
        let is_replacing = field("flags").split(',').any(|flag| flag == "failover_in_progress")
            && (field("ip"), field("port")) == (&*host, &*port);
        let epoch = field("config-epoch").parse().unwrap_or_default();
        Ok(Answer { master: (host, port.parse().map_err(|_| Error::Malformed(REPLY))?), epoch, is_replacing })
    }

    /// Waits while the master is being replaced, and sees to it that somebody follows the sentinels, where the heartbeats are sent if
    /// they are: there no step blocks the runtime.
    pub(crate) async fn settled(&self, servers: &Arc<Servers>, lane: Lane) {
        self.ensure_followed(servers, lane);
        let known = self.known.borrow().clone();
        if known.asked.is_some_and(|asked| asked.elapsed() > OLD) {
            let _ = servers.find(lane, 0).await;
        }
        if let Some(since) = known.failover {
            let mut known = self.known.subscribe();
            let _ = timeout_at(since + LONGEST_HOLD, known.wait_for(|known| known.failover.is_none())).await;
        }
    }

    fn ensure_followed(&self, servers: &Arc<Servers>, lane: Lane) {
        if servers.virtual_time().is_some() {
            return;
        }
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let is_well_followed = follower
            .as_ref()
            .is_some_and(|(of, task)| !task.is_finished() && (*of == Lane::Heartbeats || lane != Lane::Heartbeats));
        if !is_well_followed {
            let task = tokio::spawn(follow(Arc::downgrade(servers), lane));
            if let Some((_, task)) = follower.replace((lane, task)) {
                task.abort();
            }
        }
    }

    /// Takes note of what a sentinel tells.
    fn hear(&self, event: &str, about: &str) {
        let words: Vec<&str> = about.split(' ').collect();
        // `master main …`, `slave … @ main …`, or, of a master that was replaced, `main …`.
        if !words.contains(&self.service.as_str()) {
            return;
        }
        if event == BEGUN {
            let begins = self.known.send_if_modified(|known| {
                let begins = known.failover.is_none();
                known.failover.get_or_insert_with(Instant::now);
                begins
            });
            if begins {
                tracing::info!(
                    service = self.service,
                    "the sentinels are replacing the master; calls wait for the new one"
                );
            }
        }
        self.told.notify_one();
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        let follower = self.follower.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, task)) = follower {
            task.abort();
        }
    }
}

/// Asks the sentinels who is master whenever one of them tells something, and from time to time.
async fn follow(servers: Weak<Servers>, lane: Lane) {
    let nodes = |servers: Arc<Servers>| Some(servers.sentinels()?.sentinels.clone());
    let Some(sentinels) = servers.upgrade().and_then(nodes) else { return };
    let listeners = join_all(sentinels.into_iter().map(|sentinel| listen(sentinel, servers.clone())));
    let ask = async {
        while let Some(servers) = servers.upgrade() {
            let _ = servers.find(lane, 0).await;
            let Some(sentinels) = servers.sentinels() else { return };
            let is_replacing = sentinels.known.borrow().failover.is_some();
            let period = if is_replacing { PERIOD_OF_A_FAILOVER } else { PERIOD };
            let _ = timeout(period, sentinels.told.notified()).await;
        }
    };
    tokio::select! {
        _ = listeners => {}
        () = ask => {}
    }
}

/// Passes on what a sentinel tells, as long as somebody wants to know.
async fn listen(sentinel: Arc<Node>, servers: Weak<Servers>) {
    loop {
        if let Ok(Ok(mut messages)) = timeout(LIMIT, sentinel.subscribe(&EVENTS)).await {
            while let Some(message) = messages.next().await {
                let Some(servers) = servers.upgrade() else { return };
                let about = String::from_utf8_lossy(message.get_payload_bytes()).into_owned();
                if let Some(sentinels) = servers.sentinels() {
                    sentinels.hear(message.get_channel_name(), &about);
                }
            }
        }
        sleep(PERIOD).await;
    }
}

/// Which of these answers holds, after this one was `known`: that with the newest epoch, the first that was heard of several. Nobody goes
/// back to an older one than was known, unless most of the sentinels do.
fn choose(answers: &[Answer], known: Option<&Answer>, sentinels: usize) -> Option<Answer> {
    let epoch = answers.iter().map(|answer| answer.epoch).max()?;
    if let Some(known) = known
        && known.epoch > epoch
        && 2 * answers.len() <= sentinels
    {
        return Some(Answer { is_replacing: false, ..known.clone() });
    }
    let newest = || answers.iter().filter(|answer| answer.epoch == epoch);
    let is_replacing = newest().any(|answer| answer.is_replacing);
    newest().next().map(|first| Answer { is_replacing, ..first.clone() })
}

const REPLY: &str = "what a sentinel says";

/// Names and values, one after the other.
fn read_details(reply: Value) -> HashMap<String, String> {
    let Value::Array(words) = reply else { return HashMap::new() };
    let words: Vec<String> = words.into_iter().map(|word| bytes_text(word).unwrap_or_default()).collect();
    words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(host: &str, epoch: u64) -> Answer {
        Answer { master: (host.to_owned(), 1), epoch, is_replacing: false }
    }

    /// Who is master by these answers of three sentinels.
    fn chosen(answers: &[Answer], known: Option<&Answer>) -> String {
        choose(answers, known, 3).expect("an answer").master.0
    }

    #[test]
    fn the_newest_epoch_holds_whoever_is_heard_first() {
        let (old, new) = (answer("old", 1), answer("new", 2));
        for answers in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
            assert_eq!(chosen(&answers, None), "new");
        }
        // Two who have not heard of it yet do not outvote the one who has.
        assert_eq!(chosen(&[old.clone(), old.clone(), new.clone()], Some(&old)), "new");
    }

    #[test]
    fn one_answer_will_do_unless_it_is_older_than_what_is_known() {
        let (old, new) = (answer("old", 1), answer("new", 2));
        assert_eq!(chosen(std::slice::from_ref(&old), None), "old");
        assert_eq!(chosen(std::slice::from_ref(&new), Some(&old)), "new");
        assert_eq!(chosen(std::slice::from_ref(&old), Some(&new)), "new");
        assert_eq!(choose(&[], Some(&new), 3), None);
    }

    #[test]
    fn sentinels_that_were_set_up_anew_are_believed_when_most_of_them_say_so() {
        let (before, anew) = (answer("before", 9), answer("anew", 0));
        assert_eq!(chosen(std::slice::from_ref(&anew), Some(&before)), "before");
        assert_eq!(chosen(&[anew.clone(), anew], Some(&before)), "anew");
    }

    #[test]
    fn of_those_with_one_epoch_the_first_that_was_heard_holds() {
        // As where the user has no right to ask for the epochs.
        assert_eq!(chosen(&[answer("a", 0), answer("b", 0)], None), "a");
        let is_replacing = Answer { is_replacing: true, ..answer("a", 3) };
        let chosen = choose(&[answer("a", 3), is_replacing], None, 3).expect("an answer");
        assert!(chosen.is_replacing, "any of them says it");
    }
}
