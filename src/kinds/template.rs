//! The pod template of a workload, as far as its row shows it: the images.
//!
//! Pods themselves have their own, larger view (`pod.rs`).

use serde::Deserialize;

use super::meta::Text;

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Template<'a> {
    #[serde(borrow)]
    spec: PodSpec<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec<'a> {
    #[serde(borrow)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    init_containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    image: Text<'a>,
}

impl Template<'_> {
    /// Images of the containers in order, duplicates kept; `None` (null) when there are none.
    pub fn images(&self) -> Option<Vec<&str>> {
        images(&self.spec.containers)
    }

    /// The same of the init containers.
    pub fn init_images(&self) -> Option<Vec<&str>> {
        images(&self.spec.init_containers)
    }
}

fn images<'a>(containers: &'a Option<Vec<Container<'_>>>) -> Option<Vec<&'a str>> {
    let containers = containers.as_deref().filter(|containers| !containers.is_empty())?;
    Some(containers.iter().map(|container| &*container.image).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_keep_order_and_duplicates_and_are_null_when_there_are_none() {
        let template: Template = serde_json::from_str(
            r#"{"spec":{"containers":[{"image":"b:1"},{"image":"a:1"},{"image":"b:1"}],"initContainers":[]}}"#,
        )
        .unwrap();
        assert_eq!(template.images(), Some(vec!["b:1", "a:1", "b:1"]));
        assert_eq!(template.init_images(), None);
        let template: Template = serde_json::from_str(r#"{"spec":{"containers":null}}"#).unwrap();
        assert_eq!(template.images(), None);
    }
}
