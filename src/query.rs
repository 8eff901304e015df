//! The list query grammar: paging, sorting, filtering, label selectors, and the namespaces of a
//! path.
//!
//! Pure: text in, query out. Odd values are ignored as the contract says, each with a warning;
//! only a filter on an unknown column, a broken label selector and too many namespaces are errors.

mod labels;

pub use labels::Selector;

use std::borrow::Cow;

use compact_str::CompactString;

use crate::kinds::{Cell, KindDef, Row};

/// Filters and sort keys taken from one query: each costs a pass over the rows.
const KEYS: usize = 16;
/// Namespaces in one path: each may cost a review and a list.
const NAMESPACES: usize = 1_000;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// `None`: everything on one page.
    pub page: Option<Page>,
    pub sort: Vec<Sort>,
    pub filters: Vec<Filter>,
    pub labels: Selector,
    /// Message ids and arguments of what was ignored.
    pub warnings: Vec<(&'static str, CompactString)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub size: usize,
    /// Counted from 0.
    pub index: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    pub key: Key,
    pub descending: bool,
}

/// Rows whose `key` contains `text`. Before the column's name may stand, in any order, `!` (rows
/// that do not), `~` (whatever the case) and `=` (the whole value): columns' names have none of
/// these, so that every filter of the contract means what it always did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub key: Key,
    pub text: CompactString,
    pub how: How,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct How {
    pub negated: bool,
    pub any_case: bool,
    pub whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Name,
    Namespace,
    Created,
    /// Position in `Row::cells`.
    Cell(usize),
}

/// A query that cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadQuery {
    UnknownFilter {
        column: String,
        /// The columns that can be filtered by, comma separated.
        known: String,
    },
    Selector {
        reason: String,
    },
    TooManyNamespaces {
        most: usize,
    },
}

impl ListQuery {
    /// Parses a raw (still percent-encoded) query string for lists of `kind`.
    pub fn parse(raw: Option<&str>, kind: &KindDef) -> Result<Self, BadQuery> {
        let mut query = Self::default();
        let (mut size, mut number, mut sort, mut filter) = (None, None, None, None);
        for (name, value) in pairs(raw.unwrap_or_default()) {
            match name.as_ref() {
                "itemsPerPage" => size = Some(value),
                "page" => number = Some(value),
                "sortBy" => sort = Some(value),
                "filterBy" => filter = Some(value),
                "labelSelector" => {
                    query.labels =
                        Selector::parse(&value).map_err(|reason| BadQuery::Selector { reason })?;
                }
                _ => {}
            }
        }
        query.page = query.paging(size.as_deref(), number.as_deref());
        if let Some(sort) = sort {
            query.sort = query.sorting(&sort, kind);
        }
        if let Some(filter) = filter {
            query.filters = query.filtering(&filter, kind)?;
        }
        Ok(query)
    }

    /// Whether it leaves rows out.
    pub fn is_filtered(&self) -> bool {
        !self.filters.is_empty() || !self.labels.is_empty()
    }

    fn paging(&mut self, size: Option<&str>, number: Option<&str>) -> Option<Page> {
        let (Some(size_text), Some(number_text)) = (size, number) else {
            return None;
        };
        let parsed = (size_text.parse::<i64>(), number_text.parse::<i64>());
        let (Ok(size @ 0..), Ok(number @ 1..)) = parsed else {
            let pair = CompactString::from(format!("{size_text}, {number_text}"));
            self.warnings.push(("warning-odd-paging", pair));
            return None;
        };
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        Some(Page { size: usize::try_from(size).unwrap_or(usize::MAX), index })
    }

    fn sorting(&mut self, text: &str, kind: &KindDef) -> Vec<Sort> {
        if text.is_empty() {
            return Vec::new();
        }
        let parts: Vec<_> = text.split(',').take(2 * KEYS + 1).collect();
        let pairs = parts.chunks_exact(2);
        let odd = !pairs.remainder().is_empty();
        if odd || pairs.clone().any(|pair| !matches!(pair[0], "a" | "d")) {
            self.warnings.push(("warning-odd-sort", text.into()));
            return Vec::new();
        }
        let mut sort = Vec::new();
        for pair in pairs {
            let Some(key) = Key::named(pair[1], kind) else {
                // An unknown property ends the comparison there: later keys have no effect.
                self.warnings.push(("warning-unknown-sort", pair[1].into()));
                break;
            };
            sort.push(Sort { key, descending: pair[0] == "d" });
        }
        sort
    }

