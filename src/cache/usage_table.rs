//! The points of one kind's usage on one time axis, so that sums over objects share their times.
//!
//! Memory: 8 bytes a point and at most 60 points, so an object costs at most 480 bytes besides its
//! names and about 150 bytes of tables: 6 MiB for 10,000 pods. It knows no scopes and no clock.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::OnceLock;

use ahash::RandomState;
use compact_str::CompactString;

use crate::kinds::UsageFacts;
use crate::kinds::usage::{MOST_CPU, Measured};

/// As long as the history of the Kubernetes Dashboard's own scraper, in seconds.
pub(super) const WINDOW: i64 = 15 * 60;
/// Points of one object: the window at the pace of the poll.
pub(super) const POINTS: usize = 60;
/// A point is put when a poll first sees what was measured, some seconds later: one that is younger
/// than an object by less than this, in seconds, may have been measured before it was there.
const LAG: i64 = 15;
/// By how many points a history grows: a pod of two minutes does not pay for fifteen.
const GROWTH: usize = 10;

/// Usage over time: of one object, or of several added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Series {
    /// Unix seconds, millicores and bytes; oldest first.
    pub points: Vec<(i64, i64, i64)>,
    /// How many objects are in it.
    pub sources: usize,
}

impl Series {
    /// The newest points that lie at least `apart` seconds from each other, oldest first.
    pub fn thinned(&self, apart: i64) -> Self {
        let mut points: Vec<(i64, i64, i64)> = Vec::new();
        for point in self.points.iter().rev() {
            if points.last().is_none_or(|later| later.0 - point.0 >= apart) {
                points.push(*point);
            }
        }
        points.reverse();
        Self { points, sources: self.sources }
    }

    /// Without the points that are of another object of the same name, or may be: one was `created`
    /// then, and the last point was `measured` then by the source (unix seconds). `None` when none
    /// is left.
    pub fn since(mut self, created: i64, measured: i64) -> Option<Self> {
        let last = self.points.last().map(|point| point.0).filter(|_| measured >= created)?;
        self.points.retain(|(at, ..)| *at >= created + LAG || *at >= created && *at == last);
        (!self.points.is_empty()).then_some(self)
    }
}

/// The histories of one kind on one time axis. Ticks are numbered from the table's beginning; the
/// axis holds the times of the last ones.
#[derive(Default)]
pub(super) struct Table {
    axis: VecDeque<i64>,
    /// Number of the axis' first tick.
    first: u32,
    /// Number of the last poll.
    polls: u32,
    spaces: HashMap<CompactString, Space, RandomState>,
    count: usize,
}

#[derive(Default)]
pub(super) struct Space {
    lines: HashMap<CompactString, Line, RandomState>,
    /// Sums over the lines of the last poll, and how many lines that are; made once a poll.
    sum: OnceLock<(Vec<Cell>, usize)>,
}

/// What of a poll's items is new to the table as it is before.
#[derive(Clone, Copy)]
pub(super) struct News {
    /// Items without a history.
    new: usize,
    /// One of the others was measured anew.
    moved: bool,
}

/// One object's points, one for each tick from `first` on.
pub(super) struct Line {
    /// The source's time of the last point.
    seen: i64,
    /// The last poll that had this object.
    polled: u32,
    first: u32,
    points: Vec<Point>,
    /// The last measurement before them, for sums.
    before: Point,
}

/// 24 bits of millicores and 40 bits of KiB, as `kinds::usage` bounds them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Point(u64);

/// The sum at one tick of the axis; `None` where nothing was measured.
type Cell = Option<(i64, i64)>;

/// Sums over objects of a table, in the making.
pub(super) struct Sums<'a> {
    table: &'a Table,
    cells: Vec<Cell>,
    sources: usize,
}

impl Table {
    /// How many objects have a history.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Number of the last poll; a new one with each that changes anything.
    pub fn polls(&self) -> u32 {
        self.polls
    }

