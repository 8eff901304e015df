//! What an engine's dry run prints: the objects, hooks and notes of the release that it would make.
//!
//! The printed release has its whole chart with it; that is passed over while reading. Nothing
//! here judges what was rendered.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::blob;
use super::manifest::{Object, objects};

/// Hooks of one release that are told; charts have a handful.
const HOOKS: usize = 200;
/// Notes that are told, in bytes: they are made to be read in a terminal.
const NOTES: usize = 64 << 10;
/// Events, and policies, of one hook: Helm knows nine.
const WORDS: usize = 32;
/// Annotations by which Helm knows hooks (helm `pkg/release/v1/hook.go`).
const HOOK: &str = "helm.sh/hook";
const HOOK_WEIGHT: &str = "helm.sh/hook-weight";
const HOOK_DELETE: &str = "helm.sh/hook-delete-policy";

/// A release that was rendered and not made.
#[derive(Debug, Default)]
pub struct Rendered {
    pub objects: Vec<Object>,
    /// A sentence for each document that is no object.
    pub unreadable: Vec<String>,
    pub hooks: Vec<Hook>,
    pub notes: String,
}

/// A hook without its object, which may be a Secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(serialize = "camelCase"), default)]
pub struct Hook {
    pub name: String,
    pub kind: String,
    /// The template within its chart.
    pub path: String,
    pub events: Vec<String>,
    pub weight: i64,
    pub delete_policies: Vec<String>,
}

/// The printed release (helm `pkg/release/v1/release.go`) without `chart` and `config`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Printed {
    info: Option<Info>,
    manifest: String,
    hooks: Option<Vec<Hook>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Info {
    notes: String,
}

impl Rendered {
    /// Of what `--dry-run=server -o json` printed: one line of JSON. Before it a cancelled run says
    /// so in words (helm 3 and 4, `runInstall`), and an engine built by somebody else may greet.
    /// `None` when there is no such line; what is wrong with it would repeat secrets of the release.
    pub fn parse(stdout: &[u8]) -> Option<Self> {
        let ends = stdout.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let mut starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
        let start = starts.find(|at| stdout.get(*at) == Some(&b'{'))?;
        let text = stdout.get(start..)?;
        // What follows the release is passed over.
        let mut reader = serde_json::Deserializer::from_slice(text);
        let printed = Printed::deserialize(&mut reader).ok()?;
        let hooks = printed.hooks.unwrap_or_default();
        let notes = printed.info.unwrap_or_default().notes;
        Some(Self::of(&printed.manifest, hooks, &notes))
    }

    /// Of a stored release: its manifest, hooks and notes.
    pub fn of(manifest: &str, mut hooks: Vec<Hook>, notes: &str) -> Self {
        let (objects, unreadable) = objects(manifest);
        hooks.truncate(HOOKS);
        let end = (0..=notes.len().min(NOTES)).rev().find(|at| notes.is_char_boundary(*at));
        let notes = notes.get(..end.unwrap_or_default()).unwrap_or_default().to_owned();
        Self { objects, unreadable, hooks, notes }
    }

    /// Of what `helm template` printed: hooks stand among the objects, and there are no notes.
    pub fn of_template(stdout: &[u8]) -> Self {
        let (all, unreadable) = objects(&String::from_utf8_lossy(stdout));
        let (mut objects, mut hooks) = (Vec::new(), Vec::new());
        for object in all {
            match Hook::of(&object) {
                None => objects.push(object),
                Some(hook) if hooks.len() < HOOKS => hooks.push(hook),
                Some(_) => {}
            }
        }
        Self { objects, unreadable, hooks, notes: String::new() }
    }
}

impl Hook {
    /// `None` when the object is no hook.
    fn of(object: &Object) -> Option<Self> {
        let value = object.value();
        let annotations = value.pointer("/metadata/annotations")?;
        let text = |name: &str| annotations.get(name).and_then(Value::as_str);
        let words = |text: &str| -> Vec<String> {
            text.split(',').take(WORDS).map(|word| word.trim().to_lowercase()).collect()
        };
        Some(Self {
            events: words(text(HOOK)?),
            name: object.name.clone(),
            kind: object.kind.clone(),
            path: object.source.clone().unwrap_or_default(),
            weight: text(HOOK_WEIGHT).and_then(|text| text.trim().parse().ok()).unwrap_or_default(),
            delete_policies: text(HOOK_DELETE).map(words).unwrap_or_default(),
        })
    }
}

/// Of a stored release.
impl From<blob::Hook> for Hook {
    fn from(hook: blob::Hook) -> Self {
        let blob::Hook { name, kind, path, events, weight, delete_policies, .. } = hook;
        Self { name, kind, path, events, weight, delete_policies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MANIFEST: &str = "---\n# Source: web/templates/cm.yaml\napiVersion: v1\nkind: ConfigMap\n\
                            metadata: {name: a}\n";

    fn printed() -> Value {
        json!({
            "name": "r",
            "info": {"status": "pending-install", "notes": "Read me.\n"},
            "chart": {"values": {"manifest": 7}, "files": [{"name": "f", "data": "AAAA"}]},
            "manifest": MANIFEST,
            "hooks": [{"name": "h", "kind": "Job", "path": "web/h.yaml", "manifest": "kind: Job",
                "events": ["pre-install"], "last_run": {"phase": ""}, "weight": 3}],
        })
    }

    #[test]
    fn the_release_is_read_whatever_stands_around_its_line() {
        let text = format!("Release r has been cancelled.\n{}\nbye\n", printed());
        let rendered = Rendered::parse(text.as_bytes()).unwrap();
        assert_eq!((rendered.objects.len(), rendered.notes.as_str()), (1, "Read me.\n"));
        assert_eq!(rendered.objects[0].source.as_deref(), Some("web/templates/cm.yaml"));
        let hook = serde_json::to_value(&rendered.hooks[0]).unwrap();
        let expected = json!({"name": "h", "kind": "Job", "path": "web/h.yaml",
            "events": ["pre-install"], "weight": 3, "deletePolicies": []});
        assert_eq!(hook, expected);
    }

    #[test]
    fn output_without_a_release_or_with_a_part_of_one_is_none() {
        let whole = printed().to_string();
        for text in ["", "no json\n", "x {}\n", &whole[..whole.len() / 2]] {
            assert!(Rendered::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn of_templates_hooks_are_told_from_objects_by_their_annotation() {
        let hook = "---\napiVersion: batch/v1\nkind: Job\nmetadata:\n  name: h\n  annotations:\n    \
                    helm.sh/hook: pre-install,test\n    helm.sh/hook-weight: \"-5\"\n";
        let rendered = Rendered::of_template(format!("{MANIFEST}{hook}").as_bytes());
        assert_eq!(rendered.objects.len(), 1);
        assert_eq!(rendered.hooks[0].events, ["pre-install", "test"]);
        assert_eq!(rendered.hooks[0].weight, -5);
    }
}
