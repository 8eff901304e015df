//! Choosing a page of rows: from a kept order where the query asks for one, by one pass over the
//! rows in scope otherwise.
//!
//! What it costs: a page in a kept order (creation time or name) merges the permitted namespaces up
//! to the page's end; a filter looks at each row in scope once, another order sorts what is left.

use std::cmp::Ordering;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::collections::btree_set;
use std::iter::Rev;
use std::sync::Arc;

use super::store::{ByCreated, ByName, Shelf, Space, Store};
use crate::auth::Scope;
use crate::kinds::Row;
use crate::query::{self, Key, ListQuery, Sort};

/// So many rows are sooner sorted than a kept order is walked in which they may be rare.
const FEW: usize = 1_000;

/// The rows of a page and how many there are in all, after the filter.
#[derive(Debug, Default)]
pub struct Page {
    pub rows: Vec<Arc<Row>>,
    pub total: usize,
}

impl Store {
    pub fn select(&self, scope: &Scope, query: &ListQuery) -> Page {
        let shelf = self.read();
        match kept_order(query) {
            Some(order) => self.page_in_order(&shelf, scope, query, order, None),
            None => self.page_of_all(&shelf, scope, query),
        }
    }

    /// The page, and all rows in scope that the query's filter leaves, in no order: of one moment,
    /// and for little more than the page alone.
    pub fn select_and_filter(&self, scope: &Scope, query: &ListQuery) -> (Page, Vec<Arc<Row>>) {
        let shelf = self.read();
        let mut left = Vec::new();
        self.spaces(&shelf, scope, |space| {
            let rows = space.names.iter().map(|row| &row.0);
            left.extend(rows.filter(|row| is_wanted(query, row)).cloned());
        });
        let page = match kept_order(query) {
            Some(order) if left.len() > FEW || !query.is_filtered() => {
                self.page_in_order(&shelf, scope, query, order, Some(left.len()))
            }
            _ => page_of(left.iter().collect(), query),
        };
        (page, left)
    }

    /// `left`: how many rows the filter leaves, where that is known; they are counted otherwise.
    fn page_in_order(
        &self,
        shelf: &Shelf,
        scope: &Scope,
        query: &ListQuery,
        (order, descending): (Key, bool),
        left: Option<usize>,
    ) -> Page {
        let (start, end) = bounds(query.page);
        let sort = [Sort { key: order, descending }];
        let mut heads = Vec::new();
        let mut total = 0;
        self.spaces(shelf, scope, |space| {
            total += space.names.len();
            let mut rest = Walk::of(space, order, descending);
            heads.extend(rest.next_wanted(query).map(|row| Head { row, rest, sort: &sort }));
        });
        let mut heads = BinaryHeap::from(heads);
        let mut rows = Vec::new();
        let mut passed = 0;
        for position in 0..end.min(total) {
            let Some(mut head) = heads.peek_mut() else { break };
            passed += 1;
            if position >= start {
                rows.push(head.row.clone());
            }
            match head.rest.next_wanted(query) {
                Some(row) => head.row = row,
                None => drop(PeekMut::pop(head)),
            }
        }
        if let Some(left) = left {
            total = left;
        } else if query.is_filtered() {
            let count = |mut rest: Walk<'_>| std::iter::from_fn(|| rest.next_wanted(query)).count();
            total = passed + heads.into_iter().map(|head| 1 + count(head.rest)).sum::<usize>();
        }
        Page { rows, total }
    }

    fn page_of_all(&self, shelf: &Shelf, scope: &Scope, query: &ListQuery) -> Page {
        let mut rows: Vec<&Arc<Row>> = Vec::new();
        self.spaces(shelf, scope, |space| {
            rows.extend(space.names.iter().map(|row| &row.0).filter(|row| is_wanted(query, row)));
        });
        page_of(rows, query)
    }
}

impl Page {
    /// Those of the rows that the query's filter leaves: what is added up, whatever the page.
    pub fn left(mut rows: Vec<Arc<Row>>, query: &ListQuery) -> Vec<Arc<Row>> {
        rows.retain(|row| is_wanted(query, row));
        rows
    }

    /// The page of rows that came out of a store under a scope, one by one.
    pub fn of(rows: &[Arc<Row>], query: &ListQuery) -> Self {
        page_of(rows.iter().filter(|row| is_wanted(query, row)).collect(), query)
    }
}

