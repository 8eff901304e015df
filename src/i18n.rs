//! Every message that a person can see from the HTTP API, in the language that fits the request best.
//! The catalogues are `i18n/*.ftl`; `en` is complete and the fallback. Pure: negotiation and formatting never fail.
//! NOT here: log lines and the command line, which are English, and the contract's fixed tokens, which are not language.

use std::sync::LazyLock;

use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource};
use unic_langid::LanguageIdentifier;

/// Browsers send well under 200 bytes; what is longer is not a list of languages.
const LONGEST_HEADER: usize = 1024;
/// More wishes than anybody speaks.
const MOST_RANGES: usize = 32;

/// A locale: its BCP 47 tag, split, and its catalogue.
struct Entry {
    tag: &'static str,
    language: &'static str,
    script: Option<&'static str>,
    catalogue: &'static str,
}

/// The first is the fallback.
static LOCALES: [Entry; 3] = [
    Entry { tag: "en", language: "en", script: None, catalogue: include_str!("../i18n/en.ftl") },
    Entry {
        tag: "zh-Hans",
        language: "zh",
        script: Some("Hans"),
        catalogue: include_str!("../i18n/zh-Hans.ftl"),
    },
    Entry {
        tag: "zh-Hant",
        language: "zh",
        script: Some("Hant"),
        catalogue: include_str!("../i18n/zh-Hant.ftl"),
    },
];

static CATALOGUES: LazyLock<Vec<FluentBundle<FluentResource>>> =
    LazyLock::new(|| LOCALES.iter().map(bundle).collect());

/// A language that we have messages in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locale(usize);

impl Locale {
    /// The one that is complete.
    pub const EN: Self = Self(0);

    /// Every locale, the fallback first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..LOCALES.len()).map(Self)
    }

    /// The locale of exactly this tag, in any case.
    pub fn parse(tag: &str) -> Option<Self> {
        Self::all().find(|locale| locale.tag().eq_ignore_ascii_case(tag))
    }

    /// The BCP 47 tag, as `Content-Language` has it.
    pub fn tag(self) -> &'static str {
        LOCALES.get(self.0).map_or("en", |entry| entry.tag)
    }

    /// The locale for what somebody asked for: the same language, for Chinese in the same script.
    fn nearest(asked: &LanguageIdentifier) -> Option<Self> {
        let script = script(asked);
        let fits = |entry: &Entry| {
            entry.language == asked.language.as_str()
                && entry.script.is_none_or(|ours| ours == script)
        };
        LOCALES.iter().position(fits).map(Self)
    }
}

/// Chinese is written in two ways, and people name the place, not the script (CLDR's likely subtags).
pub fn script(asked: &LanguageIdentifier) -> &str {
    let traditional = |region: &str| matches!(region, "TW" | "HK" | "MO");
    match (&asked.script, &asked.region) {
        (Some(script), _) => script.as_str(),
        (None, Some(region)) if traditional(region.as_str()) => "Hant",
        _ => "Hans",
    }
}

/// The best locale for an `Accept-Language` header; absent, empty, broken or overlong ones give the default (RFC 9110 §12.5.4).
pub fn negotiate(accept_language: Option<&str>, default: Locale) -> Locale {
    let Some(header) = accept_language else { return default };
    let wishes = wishes(header).into_iter();
    let mut found = wishes.filter_map(|range| match range {
        "*" => Some(default),
        range => range.parse().ok().and_then(|asked| Locale::nearest(&asked)),
    });
    found.next().unwrap_or(default)
}

/// What an `Accept-Language` header asks for, the best first; nothing of an overlong one.
pub fn wishes(header: &str) -> Vec<&str> {
    if header.len() > LONGEST_HEADER {
        return Vec::new();
    }
    let mut wishes: Vec<(u16, &str)> =
        header.split(',').take(MOST_RANGES).filter_map(wish).filter(|(q, _)| *q > 0).collect();
    // Stable: among equals the first wins.
    wishes.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
    wishes.into_iter().map(|(_, range)| range).collect()
}

