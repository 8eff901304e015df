//! The property that every answer rests on: whatever the roles, bindings and requests, a person
//! gets from a gateway exactly what the API server itself gives to the same token. No row more, no
//! row less, no count of what is not theirs; with the shared cache and without it.
//!
//! `BINNACLE_RBAC_SEED` replays a run, `BINNACLE_RBAC_CASES` sets its length. It is NOT where
//! single rules are told apart (`rights.rs`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;

use crate::cluster;
use crate::gateway::{self, Answer, Options};
use crate::property_ask::Ask;
use crate::property_judge::{Difference, judge};
use crate::property_truth::{Client, Truth};
use crate::property_world::{Object, Rng, World};

const CASES: u64 = 1_000;
/// Cases of one person, one after the other: as a person sends them.
const GROUP: u64 = 8;
/// Groups at once.
const AT_ONCE: usize = 6;
/// One group in so many changes a person's rights, about every hundred cases.
const CHANGE: u64 = 12;
/// One case in so many is asked of the gateway without a cache, too.
const LIVE: u64 = 10;
/// Verdicts live ten seconds; ten times as long an answer may take to become the right one.
const PATIENCE: Duration = Duration::from_secs(100);
const PAUSE: Duration = Duration::from_millis(250);
/// The dice of groups, cases and changes.
const GROUPS: u64 = 1 << 32;
const CASE: u64 = 2 << 32;
const CHANGES: u64 = 3 << 32;

struct Run<'a> {
    seed: u64,
    world: &'a World,
    truth: Truth<'a>,
    cached: Client,
    live: Client,
    /// Changes come one after the other.
    changing: tokio::sync::Mutex<()>,
    /// Lists of rows that the cache keeps, as the cached gateway gave them, and those from the cache.
    lists: AtomicUsize,
    shared: AtomicUsize,
}

/// A number of the environment, decimal or with `0x`.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|error| panic!("{name}={text}: {error}; a number is needed")))
}

fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |now| now.as_secs() ^ (u64::from(now.subsec_nanos()) << 32))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_exactly_what_the_api_server_gives_the_same_person() {
    let seed = number("BINNACLE_RBAC_SEED").unwrap_or_else(random_seed);
    let cases = number("BINNACLE_RBAC_CASES").unwrap_or(CASES);
    eprintln!("{cases} cases; BINNACLE_RBAC_SEED={seed:#x} replays them");
    let cluster = cluster::shared().await;
    let api = Client::of_cluster(cluster);
    let begun = Instant::now();
    let world = World::make(cluster, &api, seed).await;
    eprintln!("the world is made after {:.1} s", begun.elapsed().as_secs_f64());
    let extra = vec!["--namespaces".to_owned(), world.namespaces.join(",")];
    let live = Options { shared_cache: false, extra, ..Options::default() };
    let (cached, live) = tokio::join!(gateway::start(Options::default()), gateway::start(live));
    let run = Run {
        seed,
        world: &world,
        truth: Truth::new(&world, &api),
        cached: Client::of_gateway(&cached),
        live: Client::of_gateway(&live),
        changing: tokio::sync::Mutex::default(),
        lists: AtomicUsize::default(),
        shared: AtomicUsize::default(),
    };
    run.finds_what_shows_once(cluster.token("admin")).await;
    let groups = futures::stream::iter(0..cases.div_ceil(GROUP));
    groups.for_each_concurrent(AT_ONCE, |index| run.group(index)).await;
    eprintln!("{cases} cases agree after {:.1} s", begun.elapsed().as_secs_f64());
    // What is listed as the caller equals the API server's answer anyway: it proves nothing of the cache.
    let (lists, shared) = (run.lists.into_inner(), run.shared.into_inner());
    assert!(lists > 0 && shared * 10 >= lists * 9, "{shared} of {lists} lists were the cache's");
}

