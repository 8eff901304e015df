//! Reading one of an object's conditions by its type, for kinds that show it in their list.
//!
//! Not the contract's `Condition` list: that is `detail::conditions`.

use serde_json::Value;

use super::detail::text;

/// What an absent condition counts as, by Kubernetes' API conventions.
const UNKNOWN: &str = "Unknown";

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Value], of: &str) -> Option<&'a Value> {
    conditions.iter().find(|condition| text(condition, "/type") == of)
}

/// Its status: `True`, `False` or `Unknown`.
pub fn status<'a>(conditions: &'a [Value], of: &str) -> &'a str {
    match find(conditions, of).map(|condition| text(condition, "/status")) {
        None | Some("") => UNKNOWN,
        Some(status) => status,
    }
}

/// One status of several: `False` as soon as one is, `True` when all are.
pub fn together<'a>(statuses: impl IntoIterator<Item = &'a str>) -> &'static str {
    let statuses: Vec<&str> = statuses.into_iter().collect();
    if statuses.contains(&"False") {
        "False"
    } else if !statuses.is_empty() && statuses.iter().all(|status| *status == "True") {
        "True"
    } else {
        UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_that_is_not_there_is_unknown() {
        let conditions = [json!({"type": "Ready", "status": "True"}), json!({"type": "Odd"})];
        assert_eq!(status(&conditions, "Ready"), "True");
        assert_eq!(status(&conditions, "Odd"), "Unknown");
        assert_eq!(status(&[], "Ready"), "Unknown");
    }

    #[test]
    fn several_are_true_when_all_are_and_false_when_one_is() {
        assert_eq!(together(["True", "True"]), "True");
        assert_eq!(together(["True", "Unknown", "False"]), "False");
        assert_eq!(together(["True", "Unknown"]), "Unknown");
        assert_eq!(together([]), "Unknown");
    }
}