fn is_wanted(query: &ListQuery, row: &Row) -> bool {
    query.filters.iter().all(|filter| filter.matches(row)) && query.labels.matches(&row.labels)
}

/// Sorts what the filter left and cuts out the page.
fn page_of(mut rows: Vec<&Arc<Row>>, query: &ListQuery) -> Page {
    let total = rows.len();
    let (start, end) = bounds(query.page);
    let (start, end) = (start.min(total), end.min(total));
    let order = |a: &&Arc<Row>, b: &&Arc<Row>| compare(&query.sort, a, b);
    if end < total && end > 0 {
        // Only the head has to be in order.
        rows.select_nth_unstable_by(end - 1, order);
        rows.truncate(end);
    }
    rows.sort_unstable_by(order);
    let rows = rows.get(start..end).unwrap_or_default().iter().map(|row| (*row).clone());
    Page { rows: rows.collect(), total }
}

/// The kept order that answers this query, if one does.
fn kept_order(query: &ListQuery) -> Option<(Key, bool)> {
    match query.sort.as_slice() {
        [Sort { key: key @ (Key::Created | Key::Name), descending }] => Some((*key, *descending)),
        _ => None,
    }
}

/// A namespace's rows in a kept order.
enum Walk<'a> {
    Names(btree_set::Iter<'a, ByName>),
    NamesBack(Rev<btree_set::Iter<'a, ByName>>),
    /// Newest first.
    Created(btree_set::Iter<'a, ByCreated>),
    CreatedBack(Rev<btree_set::Iter<'a, ByCreated>>),
}

impl<'a> Walk<'a> {
    fn of(space: &'a Space, order: Key, descending: bool) -> Self {
        match (order, descending) {
            (Key::Created, true) => Self::Created(space.created.iter()),
            (Key::Created, false) => Self::CreatedBack(space.created.iter().rev()),
            (_, false) => Self::Names(space.names.iter()),
            (_, true) => Self::NamesBack(space.names.iter().rev()),
        }
    }

    /// The next row that the query's filter leaves.
    fn next_wanted(&mut self, query: &ListQuery) -> Option<&'a Arc<Row>> {
        loop {
            let row = self.next()?;
            if is_wanted(query, row) {
                return Some(row);
            }
        }
    }

    fn next(&mut self) -> Option<&'a Arc<Row>> {
        match self {
            Self::Names(rows) => rows.next().map(|row| &row.0),
            Self::NamesBack(rows) => rows.next().map(|row| &row.0),
            Self::Created(rows) => rows.next().map(|row| &row.0),
            Self::CreatedBack(rows) => rows.next().map(|row| &row.0),
        }
    }
}

/// The next row of a namespace; the heap's greatest head is the row that comes first.
struct Head<'a> {
    row: &'a Arc<Row>,
    rest: Walk<'a>,
    sort: &'a [Sort],
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.sort, other.row, self.row)
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head<'_> {}

/// The rows `start..end` that a page shows.
fn bounds(page: Option<query::Page>) -> (usize, usize) {
    match page {
        None => (0, usize::MAX),
        Some(query::Page { size, index }) => {
            let start = size.saturating_mul(index);
            (start, start.saturating_add(size))
        }
    }
}

/// The order of two rows; ties fall to namespace and name, so that pages neither repeat nor lose rows.
/// Ties of a descending creation time stay in ascending name order, as the kept order has them.
fn compare(sort: &[Sort], a: &Row, b: &Row) -> Ordering {
    for Sort { key, descending } in sort {
        let order = match key {
            Key::Name => a.name.cmp(&b.name),
            Key::Namespace => a.namespace.cmp(&b.namespace),
            Key::Created => a.created.cmp(&b.created),
            Key::Cell(index) => a.cells.get(*index).cmp(&b.cells.get(*index)),
        };
        if order.is_ne() {
            return if *descending { order.reverse() } else { order };
        }
    }
    let tie = a.namespace.cmp(&b.namespace).then_with(|| a.name.cmp(&b.name));
    match sort {
        // The kept orders are walked backwards as a whole: their ties turn with them.
        [Sort { key: Key::Created, descending: false }] => {
            a.namespace.cmp(&b.namespace).then_with(|| b.name.cmp(&a.name))
        }
        _ => tie,
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
