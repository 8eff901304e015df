//! Tests of the table: what a line keeps and costs, what has room in it, and when sums are made.

use super::*;
use crate::kinds::usage::MOST_MEMORY;

fn item(name: &str, time: i64) -> Measured {
    let usage = UsageFacts { time, cpu: 1, memory: 1024 };
    Measured { namespace: "n".into(), name: name.into(), usage }
}

fn apply(table: &mut Table, now: i64, mut items: Vec<Measured>, most: usize) -> usize {
    let news = table.news(&items);
    table.apply(now, &mut items, news, most)
}

fn names(table: &Table) -> Vec<&str> {
    let spaces = table.spaces.values();
    let mut names: Vec<_> = spaces.flat_map(|space| space.lines.keys()).collect();
    names.sort_unstable();
    names.into_iter().map(CompactString::as_str).collect()
}

#[test]
fn a_thinned_series_keeps_its_newest_point() {
    let points = [0, 15, 30, 45, 60, 75, 90].map(|at| (at, at, at)).to_vec();
    let thin = Series { points, sources: 1 }.thinned(45);
    assert_eq!(thin.points, [(0, 0, 0), (45, 45, 45), (90, 90, 90)]);
}

#[test]
fn a_series_since_a_creation_has_nothing_from_before_it() {
    let points = [0, 15, 30].map(|at| (at, at, at)).to_vec();
    let series = Series { points, sources: 1 };
    let since = |created, measured| {
        let left = series.clone().since(created, measured);
        left.map(|left| left.points.iter().map(|point| point.0).collect::<Vec<_>>())
    };
    assert_eq!(since(0, 25).unwrap(), [15, 30]);
    assert_eq!(since(15, 25).unwrap(), [30]);
    // Seen after its creation, and measured after it or before.
    assert_eq!(since(20, 20).unwrap(), [30]);
    assert_eq!(since(20, 19), None);
    assert_eq!(since(31, 31), None);
}

#[test]
fn what_the_last_poll_did_not_have_is_shown_to_nobody_until_it_is_back() {
    let mut table = Table::default();
    apply(&mut table, 1_000, vec![item("a", 1), item("b", 1)], 10);
    apply(&mut table, 1_015, vec![item("b", 2)], 10);
    assert!(table.get("n", "a").is_none());
    apply(&mut table, 1_030, vec![item("a", 3), item("b", 3)], 10);
    assert_eq!(table.get("n", "a").unwrap().points.iter().filter_map(|at| at.get()).count(), 2);
}

#[test]
fn a_point_takes_eight_bytes_and_an_object_sixty_of_them() {
    let mut table = Table::default();
    for poll in 0..200 {
        apply(&mut table, 1_000 + poll * 15, vec![item("a", poll)], 10);
    }
    let line = table.get("n", "a").unwrap();
    assert_eq!((line.points.len(), line.points.capacity()), (POINTS, POINTS));
    assert_eq!(size_of::<Point>(), 8);
    assert_eq!((table.axis.len(), table.count()), (POINTS, 1));
}

#[test]
fn the_largest_usage_that_makes_sense_fits_a_point() {
    for (cpu, memory) in [(0, 0), (MOST_CPU, 0), (0, MOST_MEMORY), (MOST_CPU, MOST_MEMORY)] {
        let point = Point::of(UsageFacts { time: 0, cpu, memory });
        assert_eq!(point.get(), Some((cpu, memory)));
        assert!(point != Point::NONE && point != Point::SAME);
    }
    assert_eq!((Point::NONE.get(), Point::SAME.get()), (None, None));
    assert_eq!(Point::of(UsageFacts { time: 0, cpu: 1, memory: 1 }).get(), Some((1, 1024)));
}

#[test]
fn without_room_the_past_of_what_is_gone_goes_first_and_what_is_new_last() {
    let mut table = Table::default();
    assert_eq!(apply(&mut table, 1_000, vec![item("a", 1), item("b", 1)], 3), 0);
    assert_eq!(apply(&mut table, 1_015, vec![item("b", 2), item("c", 2)], 3), 0);
    assert_eq!(names(&table), ["a", "b", "c"]);
    let items = vec![item("b", 3), item("c", 3), item("d", 3), item("e", 3)];
    assert_eq!(apply(&mut table, 1_030, items, 3), 1);
    assert_eq!(names(&table), ["b", "c", "d"]);
    assert_eq!(table.get("n", "b").unwrap().points.len(), 3);
}

#[test]
fn an_object_that_a_list_has_twice_counts_once() {
    let mut table = Table::default();
    for poll in 0..3 {
        let twice = vec![item("a", poll * 2), item("a", poll * 2 + 1)];
        apply(&mut table, 1_000 + poll * 15, twice, 10);
    }
    assert_eq!((table.count(), table.get("n", "a").unwrap().points.len()), (1, 3));
}

#[test]
fn sums_are_made_once_a_poll_and_not_while_its_points_are_put() {
    let mut table = Table::default();
    let is_made = |table: &Table| table.space("n").unwrap().sum.get().is_some();
    for poll in 0..3 {
        let items = vec![item("a", poll), item("b", 0)];
        apply(&mut table, 1_000 + poll * 15, items, 10);
        assert!(!is_made(&table), "readers would wait for it");
        if poll != 1 {
            table.add_up();
            assert!(is_made(&table));
        }
        let mut sums = table.sums();
        sums.add_space(table.space("n").unwrap());
        assert!(is_made(&table), "who asks before gets it too");
        let series = sums.series();
        assert_eq!((series.points.len(), series.sources), (table.axis.len(), 2));
        assert!(series.points.iter().all(|(_, cpu, _)| *cpu == 2), "{series:?}");
    }
}