    /// An object that the last poll had: of others the past is kept for their return, but shown to
    /// nobody, because they may be gone.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Line> {
        self.line_in(self.space(namespace)?, name)
    }

    /// The same of a namespace that was looked up before.
    pub fn line_in<'a>(&self, space: &'a Space, name: &str) -> Option<&'a Line> {
        space.lines.get(name).filter(|line| line.polled == self.polls)
    }

    pub fn space(&self, namespace: &str) -> Option<&Space> {
        self.spaces.get(namespace)
    }

    /// The namespaces.
    pub fn spaces(&self) -> impl Iterator<Item = (&str, &Space)> {
        self.spaces.iter().map(|(namespace, space)| (namespace.as_str(), space))
    }

    /// Sums over nothing.
    pub fn sums(&self) -> Sums<'_> {
        Sums { table: self, cells: vec![None; self.axis.len()], sources: 0 }
    }

    /// What has to be known of a poll's items before they are taken: found out while others read.
    pub fn news(&self, items: &[Measured]) -> News {
        // Looked at twice rather than sorted into lists of their own: those would be megabytes.
        let mut news = News { new: 0, moved: false };
        for item in items {
            let space = self.space(&item.namespace);
            match space.and_then(|space| space.lines.get(item.name.as_str())) {
                Some(line) => news.moved |= line.seen != item.usage.time,
                None => news.new += 1,
            }
        }
        news
    }

    /// Takes one poll's items at our own time `now` in unix seconds. An object gets a point only
    /// when the source's time for it is another than before (another, not a later one: a node's
    /// clock may be set back); in sums it counts meanwhile as it was measured last. Returns how
    /// many objects did not fit into `most`. The items are left to the caller, without the names
    /// that are kept: nobody has to wait while they are freed.
    pub fn apply(&mut self, now: i64, items: &mut [Measured], news: News, most: usize) -> usize {
        if let Some(last) = self.axis.back()
            && now <= *last
        {
            // Our clock was set back: what was before lies as far before it as before the old one.
            let back = *last - now + 1;
            self.axis.iter_mut().for_each(|at| *at -= back);
        }
        self.polls = self.polls.wrapping_add(1);
        self.expire(now);
        let News { new, moved } = news;
        let is_news = new > 0 || moved;
        if is_news {
            self.axis.push_back(now);
            while self.axis.len() > POINTS {
                self.axis.pop_front();
                self.first += 1;
            }
        }
        let (polls, tick) = (self.polls, self.next_tick().saturating_sub(1));
        for item in items.iter() {
            if let Some(line) = self.line(item) {
                line.polled = polls;
                if is_news {
                    line.take(tick, item.usage);
                }
            }
        }
        if self.count + new > most {
            // Room for what is there now: the past of what is gone goes first.
            for space in self.spaces.values_mut() {
                space.lines.retain(|_, line| line.polled == polls);
            }
            self.recount();
        }
        let mut room = most.saturating_sub(self.count).min(new);
        let surplus = new - room;
        for item in items {
            if room > 0 && self.line(item).is_none() {
                let space = self.spaces.entry(mem::take(&mut item.namespace)).or_default();
                space.lines.insert(mem::take(&mut item.name), Line::new(polls, tick, item.usage));
                room -= 1;
            }
        }
        self.trim();
        surplus
    }

    /// Adds up what the last poll has brought, while others read.
    pub fn add_up(&self) {
        for space in self.spaces.values() {
            space.sum(self);
        }
    }

    fn line(&mut self, item: &Measured) -> Option<&mut Line> {
        self.spaces.get_mut(item.namespace.as_str())?.lines.get_mut(item.name.as_str())
    }

    /// Number of the tick after the last one.
    fn next_tick(&self) -> u32 {
        self.first + u32::try_from(self.axis.len()).unwrap_or(u32::MAX)
    }

    fn expire(&mut self, now: i64) {
        while self.axis.front().is_some_and(|at| *at <= now - WINDOW) {
            self.axis.pop_front();
            self.first += 1;
        }
    }

    /// Drops what has left the axis, objects of which nothing is left, and the sums over the
    /// others: those are added up while others read.
    fn trim(&mut self) {
        let (first, polls) = (self.first, self.polls);
        for Space { lines, sum } in self.spaces.values_mut() {
            *sum = OnceLock::new();
            lines.retain(|_, line| {
                line.trim(first);
                line.polled == polls || !line.points.is_empty()
            });
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.spaces.retain(|_, space| !space.lines.is_empty());
        self.count = self.spaces.values().map(|space| space.lines.len()).sum();
    }
}

impl Space {
    /// Its sums, added up now if nobody has asked since the last poll.
    fn sum(&self, table: &Table) -> &(Vec<Cell>, usize) {
        self.sum.get_or_init(|| {
            let mut sums = table.sums();
            let polled = self.lines.values().filter(|line| line.polled == table.polls);
            polled.for_each(|line| sums.add(line));
            (sums.cells, sums.sources)
        })
    }
}

impl Line {
    fn new(polled: u32, tick: u32, usage: UsageFacts) -> Self {
        let (seen, before) = (usage.time, Point::NONE);
        let mut line = Self { seen, polled, first: tick, points: Vec::new(), before };
        line.push(Point::of(usage));
        line
    }

