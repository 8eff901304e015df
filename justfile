# The list of recipes
default:
    @just --list

# What must pass before a change lands
ci:
    .ci/run

# Unit tests: need only Rust
unit:
    cargo test --locked --lib

# Everything, on the real control plane
test:
    cargo test --locked

# The embedded demo cluster
demo:
    cargo run --locked -- --demo

# Write what is generated and committed; a test fails on drift
generate:
    cargo build --locked
    mkdir -p openapi deploy
    cargo run --quiet --locked -- openapi > openapi/binnacle.json.new
    mv openapi/binnacle.json.new openapi/binnacle.json
    cargo run --quiet --locked -- rbac > deploy/rbac.yaml.new
    mv deploy/rbac.yaml.new deploy/rbac.yaml

# Licences, sources and forbidden crates
deny:
    cargo deny check bans licenses sources