    fn filtering(&mut self, text: &str, kind: &KindDef) -> Result<Vec<Filter>, BadQuery> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let parts: Vec<_> = text.split(',').take(2 * KEYS + 1).collect();
        let pairs = parts.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            self.warnings.push(("warning-odd-filter", text.into()));
            return Ok(Vec::new());
        }
        pairs.map(|pair| Filter::of(pair[0], pair[1], kind)).collect()
    }
}

/// Names and values of a query string. Most have nothing to decode, which is seen sooner than done.
fn pairs(raw: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    raw.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
        if pair.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
            return url::form_urlencoded::parse(pair.as_bytes()).next();
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((Cow::Borrowed(name), Cow::Borrowed(value)))
    })
}

impl Key {
    fn named(name: &str, kind: &KindDef) -> Option<Self> {
        match name {
            "name" => Some(Self::Name),
            "namespace" => Some(Self::Namespace),
            "creationTimestamp" => Some(Self::Created),
            _ => kind.column(name).map(Self::Cell),
        }
    }
}

impl Filter {
    fn of(column: &str, text: &str, kind: &KindDef) -> Result<Self, BadQuery> {
        let name = column.trim_start_matches(['!', '~', '=']);
        let signs = &column[..column.len() - name.len()];
        let how = How {
            negated: signs.contains('!'),
            any_case: signs.contains('~'),
            whole: signs.contains('='),
        };
        let Some(key) = Key::named(name, kind) else {
            return Err(BadQuery::UnknownFilter {
                column: name.chars().take(64).collect(),
                known: columns(kind).join(", "),
            });
        };
        let text = if how.any_case { text.to_lowercase().into() } else { text.into() };
        Ok(Self { key, text, how })
    }

    pub fn matches(&self, row: &Row) -> bool {
        let time = |seconds: Option<i64>| {
            let time = seconds.and_then(crate::kinds::time);
            time.is_some_and(|time| self.fits(&time))
        };
        let fits = match self.key {
            Key::Name => self.fits(&row.name),
            Key::Namespace => self.fits(&row.namespace),
            Key::Created => time(Some(row.created)),
            Key::Cell(index) => match row.cells.get(index) {
                Some(Cell::Text(text)) => self.fits(text),
                Some(Cell::Number(number)) => self.fits(&number.to_string()),
                Some(Cell::Time(seconds)) => time(*seconds),
                None => false,
            },
        };
        fits != self.how.negated
    }

    fn fits(&self, value: &str) -> bool {
        let lower;
        let value = if self.how.any_case {
            lower = value.to_lowercase();
            &lower
        } else {
            value
        };
        if self.how.whole { value == self.text } else { value.contains(self.text.as_str()) }
    }
}

/// The columns that `sortBy` and `filterBy` take.
pub fn columns(kind: &KindDef) -> Vec<&'static str> {
    let own = kind.columns.iter().map(|column| column.name);
    ["name", "namespace", "creationTimestamp"].into_iter().chain(own).collect()
}

