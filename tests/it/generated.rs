//! Holds the committed generated files to what the code generates: a contract change is then seen
//! in review. `UPDATE=1 cargo test --test it generated::` writes them anew.

fn check(path: &str, generated: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == generated,
        "{path} is not what the code generates; UPDATE=1 cargo test --test it generated::"
    );
}

#[test]
fn the_openapi_document_is_the_committed_one() {
    check("openapi/binnacle.json", &binnacle::api::openapi());
}

#[test]
fn the_rbac_manifest_is_the_committed_one() {
    check("deploy/rbac.yaml", &binnacle::kinds::rbac_manifest());
}
