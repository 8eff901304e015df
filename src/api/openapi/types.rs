//! Reads `types.txt`, which says what our routes take and answer, into JSON Schema 2020-12.
//!
//! The file is compiled in and its grammar stands at its head. This checks no answers: a test does,
//! on the real API server.

use serde_json::{Map, Value, json};

const TYPES: &str = include_str!("types.txt");

/// Every type of the file, by name.
///
/// # Errors
/// The line that is not of the grammar.
pub fn schemas() -> Result<Map<String, Value>, String> {
    read(TYPES)
}

/// The schema of one type, such as `PinnedResource[]`.
///
/// # Errors
/// What is not of the grammar.
pub fn schema(text: &str) -> Result<Value, String> {
    let mut reader = Reader::of(text)?;
    let schema = reader.union()?;
    reader.end().map(|()| schema)
}

fn read(text: &str) -> Result<Map<String, Value>, String> {
    let mut reader = Reader::of(text)?;
    let mut notes: Vec<&str> = Vec::new();
    while let Some((_, token)) = reader.pull() {
        let name = match token {
            Token::Note(note) => {
                notes.push(note);
                continue;
            }
            Token::Word(name) => name,
            _ => return Err(reader.wrong("a type's name is wanted")),
        };
        let mut schema = match reader.pull() {
            Some((_, Token::Sign('{'))) => reader.object()?,
            Some((_, Token::Sign('='))) => reader.union()?,
            _ => return Err(reader.wrong("{ or = is wanted")),
        };
        for note in notes.drain(..) {
            describe(&mut schema, note);
        }
        if reader.known.insert(name.to_owned(), schema).is_some() {
            return Err(reader.wrong("there is another type of this name"));
        }
    }
    Ok(reader.known)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Text(&'a str),
    Note(&'a str),
    Sign(char),
}

/// The tokens of a line, comments left out.
fn tokens(mut line: &str) -> Result<Vec<Token<'_>>, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    loop {
        line = line.trim_start();
        let Some(first) = line.chars().next() else { return Ok(found) };
        let (token, rest) = if first == '#' {
            return Ok(found);
        } else if let Some(note) = line.strip_prefix("//") {
            (Token::Note(note.trim()), "")
        } else if let Some(rest) = line.strip_prefix("...") {
            (Token::Word("..."), rest)
        } else if let Some(rest) = line.strip_prefix('"') {
            let (text, rest) = rest.split_once('"').ok_or("a text has no end")?;
            (Token::Text(text), rest)
        } else if is_word(first) {
            let from = if line.starts_with("k8s:") { "k8s:".len() } else { 0 };
            let end = line[from..].find(|c: char| !is_word(c)).map_or(line.len(), |end| from + end);
            (Token::Word(&line[..end]), &line[end..])
        } else if "{}[]()<>:?|,=".contains(first) {
            (Token::Sign(first), &line[1..])
        } else {
            return Err(format!("{first} has no meaning"));
        };
        found.push(token);
        line = rest;
    }
}

struct Reader<'a> {
    /// With the number of their line.
    tokens: Vec<(usize, Token<'a>)>,
    at: usize,
    known: Map<String, Value>,
}

