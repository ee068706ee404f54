//! Answers of others that are used again for a while, and asked for once however many wait.
//!
//! A question is a hash of all that its answer depends on, so that no answer is ever given to another question. Who asks
//! first sends it off in a task of its own: whoever waits may go away, and the answer is there for the next. Bounded: in
//! answers of each kind, and in questions under way. Answers that say no cannot drive out those that say yes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Timestamp;

/// The most questions under way.
const MOST_UNDER_WAY: usize = 256;
/// The most answers that say yes, in each of two generations.
const MOST_YES: usize = 4096;
/// The most answers that say no, likewise.
const MOST_NO: usize = 2048;

/// A question: SHA-256 of its parts, each with its length.
pub(super) type Question = [u8; 32];

/// The question that these parts make.
pub(super) fn question<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Question {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut question = Question::default();
    question.copy_from_slice(hash.finish().as_ref());
    question
}

/// For how long an answer is used again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    pub(super) until: Timestamp,
    /// Whether it says yes.
    pub(super) is_yes: bool,
}

/// What was asked.
pub(super) struct Asked<V> {
    yes: Mutex<Generations<V>>,
    no: Mutex<Generations<V>>,
    under_way: Mutex<HashMap<Question, watch::Receiver<Option<V>>>>,
}

/// What was used lately stays; the rest goes when there is too much, a whole generation at once.
struct Generations<V> {
    most: usize,
    young: HashMap<Question, (V, Timestamp)>,
    old: HashMap<Question, (V, Timestamp)>,
}

impl<V: Clone> Generations<V> {
    fn new(most: usize) -> Self {
        Self { most, young: HashMap::new(), old: HashMap::new() }
    }

    fn get(&mut self, question: &Question, now: Timestamp) -> Option<V> {
        if let Some((answer, until)) = self.young.get(question) {
            return (now < *until).then(|| answer.clone());
        }
        let (answer, until) = self.old.remove(question).filter(|(_, until)| now < *until)?;
        self.put(*question, answer.clone(), until);
        Some(answer)
    }

    fn put(&mut self, question: Question, answer: V, until: Timestamp) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(question, (answer, until));
    }
}

impl<V: Clone + Send + Sync + 'static> Asked<V> {
    pub(super) fn new() -> Self {
        Self {
            yes: Mutex::new(Generations::new(MOST_YES)),
            no: Mutex::new(Generations::new(MOST_NO)),
            under_way: Mutex::default(),
        }
    }

    /// The answer: one that is known, or that comes of asking. `None` where too much is under way already.
    pub(super) async fn get(
        self: &Arc<Self>,
        question: Question,
        now: Timestamp,
        ask: impl Future<Output = (V, Option<Keep>)> + Send + 'static,
    ) -> Option<V> {
        if let Some(answer) = self.known(&question, now) {
            return Some(answer);
        }
        let mut waiting = self.send(question, now, ask)?;
        // The task that would answer is gone where the gateway ends.
        waiting.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn known(&self, question: &Question, now: Timestamp) -> Option<V> {
        let yes = self.yes.lock().get(question, now);
        yes.or_else(|| self.no.lock().get(question, now))
    }

    fn send(
        self: &Arc<Self>,
        question: Question,
        now: Timestamp,
        ask: impl Future<Output = (V, Option<Keep>)> + Send + 'static,
    ) -> Option<watch::Receiver<Option<V>>> {
        let mut under_way = self.under_way.lock();
        if let Some(waiting) = under_way.get(&question) {
            return Some(waiting.clone());
        }
        // It may have come while we waited for the lock.
        if let Some(answer) = self.known(&question, now) {
            return Some(watch::channel(Some(answer)).1);
        }
        if under_way.len() >= MOST_UNDER_WAY {
            return None;
        }
        let (answered, waiting) = watch::channel(None);
        under_way.insert(question, waiting.clone());
        let landing = Landing { asked: Arc::clone(self), question };
        tokio::spawn(async move {
            let (answer, keep) = ask.await;
            if let Some(Keep { until, is_yes }) = keep.filter(|keep| now < keep.until) {
                let kept = if is_yes { &landing.asked.yes } else { &landing.asked.no };
                kept.lock().put(question, answer.clone(), until);
            }
            // Whoever hears of it may ask again at once, and is not to get the same answer again.
            drop(landing);
            answered.send_replace(Some(answer));
        });
        Some(waiting)
    }
}

/// A question under way; however it ends, it is not any more.
struct Landing<V: Clone + Send + Sync + 'static> {
    asked: Arc<Asked<V>>,
    question: Question,
}