/// Namespaces of a list path's (decoded) segment: a comma list, blanks trimmed, empty parts
/// dropped; nothing left means all namespaces. More than `NAMESPACES` are refused, not cut.
pub fn namespaces(segment: &str) -> Result<Vec<CompactString>, BadQuery> {
    let names = segment.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut names: Vec<CompactString> = names.map(CompactString::from).collect();
    names.sort();
    names.dedup();
    if names.len() > NAMESPACES {
        return Err(BadQuery::TooManyNamespaces { most: NAMESPACES });
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(raw: &str) -> ListQuery {
        ListQuery::parse(Some(raw), crate::kinds::by_name("pod").unwrap()).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn a_query_string_is_taken_apart_as_a_form_is(raw in "[a=&%+2é]{0,24}") {
            let form: Vec<_> = url::form_urlencoded::parse(raw.as_bytes()).collect();
            proptest::prop_assert_eq!(pairs(&raw).collect::<Vec<_>>(), form);
        }
    }

    #[test]
    fn paging_counts_from_one_and_odd_values_mean_no_paging() {
        assert_eq!(pods("itemsPerPage=10&page=2").page, Some(Page { size: 10, index: 1 }));
        assert_eq!(pods("itemsPerPage=0&page=1").page, Some(Page { size: 0, index: 0 }));
        for odd in [
            "itemsPerPage=10&page=0",
            "itemsPerPage=-1&page=1",
            "itemsPerPage=x&page=1",
            "itemsPerPage=10&page=99999999999999999999",
        ] {
            let query = pods(odd);
            assert_eq!(query.page, None, "{odd}");
            assert_eq!(query.warnings.len(), 1, "{odd}");
        }
        assert_eq!(pods("page=3").page, None);
        assert_eq!(pods("").page, None);
    }

    #[test]
    fn sorting_takes_pairs_and_stops_at_an_unknown_property() {
        let query = pods("sortBy=d,creationTimestamp,a,name");
        assert_eq!(
            query.sort,
            [
                Sort { key: Key::Created, descending: true },
                Sort { key: Key::Name, descending: false }
            ]
        );
        let query = pods("sortBy=a,age,d,name");
        assert_eq!(query.sort, []);
        assert_eq!(query.warnings, [("warning-unknown-sort", "age".into())]);
    }

    #[test]
    fn a_malformed_sort_is_ignored_as_a_whole() {
        for odd in ["sortBy=a,name,d", "sortBy=x,name", "sortBy=a,name,A,status", "sortBy=name"] {
            let query = pods(odd);
            assert_eq!(query.sort, [], "{odd}");
            assert_eq!(query.warnings[0].0, "warning-odd-sort", "{odd}");
        }
    }

    #[test]
    fn filters_are_pairs_of_a_text_column_and_a_substring() {
        let query = pods("filterBy=name,web,status,Run");
        assert_eq!(query.filters.len(), 2);
        let how = How::default();
        assert_eq!(query.filters[1], Filter { key: Key::Cell(0), text: "Run".into(), how });
        assert_eq!(pods("filterBy=name,a,b").warnings[0].0, "warning-odd-filter");
    }

    #[test]
    fn a_filter_on_an_unknown_column_names_the_known_ones() {
        let kind = crate::kinds::by_name("pod").unwrap();
        let error = ListQuery::parse(Some("filterBy=colour,red"), kind).unwrap_err();
        let known = "name, namespace, creationTimestamp, status".into();
        assert_eq!(error, BadQuery::UnknownFilter { column: "colour".into(), known });
        let error = ListQuery::parse(Some("labelSelector=a%3Db%3Dc"), kind).unwrap_err();
        assert!(matches!(error, BadQuery::Selector { .. }));
    }

    #[test]
    fn a_filter_may_be_negated_regardless_of_case_and_of_the_whole_value() {
        let kind = crate::kinds::by_name("pod").unwrap();
        let json = r#"{"metadata":{"name":"Web-1","namespace":"atlas",
            "creationTimestamp":"2026-01-02T03:04:05Z"},"status":{"phase":"Running"}}"#;
        let row = (kind.row)(json).unwrap();
        let fits = |filter: &str| pods(&format!("filterBy={filter}")).filters[0].matches(&row);
        for filter in [
            "name,Web",
            "!name,db",
            "~name,web",
            "!~name,DB",
            "=status,Running",
            "~=name,web-1",
            "!=status,Run",
            "creationTimestamp,2026-01-02",
            "namespace,atl",
        ] {
            assert!(fits(filter), "{filter}");
        }
        for filter in ["name,web", "!name,Web", "=name,Web", "!~name,WEB", "creationTimestamp,2025"]
        {
            assert!(!fits(filter), "{filter}");
        }
    }

    #[test]
    fn the_namespaces_of_a_path_are_a_trimmed_comma_list() {
        assert_eq!(namespaces(" ").unwrap(), [] as [&str; 0]);
        assert_eq!(namespaces("b, a,,a").unwrap(), ["a", "b"]);
    }

    #[test]
    fn more_namespaces_than_are_looked_into_are_an_error_and_not_cut() {
        let names = |number: usize| (0..number).map(|at| format!("n{at},")).collect::<String>();
        let most = NAMESPACES;
        assert_eq!(namespaces(&names(most).repeat(2)).unwrap().len(), most);
        assert_eq!(namespaces(&names(most + 1)), Err(BadQuery::TooManyNamespaces { most }));
    }

    #[test]
    fn events_are_filtered_by_their_columns_like_every_kind() {
        let kind = crate::kinds::by_name("event").unwrap();
        let query = ListQuery::parse(Some("filterBy=reason,Back"), kind).unwrap();
        assert_eq!(query.filters[0].key, Key::Cell(kind.column("reason").unwrap()));
        let error = ListQuery::parse(Some("filterBy=colour,red"), kind).unwrap_err();
        assert!(matches!(error, BadQuery::UnknownFilter { .. }));
    }
}