impl<'a> Reader<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        let mut all = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let found = tokens(line).map_err(|problem| format!("line {number}: {problem}"))?;
            all.extend(found.into_iter().map(|token| (number, token)));
        }
        Ok(Self { tokens: all, at: 0, known: Map::new() })
    }

    fn pull(&mut self) -> Option<(usize, Token<'a>)> {
        let found = self.tokens.get(self.at).copied();
        self.at += 1;
        found
    }

    /// Takes the sign if it comes next.
    fn took(&mut self, sign: char) -> bool {
        let is_next = self.tokens.get(self.at).is_some_and(|next| next.1 == Token::Sign(sign));
        self.at += usize::from(is_next);
        is_next
    }

    fn take(&mut self, sign: char) -> Result<(), String> {
        if self.took(sign) { Ok(()) } else { Err(self.wrong(&format!("{sign} is wanted"))) }
    }

    fn end(&self) -> Result<(), String> {
        if self.at >= self.tokens.len() { Ok(()) } else { Err(self.wrong("the end is wanted")) }
    }

    fn wrong(&self, problem: &str) -> String {
        let at = self.at.min(self.tokens.len()).saturating_sub(1);
        let line = self.tokens.get(at).map_or(0, |token| token.0);
        format!("line {line}: {problem}")
    }

    /// The rest of an object, after its brace.
    fn object(&mut self) -> Result<Value, String> {
        let mut object = Object::default();
        loop {
            match self.pull() {
                Some((_, Token::Sign('}'))) => return Ok(object.schema()),
                Some((_, Token::Sign(','))) => {}
                Some((line, Token::Note(note))) => {
                    if !object.describe(line, note) {
                        return Err(self.wrong("a note stands behind no key"));
                    }
                }
                Some((_, Token::Word("..."))) => object.is_open = true,
                Some((_, Token::Word("flat"))) => {
                    let Some((_, Token::Word(name))) = self.pull() else {
                        return Err(self.wrong("the name of a type is wanted"));
                    };
                    let Some(base) = self.known.get(name) else {
                        return Err(self.wrong(&format!("there is no {name} above")));
                    };
                    object.add_all(base);
                }
                Some((line, Token::Word(name))) => {
                    let is_optional = self.took('?');
                    self.take(':')?;
                    let schema = self.union()?;
                    object.lines.push((line, name.to_owned()));
                    object.add(name, schema, !is_optional);
                }
                _ => return Err(self.wrong("a key or } is wanted")),
            }
        }
    }

    fn union(&mut self) -> Result<Value, String> {
        let mut all = vec![self.single()?];
        while self.took('|') {
            all.push(self.single()?);
        }
        Ok(joined(all))
    }

    fn single(&mut self) -> Result<Value, String> {
        let mut schema = match self.pull() {
            Some((_, Token::Text(text))) => json!({ "type": "string", "enum": [text] }),
            Some((_, Token::Sign('{'))) => self.object()?,
            Some((_, Token::Sign('('))) => {
                let schema = self.union()?;
                self.take(')')?;
                schema
            }
            Some((_, Token::Word("map"))) => self.map()?,
            Some((_, Token::Word(name))) => named(name),
            _ => return Err(self.wrong("a type is wanted")),
        };
        while self.took('[') {
            self.take(']')?;
            schema = json!({ "type": "array", "items": schema });
        }
        Ok(schema)
    }

    /// The rest of `map<string,T>`.
    fn map(&mut self) -> Result<Value, String> {
        self.take('<')?;
        let Some((_, Token::Word("string"))) = self.pull() else {
            return Err(self.wrong("keys of a map are strings"));
        };
        self.take(',')?;
        let values = self.union()?;
        self.take('>')?;
        Ok(json!({ "type": "object", "additionalProperties": values }))
    }
}

/// An object in the making.
#[derive(Default)]
struct Object {
    properties: Map<String, Value>,
    required: Vec<String>,
    is_open: bool,
    /// Where its own keys stand.
    lines: Vec<(usize, String)>,
}

impl Object {
    fn add(&mut self, key: &str, schema: Value, is_required: bool) {
        self.properties.insert(key.to_owned(), schema);
        self.required.retain(|known| known != key);
        if is_required {
            self.required.push(key.to_owned());
        }
    }

    /// The keys of another object.
    fn add_all(&mut self, base: &Value) {
        let required = base.get("required").and_then(Value::as_array);
        for (key, schema) in base.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let is_required = required.is_some_and(|all| all.iter().any(|one| one == key));
            self.add(key, schema.clone(), is_required);
        }
        self.is_open |= base.get("additionalProperties").is_some();
    }

    /// A note about the keys of a line; `false` when there are none.
    fn describe(&mut self, line: usize, note: &str) -> bool {
        let mut is_any = false;
        for (_, key) in self.lines.iter().filter(|(at, _)| *at == line) {
            if let Some(schema) = self.properties.get_mut(key) {
                describe(schema, note);
                is_any = true;
            }
        }
        is_any
    }

    fn schema(self) -> Value {
        let mut schema = json!({ "type": "object", "properties": self.properties });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        if self.is_open {
            schema["additionalProperties"] = true.into();
        }
        schema
    }
}

fn describe(schema: &mut Value, note: &str) {
    let before = schema.get("description").and_then(Value::as_str);
    let text = match before {
        Some(before) => format!("{before} {note}"),
        None => note.to_owned(),
    };
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("description".into(), text.into());
    }
}