impl<V: Clone + Send + Sync + 'static> Drop for Landing<V> {
    fn drop(&mut self) {
        self.asked.under_way.lock().remove(&self.question);
    }
}

impl<V> fmt::Debug for Asked<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("under_way", &self.under_way.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn number(number: usize) -> Question {
        question([&number.to_be_bytes()[..]])
    }

    fn yes(until: i64) -> Option<Keep> {
        Some(Keep { until: at(until), is_yes: true })
    }

    #[test]
    fn parts_of_a_question_do_not_run_into_each_other() {
        let of = |parts: &[&str]| question(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a", ""]), of(&["a"]));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
    }

    #[tokio::test]
    async fn an_answer_is_used_until_it_ends_and_not_at_all_where_it_is_not_to_be_kept() {
        let (asked, times) = (Arc::new(Asked::new()), Arc::new(AtomicUsize::new(0)));
        let ask = |keep| {
            let times = Arc::clone(&times);
            async move { (times.fetch_add(1, Ordering::SeqCst), keep) }
        };
        assert_eq!(asked.get(number(1), at(0), ask(yes(10))).await, Some(0));
        assert_eq!(asked.get(number(1), at(9), ask(yes(10))).await, Some(0));
        assert_eq!(asked.get(number(1), at(10), ask(None)).await, Some(1));
        assert_eq!(asked.get(number(1), at(10), ask(None)).await, Some(2));
        assert_eq!(asked.get(number(2), at(0), ask(Some(Keep { until: at(5), is_yes: false }))).await, Some(3));
        assert_eq!(asked.get(number(2), at(4), ask(None)).await, Some(3));
    }

    #[tokio::test]
    async fn many_who_ask_the_same_are_one_question() {
        let (asked, times) = (Arc::new(Asked::new()), Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (asked, times) = (Arc::clone(&asked), Arc::clone(&times));
            tasks.spawn(async move {
                let ask = async move {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    (times.fetch_add(1, Ordering::SeqCst), None)
                };
                asked.get(number(1), at(0), ask).await
            });
        }
        assert!(tasks.join_all().await.iter().all(|answer| *answer == Some(0)));
        assert!(asked.under_way.lock().is_empty());
    }

    /// I10, in a small size: whoever goes away leaves nothing behind, and gets nobody else's answer.
    #[tokio::test]
    async fn who_goes_away_leaves_nothing_behind_and_no_answer_is_crossed() {
        let asked = Arc::new(Asked::new());
        for round in 0..500 {
            let mut waiting = Vec::new();
            for which in 0..20 {
                let asked = Arc::clone(&asked);
                waiting.push(tokio::spawn(async move {
                    let ask = async move {
                        tokio::task::yield_now().await;
                        (which, yes(10).filter(|_| which % 2 == 0))
                    };
                    asked.get(number(which), at(round % 20), ask).await
                }));
            }
            tokio::task::yield_now().await;
            for (which, task) in waiting.into_iter().enumerate() {
                if which % 3 == 0 {
                    task.abort();
                } else {
                    assert_eq!(task.await.unwrap(), Some(which));
                }
            }
        }
        tokio::time::timeout(Duration::from_secs(5), async {
            while !asked.under_way.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn questions_under_way_and_answers_are_bounded() {
        let asked = Arc::new(Asked::new());
        let mut tasks = Vec::new();
        for which in 0..MOST_UNDER_WAY {
            let asked = Arc::clone(&asked);
            tasks.push(tokio::spawn(async move { asked.get(number(which), at(0), std::future::pending()).await }));
        }
        while asked.under_way.lock().len() < MOST_UNDER_WAY {
            tokio::task::yield_now().await;
        }
        assert_eq!(asked.get(number(MOST_UNDER_WAY), at(0), async { (1, None) }).await, None);
        tasks.iter().for_each(tokio::task::JoinHandle::abort);

        let mut answers = Generations::new(10);
        for which in 0..1000 {
            answers.put(number(which), which, at(10));
            assert_eq!(answers.get(&number(0), at(0)), Some(0), "what is used stays");
            assert!(answers.young.len() + answers.old.len() <= 20);
        }
    }

    #[tokio::test]
    async fn a_question_whose_task_fails_is_answered_by_nothing_and_can_be_asked_again() {
        let asked = Arc::new(Asked::new());
        let fails = async { panic!("as it happens") };
        assert_eq!(asked.get(number(1), at(0), fails).await, None::<u8>);
        assert_eq!(asked.get(number(1), at(0), async { (1, None) }).await, Some(1));
    }
}
