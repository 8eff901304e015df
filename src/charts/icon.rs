//! A chart's icon: told by its first bytes to be one of the kinds of image that browsers show, and
//! as SVG written anew with what draws and nothing else.
//!
//! It fetches nothing. An SVG needs no trust beyond this, and gets none: who serves it forbids it
//! everything with a Content-Security-Policy besides.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use percent_encoding::percent_decode_str;

/// The largest icon, in bytes. Those of well-known charts have some 20 KiB.
pub const LONGEST: usize = 1 << 20;
/// Elements of an SVG that are open at once. Drawings have a dozen.
const DEEPEST: usize = 128;

/// What an icon's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Png,
    Jpeg,
    Gif,
    Webp,
    Svg,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icon {
    pub kind: Kind,
    pub bytes: Bytes,
}

/// Why there is no icon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadIcon {
    #[error("the icon has more than {} MiB", LONGEST >> 20)]
    Long,
    #[error("the icon is no PNG, JPEG, GIF, WebP or SVG image")]
    Kind,
    #[error("the icon is no well-formed SVG: {0}")]
    Svg(&'static str),
    #[error("the icon's data: address cannot be read")]
    Data,
}

impl Kind {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
            Self::Svg => "image/svg+xml",
        }
    }
}

/// The icon that these bytes are, whatever they were called.
pub fn checked(bytes: Bytes) -> Result<Icon, BadIcon> {
    if bytes.len() > LONGEST {
        return Err(BadIcon::Long);
    }
    let kind = match &*bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Kind::Png,
        [0xff, 0xd8, 0xff, ..] => Kind::Jpeg,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Kind::Gif,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Kind::Webp,
        _ => Kind::Svg,
    };
    if kind != Kind::Svg {
        return Ok(Icon { kind, bytes });
    }
    let text = str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes));
    let text = text.ok().filter(|text| text.trim_start().starts_with('<'));
    let drawn = harmless(text.ok_or(BadIcon::Kind)?)?;
    Ok(Icon { kind, bytes: drawn.into() })
}

/// The bytes of an icon that is written into its address (RFC 2397).
pub fn inline(address: &str) -> Result<Bytes, BadIcon> {
    let rest = address.strip_prefix("data:").ok_or(BadIcon::Data)?;
    let (kind, data) = rest.split_once(',').ok_or(BadIcon::Data)?;
    let data: Vec<u8> = percent_decode_str(data).collect();
    if kind.ends_with(";base64") {
        return BASE64_STANDARD.decode(data).map(Bytes::from).map_err(|_| BadIcon::Data);
    }
    Ok(data.into())
}

/// Elements that draw. What is not among them goes with all that is in it: scripts, foreign
/// content, animations (which can set any attribute), images (which are addresses), and `use`, of
/// which a few in each other draw a billion.
const DRAWING: [&str; 28] = [
    "circle",
    "clipPath",
    "defs",
    "desc",
    "ellipse",
    "feBlend",
    "feColorMatrix",
    "feComposite",
    "feFlood",
    "feGaussianBlur",
    "feMerge",
    "feMergeNode",
    "feOffset",
    "filter",
    "g",
    "line",
    "linearGradient",
    "mask",
    "path",
    "pattern",
    "polygon",
    "polyline",
    "radialGradient",
    "rect",
    "stop",
    "svg",
    "symbol",
    "title",
];
/// Those with text in them besides `title` and `desc`.
const WRITING: [&str; 3] = ["style", "text", "tspan"];

/// An SVG with nothing in it but what draws.
fn harmless(svg: &str) -> Result<String, BadIcon> {
    let mut drawn = Drawn::default();
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        drawn.text(&rest[..at]);
        let tag = &rest[at..];
        rest = if let Some(comment) = tag.strip_prefix("<!--") {
            after(comment, "-->")?
        } else if let Some(data) = tag.strip_prefix("<![CDATA[") {
            let (data, rest) = data.split_once("]]>").ok_or(CUT)?;
            drawn.text(&escaped(data));
            rest
        } else if let Some(instruction) = tag.strip_prefix("<?") {
            after(instruction, "?>")?
        } else if let Some(declaration) = tag.strip_prefix("<!") {
            after_declaration(declaration)?
        } else if let Some(end) = tag.strip_prefix("</") {
            let (name, rest) = end.split_once('>').ok_or(CUT)?;
            drawn.end(name.trim_end())?;
            rest
        } else {
            drawn.start(&tag[1..])?
        };
    }
    drawn.done()
}

