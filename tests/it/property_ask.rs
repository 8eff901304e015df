//! The requests of `property.rs`: lists with random namespaces, pages, orders, filters and
//! selectors, details, searches and overviews; and what a list's query means, said once more.
//!
//! It asks nothing and knows no rights.

use std::cmp::Ordering;

use binnacle::kinds::{Cell, Holds, Row};

use crate::property_world::{Rng, Served, World};

/// One request.
pub enum Ask {
    List(List),
    Detail {
        served: Served,
        namespace: String,
        name: String,
    },
    Search(Search),
    /// Of one namespace.
    Overview(String),
}

pub struct List {
    pub served: Served,
    /// `None`: all namespaces.
    pub wanted: Option<Vec<String>>,
    /// All namespaces are asked for by a blank.
    blank: bool,
    /// Only rows with the world's label.
    pub narrowed: bool,
    /// Rows on a page, and its number from 1.
    page: Option<(usize, usize)>,
    /// Descending, and what.
    sort: Vec<(bool, Key)>,
    filter: Option<Filter>,
    labels: Option<&'static str>,
}

pub struct Search {
    pub text: String,
    pub kinds: Vec<Served>,
    pub wanted: Option<Vec<String>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Key {
    Name,
    Namespace,
    Created,
    Cell(usize),
}

struct Filter {
    key: Key,
    /// `!`, `~` and `=` in any order.
    signs: &'static str,
    text: String,
}

const SELECTORS: [&str; 6] = [
    "tier=front",
    "tier!=front",
    "tier in (front,back)",
    "tier notin (front)",
    "canary",
    "!canary",
];

impl Ask {
    pub fn random(world: &World, rng: &mut Rng) -> Self {
        match rng.below(100) {
            0..10 => {
                let object = rng.pick(&world.objects);
                let name = if rng.chance(10) { "no-such-one" } else { object.name.as_str() };
                let (served, namespace) = (object.served, object.namespace.clone());
                Self::Detail { served, namespace, name: name.to_owned() }
            }
            10..14 => Self::Search(Search::random(world, rng)),
            14..17 => Self::Overview(rng.pick(&world.namespaces).clone()),
            _ => Self::List(List::random(world, rng)),
        }
    }

    /// Path and query, as the gateway is asked.
    pub fn path(&self, world: &World) -> String {
        match self {
            Self::List(list) => list.path(world),
            Self::Detail { served, namespace, name } => match namespace.as_str() {
                "" => format!("/api/v1/{}/{name}", served.kind.name),
                namespace => format!("/api/v1/{}/{namespace}/{name}", served.kind.name),
            },
            Self::Search(Search { text, kinds, wanted }) => {
                let kinds: Vec<&str> = kinds.iter().map(|served| served.kind.name).collect();
                let wanted = wanted.as_ref().map(|all| format!("&namespace={}", all.join(",")));
                let wanted = wanted.unwrap_or_default();
                format!("/api/v1/search?q={text}&limit=500&kinds={}{wanted}", kinds.join(","))
            }
            Self::Overview(namespace) => format!("/api/v1/overview/{namespace}"),
        }
    }
}

/// One namespace, several with some that do not exist among them, or all.
fn namespaces(world: &World, rng: &mut Rng) -> Option<Vec<String>> {
    let absent = || format!("{}-absent", world.prefix);
    match rng.below(100) {
        0..35 => Some(vec![rng.pick(&world.namespaces).clone()]),
        35..57 => {
            let number = 2 + rng.below(3);
            let mut some: Vec<String> =
                (0..number).map(|_| rng.pick(&world.namespaces).clone()).collect();
            if rng.chance(30) {
                some.push(absent());
            }
            some.sort();
            some.dedup();
            Some(some)
        }
        57..60 => Some(vec![absent()]),
        _ => None,
    }
}

impl Search {
    fn random(world: &World, rng: &mut Rng) -> Self {
        let searched: Vec<Served> = world
            .kinds
            .iter()
            .filter(|served| served.kind.is_kept() && served.kind.name != "event")
            .copied()
            .collect();
        let mut kinds: Vec<Served> = (0..3).map(|_| *rng.pick(&searched)).collect();
        kinds.sort_by_key(|served| served.kind.name);
        kinds.dedup_by_key(|served| served.kind.name);
        let named: Vec<&str> = world
            .objects
            .iter()
            .filter(|object| kinds.iter().any(|served| served.kind == object.served.kind))
            .map(|object| object.name.as_str())
            .filter(|name| name.len() >= 2)
            .collect();
        let text = match named.as_slice() {
            [] => world.prefix.clone(),
            names => (*rng.pick(names)).to_owned(),
        };
        // A part of it finds more.
        let text = if rng.chance(30) { text.chars().take(4).collect() } else { text };
        Self { text, kinds, wanted: namespaces(world, rng) }
    }
}

impl List {
    fn random(world: &World, rng: &mut Rng) -> Self {
        let joined: Vec<&Served> =
            world.kinds.iter().filter(|served| !served.kind.joins.is_empty()).collect();
        let served = if rng.chance(35) { **rng.pick(&joined) } else { *rng.pick(&world.kinds) };
        let wanted = if served.at.namespaced { namespaces(world, rng) } else { None };
        // Elsewhere in the cluster other tests are at work: pages of it are no steady ground.
        let narrowed = wanted.is_none() && rng.chance(60);
        let steady = narrowed || wanted.is_some();
        let page = (steady && rng.chance(50))
            .then(|| (*rng.pick(&[0, 1, 2, 3, 5, 10, 100]), 1 + rng.below(4)));
        let mut keys = vec![Key::Name, Key::Namespace, Key::Created];
        keys.extend((0..served.kind.columns.len()).map(Key::Cell));
        let sort = match rng.below(3) {
            0 => Vec::new(),
            number => (0..number).map(|_| (rng.chance(50), *rng.pick(&keys))).collect(),
        };
        let filter = rng.chance(30).then(|| Filter::random(world, &served, &keys, rng));
        let labels = rng.chance(25).then(|| *rng.pick(&SELECTORS));
        let blank = rng.chance(30);
        Self { served, wanted, blank, narrowed, page, sort, filter, labels }
    }