    fn take(&mut self, tick: u32, usage: UsageFacts) {
        let is_same = self.seen == usage.time;
        self.seen = usage.time;
        self.trim((tick + 1).saturating_sub(POINTS as u32));
        if self.points.is_empty() {
            if is_same {
                return;
            }
            self.first = tick;
        }
        // What is back after a while is told anew: before it there is nothing to be the same as.
        let point = match is_same && self.next_tick() == tick {
            true => Point::SAME,
            false => Point::of(usage),
        };
        while self.next_tick() < tick {
            self.push(Point::NONE);
        }
        // An object that a list has twice counts once.
        if self.next_tick() == tick {
            self.push(point);
        }
    }

    /// The source's time of its last point.
    pub fn measured(&self) -> i64 {
        self.seen
    }

    fn next_tick(&self) -> u32 {
        self.first + u32::try_from(self.points.len()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, point: Point) {
        if self.points.len() == self.points.capacity() {
            self.points.reserve_exact(GROWTH);
        }
        self.points.push(point);
    }

    /// Adds its points, which are at most as old as the tick `first` of these sums; those between
    /// two measurements only where they are `held`. Answers whether it has any, as a number.
    fn add_to(&self, cells: &mut [Cell], first: u32, held: bool) -> usize {
        let start = usize::try_from(self.first.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut known = self.before.get();
        for (cell, point) in cells.iter_mut().skip(start).zip(&self.points) {
            let is_same = *point == Point::SAME;
            if !is_same {
                known = point.get();
            }
            if held || !is_same {
                add(cell, known);
            }
        }
        usize::from(!self.points.is_empty())
    }

    /// Forgets the points before the tick `first`. A measurement outlives the window only as long
    /// as another is in it.
    fn trim(&mut self, first: u32) {
        let gone = usize::try_from(first.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let gone = gone.min(self.points.len());
        let last = self.points.drain(..gone).rfind(|point| *point != Point::SAME);
        self.before = last.unwrap_or(self.before);
        self.first = self.first.max(first);
        if self.points.iter().all(|point| *point == Point::SAME) {
            self.points.clear();
            self.before = Point::NONE;
        }
    }
}

impl Point {
    /// The poll did not have it.
    const NONE: Self = Self(u64::MAX);
    /// The poll had it, not measured anew. No point: more memory than `kinds::usage` lets through.
    const SAME: Self = Self(u64::MAX - 1);

    fn of(UsageFacts { cpu, memory, .. }: UsageFacts) -> Self {
        let kib = memory.max(0).unsigned_abs().div_ceil(1024);
        Self((kib << 24) | cpu.clamp(0, MOST_CPU).unsigned_abs())
    }

    /// Millicores and bytes.
    fn get(self) -> Option<(i64, i64)> {
        if matches!(self, Self::NONE | Self::SAME) {
            return None;
        }
        let memory = i64::try_from((self.0 >> 24) << 10).unwrap_or(i64::MAX);
        Some((self.0.cast_signed() & MOST_CPU, memory))
    }
}

impl Sums<'_> {
    /// Adds an object, between two measurements as it was measured last: a sum leaves nothing out.
    pub fn add(&mut self, line: &Line) {
        self.sources += line.add_to(&mut self.cells, self.table.first, true);
    }

    /// Adds the measurements of an object and nothing between them: its own history.
    pub fn add_measured(&mut self, line: &Line) {
        self.sources += line.add_to(&mut self.cells, self.table.first, false);
    }

    /// Adds all objects of a namespace that the last poll had.
    pub fn add_space(&mut self, space: &Space) {
        let (cells, sources) = space.sum(self.table);
        for (cell, more) in self.cells.iter_mut().zip(cells) {
            add(cell, *more);
        }
        self.sources += sources;
    }

    pub fn series(self) -> Series {
        let points = self.table.axis.iter().zip(self.cells);
        let points = points.filter_map(|(at, cell)| cell.map(|(cpu, memory)| (*at, cpu, memory)));
        Series { points: points.collect(), sources: self.sources }
    }
}

fn add(cell: &mut Cell, more: Cell) {
    let Some((cpu, memory)) = more else { return };
    let (all_cpu, all_memory) = cell.unwrap_or_default();
    *cell = Some((all_cpu.saturating_add(cpu), all_memory.saturating_add(memory)));
}

#[cfg(test)]
#[path = "usage_table_tests.rs"]
mod tests;