impl Run<'_> {
    async fn group(&self, index: u64) {
        if index % CHANGE != CHANGE - 1 {
            let who = Rng::of(self.seed, GROUPS + index).below(self.world.people.len());
            return self.cases(index, who).await;
        }
        let mut rng = Rng::of(self.seed, CHANGES + index);
        let who = {
            let _alone = self.changing.lock().await;
            let (change, whose) = self.world.plan(&mut rng);
            let who = *rng.pick(&whose);
            // What is answered now is remembered when the rights are others.
            self.cases(index, who).await;
            self.truth.changed(&whose);
            self.world.apply(self.truth.api, change).await;
            self.truth.changed(&whose);
            who
        };
        self.cases(index, who).await;
    }

    async fn cases(&self, group: u64, who: usize) {
        for number in group * GROUP..(group + 1) * GROUP {
            let ask = Ask::random(self.world, &mut Rng::of(self.seed, CASE + number));
            self.case(number, who, &ask, "cached", &self.cached).await;
            if number % LIVE == 0 {
                self.case(number, who, &ask, "live", &self.live).await;
            }
        }
    }

    async fn case(&self, number: u64, who: usize, ask: &Ask, which: &str, gateway: &Client) {
        let (begun, path) = (Instant::now(), ask.path(self.world));
        let token = &self.world.people[who].token;
        let given = async || {
            let answer = gateway.get(token, &path).await;
            if which == "cached" {
                self.count(ask, &answer);
            }
            answer
        };
        let wrong = self.wrong(who, ask, given).await;
        let Some((Difference { leak, text }, answer)) = wrong else { return };
        let (seed, rules) = (self.seed, self.world.rules_of(who));
        let waited = begun.elapsed().as_secs_f64();
        panic!(
            "BINNACLE_RBAC_SEED={seed:#x}, case {number}, {which} gateway, after \
             {waited:.1} s:\nGET {path}\n{}{text}\nby {rules}answer {}: {}",
            if leak { "NOT PERMITTED: " } else { "" },
            answer.status,
            answer.text(),
        );
    }

    /// Counts lists that the cache could give, and those that it gave.
    fn count(&self, ask: &Ask, answer: &Answer) {
        let Ask::List(asked) = ask else { return };
        let is_kept = asked.served.kind.is_kept() && asked.served.kind.name != "namespace";
        if !is_kept || answer.status != 200 || answer.json()["listMeta"]["totalItems"] == 0 {
            return;
        }
        self.lists.fetch_add(1, Ordering::Relaxed);
        let is_shared = answer.header("binnacle-source") == "cache";
        self.shared.fetch_add(usize::from(is_shared), Ordering::Relaxed);
    }

    /// Asks until the answer is right; what is not permitted must not be there even once, unless
    /// this person's rights were just changed. The answer that is wrong, if there is one.
    async fn wrong(
        &self,
        who: usize,
        ask: &Ask,
        mut given: impl AsyncFnMut() -> Answer,
    ) -> Option<(Difference, Answer)> {
        let begun = Instant::now();
        let mut fresh = false;
        loop {
            let (settling, before) = (self.truth.is_settling(who), self.truth.changed_at(who));
            let answer = given().await;
            let mut verdict = judge(&self.truth, who, ask, &answer, fresh).await;
            if !fresh && matches!(verdict, Err(Difference { leak: true, .. })) {
                // What was remembered of the API server may be out of date. The same answer is
                // judged again: the next one may not have what this one must not have.
                verdict = judge(&self.truth, who, ask, &answer, true).await;
            }
            let difference = verdict.err()?;
            let changed = self.truth.changed_at(who);
            let is_late = begun.max(changed.unwrap_or(begun)).elapsed() > PATIENCE;
            // However long the judge took: it is about when the answer was given.
            let settling = settling || changed != before;
            if is_late || (difference.leak && !settling) {
                return Some((difference, answer));
            }
            // Nor is the next look at what was remembered.
            fresh = true;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// An answer that somebody else may have, given once, is found: what follows does not hide it.
    async fn finds_what_shows_once(&self, admin: &str) {
        let pod = self.world.objects.iter().find(|object| object.served.kind.name == "pod");
        let Object { served, namespace, name } = pod.expect("the world has pods");
        let direct = format!("{}/{name}", served.at.collection(Some(namespace)));
        let ask = Ask::Detail { served: *served, namespace: namespace.clone(), name: name.clone() };
        let path = ask.path(self.world);
        for (who, person) in self.world.people.iter().enumerate() {
            if self.truth.get(who, &direct, "application/json").await.status != 403 {
                continue;
            }
            let leak = self.cached.get(admin, &path).await;
            let mut answers = vec![self.cached.get(&person.token, &path).await, leak];
            assert_eq!((answers[0].status, answers[1].status), (403, 200));
            let next = async || answers.pop().expect("nobody asks again");
            let wrong = self.wrong(who, &ask, next).await;
            assert!(wrong.is_some_and(|(difference, _)| difference.leak), "{path}: not noticed");
            return;
        }
        panic!("everybody may read {path}");
    }
}

#[test]
fn the_dice_are_the_same_for_the_same_seed_and_others_for_another() {
    let draw = |seed, stream| {
        let mut rng = Rng::of(seed, stream);
        [rng.draw(), rng.draw(), rng.draw()]
    };
    assert_eq!(draw(7, 1), draw(7, 1));
    assert_ne!(draw(7, 1), draw(7, 2));
    assert_ne!(draw(7, 1), draw(8, 1));
    let mut rng = Rng::of(7, 1);
    assert!((0..1_000).all(|_| rng.below(6) < 6));
}
