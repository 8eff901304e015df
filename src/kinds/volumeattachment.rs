//! Volume attachments: which volume is wanted on which node, and whether it is there.

use serde_json::{Value, json};

use super::detail::{copy, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: &[Column::text("attacher"), Column::text("volume"), Column::text("node")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "volumeattachment",
        Resource::cluster("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments"),
        row,
        detail,
    )
};

/// `volume` is empty for one that was never a persistent volume (`inlineVolumeSpec`).
fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |attachment| {
        let attacher = text(attachment, "/spec/attacher");
        let volume = text(attachment, "/spec/source/persistentVolumeName");
        let node = text(attachment, "/spec/nodeName");
        let attached = attachment.pointer("/status/attached").and_then(Value::as_bool);
        let fields = json!({
            "attacher": attacher, "volume": volume, "node": node,
            "attached": attached.unwrap_or(false),
        });
        let cells = [attacher, volume, node].map(|text| Cell::Text(text.into())).into();
        Own { fields, cells, ..Own::default() }
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |attachment| {
        json!({
            "attachmentMetadata": copy(attachment, "/status/attachmentMetadata"),
            "attachError": copy(attachment, "/status/attachError"),
            "detachError": copy(attachment, "/status/detachError"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_shows_what_is_wanted_where_and_why_it_is_not_there() {
        let json = r#"{"metadata": {"name": "a"}, "spec": {"attacher": "csi.example.com",
            "nodeName": "node-0", "source": {"persistentVolumeName": "vol-1"}},
            "status": {"attached": false, "attachError": {"message": "no room"}}}"#;
        let texts = ["csi.example.com", "vol-1", "node-0"];
        assert_eq!(*row(json).unwrap().cells, texts.map(|text| Cell::Text(text.into())));
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "a", "creationTimestamp": null},
                "typeMeta": {"kind": "volumeattachment"},
                "attacher": "csi.example.com", "volume": "vol-1", "node": "node-0",
                "attached": false, "attachmentMetadata": null,
                "attachError": {"message": "no room"}, "detachError": null,
            })
        );
    }
}
