//! A chart's README as HTML that can do nothing but be looked at: no element, attribute or address
//! gets into it but those that are written here or by the markdown writer.
//!
//! HTML within the markdown is shown as the text that it is. Nothing is fetched, and addresses
//! within the README's own repository are not guessed: such links are text.

use pulldown_cmark::{CowStr, Event, LinkType, Options, Parser, Tag, TagEnd, html::push_html};
use url::Url;

/// Bytes of a README that are rendered; the longest of well-known charts have some 200 KiB.
const LONGEST: usize = 512 << 10;
/// Quotes and lists that begin on one line. The parser looks at each open one on every line, and
/// nobody reads the seventh.
const DEEPEST: usize = 32;

/// The README as HTML, to be set into a page as it is. Takes milliseconds, at worst seconds: not
/// for a thread that others wait for.
pub fn html(markdown: &str) -> String {
    let mut end = markdown.len().min(LONGEST);
    while !markdown.is_char_boundary(end) {
        end -= 1;
    }
    let markdown = &markdown[..end];
    if markdown.lines().any(is_too_deep) {
        return format!("<pre>{}</pre>\n", escaped(markdown));
    }
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_GFM;
    let mut filter = Filter::default();
    for event in Parser::new_ext(markdown, options) {
        filter.take(event);
    }
    let mut html = String::with_capacity(markdown.len() * 3 / 2);
    push_html(&mut html, filter.kept.into_iter());
    html
}

fn is_too_deep(line: &str) -> bool {
    let mut rest = line;
    for _ in 0..=DEEPEST {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(quoted) = rest.strip_prefix('>') {
            rest = quoted;
            continue;
        }
        let bullet = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        match bullet.strip_prefix(['-', '+', '*', '.', ')']) {
            Some(item) if item.starts_with([' ', '\t']) => rest = item,
            _ => return false,
        }
    }
    true
}

#[derive(Default)]
struct Filter<'a> {
    kept: Vec<Event<'a>>,
    /// For every open link, whether it is one in what is kept.
    links: Vec<bool>,
    /// Images that are open, one in the text of another, and what the outermost becomes.
    images: usize,
    image: Option<Url>,
    alt: String,
    /// A block of HTML.
    block: Option<String>,
}

impl<'a> Filter<'a> {
    fn take(&mut self, event: Event<'a>) {
        if let Some(block) = &mut self.block {
            match event {
                Event::Html(text) | Event::Text(text) => block.push_str(&text),
                Event::End(TagEnd::HtmlBlock) => self.end_block(),
                _ => {}
            }
            return;
        }
        if self.images > 0 {
            return self.within_image(event);
        }
        match event {
            Event::Start(Tag::HtmlBlock) => self.block = Some(String::new()),
            Event::Html(text) | Event::InlineHtml(text) => {
                if !is_comment(&text) {
                    self.kept.push(Event::Text(text));
                }
            }
            Event::Start(Tag::Link { link_type, dest_url, title, .. }) => {
                let address = match link_type {
                    LinkType::Email => CowStr::from(format!("mailto:{dest_url}")),
                    _ => dest_url,
                };
                let url = followed(&address);
                self.links.push(url.is_some());
                if let Some(url) = url {
                    let (url, title) = (escaped(url.as_str()), titled(&title));
                    self.kept.push(ours(format!(
                        "<a href=\"{url}\"{title} rel=\"noopener noreferrer nofollow\" \
                         target=\"_blank\">"
                    )));
                }
            }
            Event::End(TagEnd::Link) => {
                if self.links.pop() == Some(true) {
                    self.kept.push(ours("</a>".to_owned()));
                }
            }
            Event::Start(Tag::Image { dest_url, .. }) => {
                self.images = 1;
                self.image = Url::parse(&dest_url).ok().filter(|url| url.scheme() == "https");
            }
            event => self.kept.push(event),
        }
    }

    fn within_image(&mut self, event: Event<'a>) {
        match event {
            Event::Start(Tag::Image { .. }) => self.images += 1,
            Event::End(TagEnd::Image) => {
                self.images -= 1;
                if self.images == 0 {
                    self.end_image();
                }
            }
            Event::Text(text) | Event::Code(text) => self.alt.push_str(&text),
            Event::SoftBreak | Event::HardBreak => self.alt.push(' '),
            _ => {}
        }
    }

    fn end_image(&mut self) {
        let alt = std::mem::take(&mut self.alt);
        match self.image.take() {
            Some(url) => self.kept.push(ours(format!(
                "<img src=\"{}\" alt=\"{}\" loading=\"lazy\" referrerpolicy=\"no-referrer\">",
                escaped(url.as_str()),
                escaped(&alt)
            ))),
            None => self.kept.push(Event::Text(alt.into())),
        }
    }

