//! The list query grammar: paging, sorting, filtering, and the namespaces of a path.
//!
//! Pure: text in, query out. Odd values are ignored as the contract says, each with a warning;
//! only a filter on an unknown or a time column is an error.

use compact_str::CompactString;

use crate::kinds::{Cell, KindDef};

/// Filters and sort keys taken from one query: each costs a pass over the rows.
const KEYS: usize = 16;
/// Namespaces taken from one path.
const NAMESPACES: usize = 1_000;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// `None`: everything on one page.
    pub page: Option<Page>,
    pub sort: Vec<Sort>,
    pub filters: Vec<Filter>,
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

/// Rows whose `key` contains `text`, case-sensitively.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub key: Key,
    pub text: CompactString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Name,
    Namespace,
    Created,
    /// Position in `Row::cells`.
    Cell(usize),
}

/// A filter that cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFilter {
    pub column: String,
    /// The columns that can be filtered by, comma separated.
    pub known: String,
}

impl ListQuery {
    /// Parses a raw (still percent-encoded) query string for lists of `kind`.
    pub fn parse(raw: Option<&str>, kind: &KindDef) -> Result<Self, UnknownFilter> {
        let mut query = Self::default();
        let (mut size, mut number, mut sort, mut filter) = (None, None, None, None);
        for (name, value) in url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "itemsPerPage" => size = Some(value),
                "page" => number = Some(value),
                "sortBy" => sort = Some(value),
                "filterBy" => filter = Some(value),
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

    fn filtering(&mut self, text: &str, kind: &KindDef) -> Result<Vec<Filter>, UnknownFilter> {
        // Events ignore filters in the contract.
        if text.is_empty() || kind.name == "event" {
            return Ok(Vec::new());
        }
        let parts: Vec<_> = text.split(',').take(2 * KEYS + 1).collect();
        let pairs = parts.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            self.warnings.push(("warning-odd-filter", text.into()));
            return Ok(Vec::new());
        }
        pairs
            .map(|pair| match Key::named(pair[0], kind) {
                Some(key) if key.is_text(kind) => Ok(Filter { key, text: pair[1].into() }),
                _ => Err(UnknownFilter {
                    column: pair[0].chars().take(64).collect(),
                    known: filter_columns(kind).join(", "),
                }),
            })
            .collect()
    }
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

    fn is_text(self, kind: &KindDef) -> bool {
        match self {
            Self::Name | Self::Namespace => true,
            Self::Created => false,
            Self::Cell(index) => kind.columns.get(index).is_some_and(|column| !column.is_time),
        }
    }
}

impl Filter {
    pub fn matches(&self, row: &crate::kinds::Row) -> bool {
        let text = match self.key {
            Key::Name => row.name.as_str(),
            Key::Namespace => row.namespace.as_str(),
            Key::Created => return false,
            Key::Cell(index) => match row.cells.get(index) {
                Some(Cell::Text(text)) => text.as_str(),
                _ => return false,
            },
        };
        text.contains(self.text.as_str())
    }
}

/// The columns that `filterBy` takes.
pub fn filter_columns(kind: &KindDef) -> Vec<&'static str> {
    let own = kind.columns.iter().filter(|column| !column.is_time).map(|column| column.name);
    ["name", "namespace"].into_iter().chain(own).collect()
}

/// The columns that `sortBy` takes.
pub fn sort_columns(kind: &KindDef) -> Vec<&'static str> {
    let own = kind.columns.iter().map(|column| column.name);
    ["name", "namespace", "creationTimestamp"].into_iter().chain(own).collect()
}

/// Namespaces of a list path's (decoded) segment: a comma list, blanks trimmed, empty parts
/// dropped; nothing left means all namespaces.
pub fn namespaces(segment: &str) -> Vec<CompactString> {
    let mut names: Vec<CompactString> = segment
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .take(NAMESPACES)
        .map(CompactString::from)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(raw: &str) -> ListQuery {
        ListQuery::parse(Some(raw), crate::kinds::by_name("pod").unwrap()).unwrap()
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
        assert_eq!(query.filters[1], Filter { key: Key::Cell(0), text: "Run".into() });
        assert_eq!(pods("filterBy=name,a,b").warnings[0].0, "warning-odd-filter");
    }

    #[test]
    fn a_filter_on_an_unknown_or_time_column_names_the_known_ones() {
        let kind = crate::kinds::by_name("pod").unwrap();
        for raw in ["filterBy=colour,red", "filterBy=creationTimestamp,2026"] {
            let error = ListQuery::parse(Some(raw), kind).unwrap_err();
            assert_eq!(error.known, "name, namespace, status");
        }
    }

    #[test]
    fn the_namespaces_of_a_path_are_a_trimmed_comma_list() {
        assert_eq!(namespaces(" "), [] as [&str; 0]);
        assert_eq!(namespaces("b, a,,a"), ["a", "b"]);
    }
}
