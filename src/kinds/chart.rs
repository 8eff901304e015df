//! Charts of the catalogue as a list sorts and filters them: one row for each chart of each
//! repository.
//!
//! Not in the kind table: a chart is no object of the API server's, and has routes of its own.

use compact_str::CompactString;

use super::*;

/// Nothing but its columns and its shape is used: rows are made by [`Shown::row`]. A repository's
/// ConfigMap is the object that a caller needs a right on.
pub static CHART: KindDef = KindDef {
    columns: &[
        Column::text("repository"),
        Column::text("version"),
        Column::text("latest"),
        Column::text("appVersion"),
        Column::text("description"),
        Column::text("keywords"),
        Column::text("deprecated"),
        Column::number("versions"),
        Column::time("updated"),
        Column::number("score"),
    ],
    list: ListShape::rows("charts"),
    ..KindDef::of("chart", Resource::cluster("", "v1", "ConfigMap", "configmaps"), object, detail)
};

/// Where a row has its score.
pub const SCORE: usize = 9;

/// What of a chart is sorted and filtered by.
#[derive(Default)]
pub struct Shown<'a> {
    pub repository: &'a str,
    pub name: &'a str,
    pub version: &'a str,
    pub latest: &'a str,
    pub app_version: &'a str,
    pub description: &'a str,
    /// Comma separated.
    pub keywords: &'a str,
    pub deprecated: bool,
    pub versions: usize,
    /// Unix seconds.
    pub updated: Option<i64>,
    /// 0 where nothing was searched for.
    pub score: u32,
}

impl Shown<'_> {
    /// Its row, which stands in the repository as an object does in its namespace. The list item is
    /// not made yet: few rows get onto a page.
    pub fn row(&self) -> Row {
        let text = |text: &str| Cell::Text(CompactString::new(text));
        let cells = [
            text(self.repository),
            text(self.version),
            text(self.latest),
            text(self.app_version),
            text(self.description),
            text(self.keywords),
            text(if self.deprecated { "true" } else { "false" }),
            Cell::Number(i64::try_from(self.versions).unwrap_or(i64::MAX)),
            Cell::Time(self.updated),
            Cell::Number(self.score.into()),
        ];
        Row {
            namespace: CompactString::new(self.repository),
            name: CompactString::new(self.name),
            uid: Uid::from(""),
            created: self.updated.unwrap_or(0),
            version: 0,
            labels: Labels::default(),
            cells: cells.into(),
            links: Box::default(),
            facts: Facts::None,
            json: bytes::Bytes::new(),
        }
    }
}

fn object(_: &str) -> Result<Row, Malformed> {
    Err(none())
}

fn detail(_: &Value, _: &Row, _: &References) -> Result<Fields, Malformed> {
    Err(none())
}

fn none() -> Malformed {
    Malformed { kind: CHART.name, reason: "a chart is no object of the API server".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let shown = Shown { repository: "shop", name: "web", score: 7, ..Shown::default() };
        let row = shown.row();
        assert_eq!(row.cells.len(), CHART.columns.len());
        for (cell, column) in row.cells.iter().zip(CHART.columns) {
            let fits = match column.holds {
                Holds::Text => matches!(cell, Cell::Text(_)),
                Holds::Time => matches!(cell, Cell::Time(_)),
                Holds::Number => matches!(cell, Cell::Number(_)),
            };
            assert!(fits, "{}", column.name);
        }
        assert_eq!((CHART.columns[SCORE].name, &row.cells[SCORE]), ("score", &Cell::Number(7)));
        assert_eq!((row.namespace.as_str(), row.name.as_str()), ("shop", "web"));
    }

    #[test]
    fn there_is_no_object_behind_a_chart() {
        assert!((CHART.row)("{}").is_err());
        let row = Shown::default().row();
        assert!((CHART.detail)(&Value::Null, &row, &References::new()).is_err());
    }
}