const CUT: BadIcon = BadIcon::Svg("it is cut off");

fn after<'a>(text: &'a str, end: &str) -> Result<&'a str, BadIcon> {
    text.split_once(end).map(|(_, rest)| rest).ok_or(CUT)
}

/// What follows a document type, which may declare entities between brackets. They are gone then,
/// and with them what they stand for.
fn after_declaration(text: &str) -> Result<&str, BadIcon> {
    let end = text.find(['>', '[']).ok_or(CUT)?;
    if text[end..].starts_with('[') {
        return after(after(&text[end..], "]")?, ">");
    }
    Ok(&text[end + 1..])
}

#[derive(Default)]
struct Drawn<'a> {
    out: String,
    /// Elements that are open, as they were written.
    open: Vec<&'a str>,
    /// How many of them were open when one began that is left out.
    left_out: Option<usize>,
    /// Whether the last style has its text.
    styled: bool,
    begun: bool,
}

impl<'a> Drawn<'a> {
    /// Text as it stands between tags.
    fn text(&mut self, text: &str) {
        let Some(name) = self.open.last().map(|name| local(name)) else { return };
        let is_read = WRITING.contains(&name) || matches!(name, "title" | "desc");
        if self.left_out.is_some() || !is_read || text.trim().is_empty() {
            return;
        }
        // One piece alone: two harmless ones could make one that is not.
        if name == "style" && (std::mem::replace(&mut self.styled, true) || fetches(text)) {
            return;
        }
        self.out.push_str(&text.replace('>', "&gt;"));
    }