/// One `range;q=0.8`, its weight in thousandths. A broken weight makes the wish void, not the header.
fn wish(part: &str) -> Option<(u16, &str)> {
    let (range, parameter) = match part.split_once(';') {
        Some((range, parameter)) => (range, Some(parameter.trim())),
        None => (part, None),
    };
    let weight: f32 = match parameter {
        Some(q) => q.strip_prefix("q=").or_else(|| q.strip_prefix("Q="))?.trim().parse().ok()?,
        None => 1.0,
    };
    let range = range.trim();
    // The cast is in bounds: the weight lies between 0 and 1, which NaN does not.
    let valid = !range.is_empty() && (0.0..=1.0).contains(&weight);
    valid.then_some(((weight * 1000.0) as u16, range))
}

/// The message in that locale, in English if it has none there; the id itself if there is no such message, which a test excludes.
pub fn message(locale: Locale, id: &str, args: &[(&str, &str)]) -> String {
    let mut values = FluentArgs::with_capacity(args.len());
    for (name, value) in args {
        values.set(*name, *value);
    }
    [locale, Locale::EN]
        .into_iter()
        .find_map(|locale| format(CATALOGUES.get(locale.0)?, id, &values))
        .unwrap_or_else(|| id.to_owned())
}

fn format(
    bundle: &FluentBundle<FluentResource>,
    id: &str,
    args: &FluentArgs<'_>,
) -> Option<String> {
    let pattern = bundle.get_message(id)?.value()?;
    // What is missing shows as {$name}; the catalogue test holds variables equal in all languages.
    let mut errors = Vec::new();
    Some(bundle.format_pattern(pattern, Some(args), &mut errors).into_owned())
}

fn bundle(entry: &Entry) -> FluentBundle<FluentResource> {
    // A broken message costs that message, and a test.
    let (Ok(resource) | Err((resource, _))) = FluentResource::try_new(entry.catalogue.to_owned());
    let mut bundle = FluentBundle::new_concurrent(vec![entry.tag.parse().unwrap_or_default()]);
    // The marks around arguments are for mixed text directions; in JSON and curl they are rubbish.
    bundle.set_use_isolating(false);
    bundle.add_resource_overriding(resource);
    bundle
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(header: &str) -> &'static str {
        negotiate(Some(header), Locale::EN).tag()
    }

    #[test]
    fn every_catalogue_parses() {
        for entry in &LOCALES {
            let parsed = FluentResource::try_new(entry.catalogue.to_owned());
            assert!(parsed.is_ok(), "{}", entry.tag);
        }
    }

    #[test]
    fn a_place_finds_its_script_and_a_country_its_language() {
        let pairs = [
            ("zh-TW", "zh-Hant"),
            ("zh-HK", "zh-Hant"),
            ("zh-Hant-CN", "zh-Hant"),
            ("zh-CN", "zh-Hans"),
            ("zh", "zh-Hans"),
            ("en-GB", "en"),
        ];
        for (asked, found) in pairs {
            assert_eq!(tag(asked), found, "{asked}");
        }
    }

    #[test]
    fn weights_decide_and_zero_means_never() {
        assert_eq!(tag("en;q=0.5, zh-CN;q=0.9"), "zh-Hans");
        assert_eq!(tag("xx, zh-TW;q=0.1"), "zh-Hant");
        assert_eq!(tag("zh;q=0"), "en");
        assert_eq!(tag("zh-TW;q=0.8,zh-CN;q=0.8"), "zh-Hant");
    }

    #[test]
    fn absent_empty_broken_and_overlong_headers_give_the_default() {
        let default = Locale::parse("zh-hant").unwrap();
        let overlong = "zh-CN,".repeat(1000);
        let broken =
            ["", ",,;", "zh-CN;q=x", "zh-CN;q=NaN", "zh-CN;q=7", "*", "\u{0}", "é", &overlong];
        for header in broken {
            assert_eq!(negotiate(Some(header), default), default, "{header:?}");
        }
        assert_eq!(negotiate(None, default), default);
    }

    #[test]
    fn arguments_are_put_in_as_they_are() {
        let text = message(Locale::EN, "error-unknown-kind", &[("kind", "Gadget {$x}")]);
        assert!(text.contains("Gadget {$x}"), "{text}");
        assert!(text.is_ascii(), "{text}");
    }

    #[test]
    fn an_unknown_message_is_its_id() {
        assert_eq!(message(Locale::EN, "no-such-message", &[]), "no-such-message");
    }
}