    fn end_block(&mut self) {
        let block = self.block.take().unwrap_or_default();
        if !is_comment(&block) {
            let text = Event::Text(block.into());
            self.kept.extend([Event::Start(Tag::Paragraph), text, Event::End(TagEnd::Paragraph)]);
        }
    }
}

/// Markup that was made here.
fn ours(markup: String) -> Event<'static> {
    Event::InlineHtml(markup.into())
}

/// Generators of READMEs leave marks that nobody wants to read.
fn is_comment(html: &str) -> bool {
    let inner = html.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"));
    inner.is_some_and(|inner| !inner.contains("-->"))
}

/// An address that a reader may follow.
fn followed(address: &str) -> Option<Url> {
    Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https" | "mailto"))
}

fn titled(title: &str) -> String {
    if title.is_empty() { String::new() } else { format!(" title=\"{}\"", escaped(title)) }
}

/// Text for between tags and for an attribute in double quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readme_is_headings_tables_lists_and_code() {
        let shown = html(
            "# Web\n\nA *small* `chart`:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- [x] done\n\n\
             ```sh\nhelm install <name> \"web\"\n```\n",
        );
        for wanted in [
            "<h1>Web</h1>",
            "<em>small</em>",
            "<code>chart</code>",
            "<td>1</td>",
            "type=\"checkbox\"",
            "<code class=\"language-sh\">helm install &lt;name&gt;",
        ] {
            assert!(shown.contains(wanted), "{wanted}: {shown}");
        }
    }

    #[test]
    fn html_within_it_is_shown_as_text_and_comments_are_not_shown() {
        let shown = html(
            "<script>alert(1)</script>\n\nx <img src=x onerror=alert(1)> y\n\n\
             <!--- app: web -->\n\n<div\n onclick=\"x()\">\n\n\
             <!-- a --> <script>x</script> <!-- b -->\n",
        );
        for unwanted in ["<script", "<img", "<div", "<!--", "app: web"] {
            assert!(!shown.contains(unwanted), "{unwanted}: {shown}");
        }
        assert!(shown.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{shown}");
        assert!(shown.contains("&lt;img src=x onerror=alert(1)&gt;"), "{shown}");
    }

    #[test]
    fn links_lead_only_where_a_browser_runs_nothing() {
        let shown = html(
            "[ok](https://example.org/?a=1&b=2 \"t\\\"itle\") <mail@example.org>\n\n\
             [js](javascript:alert(1)) [JS](JaVaScRiPt&colon;alert(1)) [tab](<java\tscript:x>) \
             [data](data:text/html,x) [vb](vbscript:x) [rel](docs/a.md) [frag](#b) [file](//h/x)\n",
        );
        let ok = "<a href=\"https://example.org/?a=1&amp;b=2\" title=\"t&quot;itle\" \
                  rel=\"noopener noreferrer nofollow\" target=\"_blank\">ok</a>";
        assert!(shown.contains(ok), "{shown}");
        assert!(shown.contains("<a href=\"mailto:mail@example.org\""), "{shown}");
        assert_eq!(shown.matches("<a ").count(), 2, "{shown}");
        assert_eq!(shown.matches("</a>").count(), 2, "{shown}");
        for text in ["js", "JS", "tab", "data", "vb", "rel", "frag", "file"] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
    }

    #[test]
    fn images_come_over_https_and_the_others_are_their_text() {
        let shown = html(
            "![a \"b\" ![c](https://x.example/c.png)](https://example.org/a.png)\n\n\
             ![plain](http://example.org/b.png) ![inline](data:image/svg+xml,<svg/>)\n\n\
             [![badge](https://example.org/badge.svg)](javascript:x)\n",
        );
        assert_eq!(shown.matches("<img ").count(), 2, "{shown}");
        assert!(shown.contains("src=\"https://example.org/a.png\" alt=\"a &quot;b&quot; c\""));
        assert!(shown.contains("plain inline"), "{shown}");
        assert!(!shown.contains("<a "), "{shown}");
    }

    #[test]
    fn what_is_nested_for_no_reader_is_shown_as_it_is_written() {
        for nested in ["- ".repeat(5000), "> ".repeat(5000), ">".repeat(5000), "1. ".repeat(5000)] {
            let shown = html(&format!("{nested}<b>\n"));
            assert!(shown.starts_with("<pre>") && shown.contains("&lt;b&gt;"), "{nested:.20}");
        }
        assert!(html(&"-".repeat(200)).contains("<hr"));
        assert!(html("> > 1. - deep").contains("deep"));
    }

    #[test]
    fn what_is_longer_than_a_readme_is_cut_between_letters() {
        let shown = html(&"ä".repeat(LONGEST));
        assert!(shown.len() <= LONGEST + 20, "{}", shown.len());
    }
}