    /// Takes the start tag behind its `<`; what follows it.
    fn start(&mut self, tag: &'a str) -> Result<&'a str, BadIcon> {
        let odd = |c: char| c.is_whitespace() || matches!(c, '/' | '>');
        let (name, mut rest) = tag.split_at(tag.find(odd).ok_or(CUT)?);
        let root = self.open.is_empty();
        if root && (self.begun || local(name) != "svg") {
            return Err(if self.begun { BadIcon::Svg("it has two roots") } else { BadIcon::Kind });
        }
        self.begun = true;
        let known = local(name);
        let within = self.open.last().map(|name| local(name));
        let draws = DRAWING.contains(&known) || WRITING.contains(&known);
        if (!draws || within == Some("style")) && self.left_out.is_none() {
            self.left_out = Some(self.open.len());
        }
        let kept = self.left_out.is_none();
        if kept {
            self.styled &= known != "style";
            self.out.extend(["<", known]);
            if root {
                self.out.push_str(
                    " xmlns=\"http://www.w3.org/2000/svg\" \
                     xmlns:xlink=\"http://www.w3.org/1999/xlink\"",
                );
            }
        }
        loop {
            rest = rest.trim_start();
            if let Some(rest) = rest.strip_prefix("/>") {
                if kept {
                    self.out.push_str("/>");
                } else if self.left_out == Some(self.open.len()) {
                    self.left_out = None;
                }
                return Ok(rest);
            }
            if let Some(rest) = rest.strip_prefix('>') {
                if kept {
                    self.out.push('>');
                }
                if self.open.len() >= DEEPEST {
                    return Err(BadIcon::Svg("it is too deep"));
                }
                self.open.push(name);
                return Ok(rest);
            }
            let (attribute, value, after) = attribute(rest)?;
            if kept && is_kept(attribute, value) {
                let value = value.replace('"', "&quot;");
                self.out.extend([" ", attribute, "=\"", value.as_str(), "\""]);
            }
            rest = after;
        }
    }

    fn end(&mut self, name: &str) -> Result<(), BadIcon> {
        if self.open.pop() != Some(name) {
            return Err(BadIcon::Svg("its tags do not match"));
        }
        match self.left_out {
            None => self.out.extend(["</", local(name), ">"]),
            Some(depth) if depth == self.open.len() => self.left_out = None,
            Some(_) => {}
        }
        Ok(())
    }

    fn done(self) -> Result<String, BadIcon> {
        match (self.begun, self.open.is_empty()) {
            (true, true) => Ok(self.out),
            (true, false) => Err(CUT),
            (false, _) => Err(BadIcon::Kind),
        }
    }
}

/// An attribute's name and value, and what follows.
fn attribute(text: &str) -> Result<(&str, &str, &str), BadIcon> {
    let (name, rest) = text.split_once('=').ok_or(CUT)?;
    let (name, rest) = (name.trim_end(), rest.trim_start());
    let within = |byte: u8| byte.is_ascii_alphanumeric() || b":_-.".contains(&byte);
    if name.is_empty() || !name.bytes().all(within) {
        return Err(BadIcon::Svg("it has an attribute without a name or value"));
    }
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let quote = quote.ok_or(BadIcon::Svg("it has an attribute without quotes"))?;
    let (value, rest) = rest[1..].split_once(quote).ok_or(CUT)?;
    if value.contains('<') {
        return Err(BadIcon::Svg("it has a < in an attribute"));
    }
    Ok((name, value, rest))
}

/// Names of SVG's own elements, where they are written with a prefix.
fn local(name: &str) -> &str {
    name.strip_prefix("svg:").unwrap_or(name)
}

/// Whether an attribute says how to draw. Namespaces are ours, handlers are scripts, and an address
/// is one within the drawing itself.
fn is_kept(name: &str, value: &str) -> bool {
    match name {
        "href" | "xlink:href" => value.starts_with('#'),
        "xml:space" => true,
        "xmlns" => false,
        name if name.contains(':') => false,
        name => {
            let handler = name.get(..2).is_some_and(|on| on.eq_ignore_ascii_case("on"));
            !handler && !fetches(value)
        }
    }
}

/// Whether a style, or an attribute that is one, may lead out of the drawing. Escapes could spell
/// anything, so they are taken for it.
fn fetches(style: &str) -> bool {
    let style: String = style.chars().filter(|c| !c.is_whitespace()).collect();
    let style = style.to_ascii_lowercase();
    let escapes = style.contains('\\') || style.contains("&#");
    let outside = |rest: &str| !rest.trim_start_matches(['"', '\'']).starts_with('#');
    escapes
        || style.contains("@import")
        || style.contains("image(")
        || style.contains("image-set(")
        || style.contains("javascript:")
        || style.split("url(").skip(1).any(outside)
}

/// Text out of a CDATA section.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(svg: &str) -> String {
        let icon = checked(Bytes::copy_from_slice(svg.as_bytes())).unwrap();
        assert_eq!(icon.kind, Kind::Svg);
        String::from_utf8(icon.bytes.to_vec()).unwrap()
    }

    fn refused(bytes: &[u8]) -> BadIcon {
        checked(Bytes::copy_from_slice(bytes)).unwrap_err()
    }

    #[test]
    fn an_image_is_what_its_first_bytes_say() {
        for (bytes, kind) in [
            (&b"\x89PNG\r\n\x1a\n...."[..], Kind::Png),
            (&b"\xff\xd8\xff\xe0.."[..], Kind::Jpeg),
            (&b"GIF89a.."[..], Kind::Gif),
            (&b"RIFF\0\0\0\0WEBPVP8 "[..], Kind::Webp),
        ] {
            let icon = checked(Bytes::from_static(bytes)).unwrap();
            assert_eq!((icon.kind, &icon.bytes[..]), (kind, bytes));
        }
        for bytes in [&b""[..], b"%PDF", b"<html></html>", b"<!doctype html><body>", b"\xff\xff"] {
            assert_eq!(refused(bytes), BadIcon::Kind, "{bytes:?}");
        }
        assert_eq!(refused(&[0; LONGEST + 1]), BadIcon::Long);
    }

    #[test]
    fn a_drawing_stays_a_drawing() {
        let shown = drawn(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE svg PUBLIC \"a\" \"b\" [<!ENTITY x \"y\">]>\n\
             <!-- made by > hand -->\n<svg:svg xmlns:svg='http://www.w3.org/2000/svg' \
             viewBox=\"0 0 9 9\"><defs><style><![CDATA[.a>b{fill:#fff}]]></style>\
             <linearGradient id='g'/></defs><svg:path d=\"M0 0h9\" fill='url(#g)' class = \"a\"/>\
             <text>R&amp;D</text></svg:svg>\n",
        );
        assert_eq!(
            shown,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" \
             xmlns:xlink=\"http://www.w3.org/1999/xlink\" viewBox=\"0 0 9 9\"><defs>\
             <style>.a&gt;b{fill:#fff}</style><linearGradient id=\"g\"/></defs>\
             <path d=\"M0 0h9\" fill=\"url(#g)\" class=\"a\"/>\
             <text>R&amp;D</text></svg>"
        );
    }

    #[test]
    fn what_acts_or_leads_elsewhere_is_left_out() {
        let shown = drawn(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\" ONCLICK='x()'>\
             <script>alert(1)</script><script href=\"//x\"/><rect width=\"1\"/>\
             <foreignObject><body xmlns='http://www.w3.org/1999/xhtml'><g>inner</g></body>\
             </foreignObject><a href=\"javascript:x\"><g id=\"in-a\"/></a>\
             <use href=\"#in-a\"/><pattern xlink:href=\"data:image/svg+xml,x\"/>\
             <pattern href=\"//x.example/y.svg#z\"/><pattern href=\"&#35;x\"/>\
             <image href=\"https://x.example/p.png\"/>\
             <set attributeName=\"href\" to=\"javascript:x\"/><x:script>alert(1)</x:script>\
             <style>@import 'https://x.example/c.css'</style>\
             <style>@imp<!-- -->ort<style/>'//x'</style>\
             <g style=\"fill: url( https://x.example/f )\" fill='\\75rl(x)' filter=\"url('#f')\"/>\
             <g xmlns=\"http://www.w3.org/1999/xhtml\"/></svg>",
        );
        assert_eq!(
            shown,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" \
             xmlns:xlink=\"http://www.w3.org/1999/xlink\"><rect width=\"1\"/><pattern/>\
             <pattern/><pattern/><style></style><style>@imp</style><g filter=\"url('#f')\"/><g/>\
             </svg>"
        );
    }

    #[test]
    fn what_is_no_well_formed_drawing_is_refused() {
        for svg in [
            "<svg>",
            "<svg",
            "<svg><g></svg></g>",
            "<svg></svg><svg/>",
            "<svg><!-- </svg>",
            "<svg a></svg>",
            "<svg a=b></svg>",
            "<svg a=\"<script>\"></svg>",
            "<svg x\"y=\"z\"></svg>",
            "<svg></g>",
        ] {
            assert!(matches!(refused(svg.as_bytes()), BadIcon::Svg(_)), "{svg}");
        }
        assert_eq!(refused("<svg>".repeat(10_000).as_bytes()), BadIcon::Svg("it is too deep"));
    }

    #[test]
    fn an_icon_may_be_written_into_its_address() {
        let bytes = inline("data:image/gif;base64,R0lGODlhAQ==").unwrap();
        assert_eq!(checked(bytes).unwrap().kind, Kind::Gif);
        let bytes = inline("data:image/svg+xml,%3Csvg%3E%3C/svg%3E").unwrap();
        assert_eq!(checked(bytes).unwrap().kind, Kind::Svg);
        for address in ["", "data:", "data:image/png;base64,%%", "https://x.example/a.png"] {
            assert!(inline(address).and_then(checked).is_err(), "{address}");
        }
    }
}