fn named(name: &str) -> Value {
    if let Some(kubernetes) = name.strip_prefix("k8s:") {
        let text = format!("Kubernetes' {kubernetes} as it is.");
        return json!({ "type": "object", "additionalProperties": true, "description": text });
    }
    match name {
        "any" => json!({}),
        "object" => json!({ "type": "object", "additionalProperties": true }),
        "int" => json!({ "type": "integer" }),
        "float" => json!({ "type": "number" }),
        "string" => json!({ "type": "string" }),
        "bool" => json!({ "type": "boolean" }),
        "true" => json!({ "type": "boolean", "const": true }),
        "null" => json!({ "type": "null" }),
        "time" => json!({ "type": "string", "format": "date-time" }),
        "Quantity" => json!({ "type": "string", "description": "A Kubernetes quantity." }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

/// One schema for a union: a list of types where they differ in no more than that, else `anyOf`.
fn joined(mut all: Vec<Value>) -> Value {
    if all.len() == 1 {
        return all.remove(0);
    }
    merged(&all).unwrap_or_else(|| json!({ "anyOf": all }))
}

fn merged(all: &[Value]) -> Option<Value> {
    let (mut types, mut rest) = (Vec::new(), Map::new());
    for one in all {
        let mut fields = one.as_object()?.clone();
        let kind = fields.remove("type").filter(Value::is_string)?;
        if !types.contains(&kind) {
            types.push(kind);
        }
        for (key, value) in fields {
            match (rest.get_mut(&key), value) {
                (None, value) => {
                    rest.insert(key, value);
                }
                (Some(Value::Array(texts)), Value::Array(more)) if key == "enum" => {
                    texts.extend(more);
                }
                _ => return None,
            }
        }
    }
    if let Some(Value::Array(texts)) = rest.get_mut("enum") {
        // What is not one of the texts can only be null.
        let null = json!({ "type": "null" });
        if all.iter().any(|one| one.get("enum").is_none() && *one != null) {
            return None;
        }
        if all.contains(&null) {
            texts.push(Value::Null);
        }
    }
    let kind = if types.len() == 1 { types.remove(0) } else { Value::Array(types) };
    rest.insert("type".into(), kind);
    Some(Value::Object(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_of_its_grammar() {
        assert!(schemas().unwrap().len() > 100);
    }

    #[test]
    fn an_object_says_which_keys_it_has_and_which_of_them_always() {
        let types = read(
            "# left out\n// A pair.\nPair {\n  a: int, // first\n  b?: string|null,\n}\n\
             More { flat Pair, b: Pair[], c: map<string,time>, ... }",
        );
        let types = types.unwrap();
        let a = json!({ "type": "integer", "description": "first" });
        assert_eq!(
            types["Pair"],
            json!({
                "type": "object", "required": ["a"], "description": "A pair.",
                "properties": { "a": a, "b": { "type": ["string", "null"] } },
            })
        );
        let pairs = json!({ "type": "array", "items": { "$ref": "#/components/schemas/Pair" } });
        let times = json!({
            "type": "object", "additionalProperties": { "type": "string", "format": "date-time" },
        });
        assert_eq!(
            types["More"],
            json!({
                "type": "object", "required": ["a", "b", "c"], "additionalProperties": true,
                "properties": { "a": a, "b": pairs, "c": times },
            })
        );
    }

    #[test]
    fn a_union_is_a_list_of_types_or_texts_and_else_any_of() {
        let of = |text: &str| schema(text).unwrap();
        assert_eq!(of("\"a\"|\"b\""), json!({ "type": "string", "enum": ["a", "b"] }));
        let texts = json!({ "type": ["string", "null"], "enum": ["a", null] });
        assert_eq!(of("\"a\" | null"), texts);
        assert_eq!(of("int|string|null"), json!({ "type": ["integer", "string", "null"] }));
        let list = json!({ "type": ["array", "null"], "items": { "type": "string" } });
        assert_eq!(of("string[]|null"), list);
        let reference = json!({ "$ref": "#/components/schemas/A" });
        assert_eq!(of("A|null"), json!({ "anyOf": [reference, { "type": "null" }] }));
        let mixed = json!([{ "type": "string", "enum": ["a"] }, { "type": "integer" }]);
        assert_eq!(of("\"a\"|int"), json!({ "anyOf": mixed }));
        let texts = json!({ "type": "string", "enum": ["a", "b"] });
        assert_eq!(of("(\"a\"|\"b\")[]"), json!({ "type": "array", "items": texts }));
    }

    #[test]
    fn what_is_not_of_the_grammar_is_named_with_its_line() {
        for (text, problem) in [
            ("A {\n a int }", "line 2: : is wanted"),
            ("A { flat B }", "line 1: there is no B above"),
            ("A { }\nA { }", "line 2: there is another type of this name"),
            ("A = \"a", "line 1: a text has no end"),
            ("A { a: int", "line 1: a key or } is wanted"),
            ("A { a: ! }", "line 1: ! has no meaning"),
            ("A { a: int,\n// lost\n}", "line 2: a note stands behind no key"),
        ] {
            assert_eq!(read(text).unwrap_err(), problem, "{text}");
        }
        assert_eq!(schema("int int").unwrap_err(), "line 1: the end is wanted");
    }
}