    fn path(&self, world: &World) -> String {
        let kind = self.served.kind;
        let mut path = format!("/api/v1/{}", kind.name);
        match &self.wanted {
            Some(namespaces) => path += &format!("/{}", namespaces.join(",")),
            None if self.blank && self.served.at.namespaced => path += "/%20",
            None => {}
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some((size, number)) = self.page {
            query.append_pair("itemsPerPage", &size.to_string());
            query.append_pair("page", &number.to_string());
        }
        if !self.sort.is_empty() {
            let pairs = self.sort.iter().map(|(descending, key)| {
                format!("{},{}", if *descending { "d" } else { "a" }, self.column(*key))
            });
            query.append_pair("sortBy", &pairs.collect::<Vec<_>>().join(","));
        }
        if let Some(Filter { key, signs, text }) = &self.filter {
            query.append_pair("filterBy", &format!("{signs}{},{text}", self.column(*key)));
        }
        let narrow = self.narrowed.then(|| format!("world={}", world.prefix));
        let terms: Vec<String> = narrow.into_iter().chain(self.labels.map(str::to_owned)).collect();
        if !terms.is_empty() {
            query.append_pair("labelSelector", &terms.join(","));
        }
        match query.finish() {
            query if query.is_empty() => path,
            query => format!("{path}?{query}"),
        }
    }

    fn column(&self, key: Key) -> &'static str {
        match key {
            Key::Name => "name",
            Key::Namespace => "namespace",
            Key::Created => "creationTimestamp",
            Key::Cell(at) => self.served.kind.columns[at].name,
        }
    }

    /// Whether filter and selectors let a row through.
    pub fn wants(&self, world: &World, row: &Row) -> bool {
        let label = |wanted: &str| row.labels.get(wanted);
        let tier = label("tier");
        let selected = match self.labels {
            None => true,
            Some("tier=front") => tier == Some("front"),
            Some("tier!=front" | "tier notin (front)") => tier != Some("front"),
            Some("tier in (front,back)") => matches!(tier, Some("front" | "back")),
            Some("canary") => label("canary").is_some(),
            Some(_) => label("canary").is_none(),
        };
        let own = !self.narrowed || label("world") == Some(world.prefix.as_str());
        selected && own && self.filter.as_ref().is_none_or(|filter| filter.fits(row))
    }

    /// The rows in the order asked for; ties by namespace and name.
    pub fn order(&self, rows: &mut [&Row]) {
        rows.sort_by(|a, b| self.compare(a, b));
    }

    fn compare(&self, a: &Row, b: &Row) -> Ordering {
        for (descending, key) in &self.sort {
            let order = match key {
                Key::Name => a.name.cmp(&b.name),
                Key::Namespace => a.namespace.cmp(&b.namespace),
                Key::Created => a.created.cmp(&b.created),
                Key::Cell(at) => a.cells.get(*at).cmp(&b.cells.get(*at)),
            };
            if order.is_ne() {
                return if *descending { order.reverse() } else { order };
            }
        }
        // The order of creation is walked backwards as a whole, names included (`cache::select`).
        let names = match self.sort.as_slice() {
            [(false, Key::Created)] => b.name.cmp(&a.name),
            _ => a.name.cmp(&b.name),
        };
        a.namespace.cmp(&b.namespace).then(names)
    }

    /// The part of the ordered rows that the page shows.
    pub fn page<'a, T>(&self, rows: &'a [T]) -> &'a [T] {
        let Some((size, number)) = self.page else { return rows };
        let start = (size * (number - 1)).min(rows.len());
        &rows[start..(start + size).min(rows.len())]
    }
}

impl Filter {
    fn random(world: &World, served: &Served, keys: &[Key], rng: &mut Rng) -> Self {
        let is_time = |key: &Key| match key {
            Key::Created => true,
            Key::Cell(at) => served.kind.columns[*at].holds == Holds::Time,
            _ => false,
        };
        let keys: Vec<Key> = keys.iter().filter(|key| !is_time(key)).copied().collect();
        let key = *rng.pick(&keys);
        let texts = ["atlas", "0", "gated", "Running", "a", "1", "Opaque", "e"];
        let text = match key {
            Key::Namespace => rng.pick(&world.namespaces).clone(),
            _ => (*rng.pick(&texts)).to_owned(),
        };
        let signs = *rng.pick(&["", "", "", "!", "~", "!~", "=", "~="]);
        let text = if signs.contains('~') { text.to_uppercase() } else { text };
        Self { key, signs, text }
    }

    fn fits(&self, row: &Row) -> bool {
        let value = match self.key {
            Key::Name => row.name.to_string(),
            Key::Namespace => row.namespace.to_string(),
            Key::Created => String::new(),
            Key::Cell(at) => match row.cells.get(at) {
                Some(Cell::Text(text)) => text.to_string(),
                Some(Cell::Number(number)) => number.to_string(),
                Some(Cell::Time(_)) | None => String::new(),
            },
        };
        let (value, text) = match self.signs.contains('~') {
            true => (value.to_lowercase(), self.text.to_lowercase()),
            false => (value, self.text.clone()),
        };
        let fits = if self.signs.contains('=') { value == text } else { value.contains(&text) };
        fits != self.signs.contains('!')
    }
}
