#!/usr/bin/env bash
# Writes deploy/order.ld anew: the functions that run when binnacle starts, idles and is used in front of
# its demo cluster, as valgrind sees them in a release build. It takes some 15 minutes; build.rs says what for.
# NOT a measurement: `cargo bench --bench memory` tells what it is worth.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target="${CARGO_TARGET_DIR:-target}"
folder="$(mktemp -d)"
children=()
trap 'kill "${children[@]}" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT

# The address in the line of a child's news that begins with $2; it may take a while under valgrind.
address() {
    for _ in $(seq 600); do
        sed -n "s|^$2||p" "$1" | grep -m 1 . && return
        sleep 0.2
    done
    echo "no line that begins with '$2' in $1" >&2
    return 1
}

# Names in a callgrind file, in the order of their addresses.
ran() {
    grep -aoE '^c?fn=\([0-9]+\) [^ ]+' "$1" | sed -E "s/^[^ ]+ //; s/'[0-9]+$//" | sort -u > "$folder/names"
    awk 'NR == FNR { ran[$1]; next } $1 in ran' "$folder/names" "$folder/symbols"
}

CARGO_PROFILE_RELEASE_STRIP=none cargo build --release --locked
binnacle="$target/release/binnacle"
nm -n "$binnacle" | awk '$2 ~ /^[tTwW]$/ { print $3 }' > "$folder/symbols"

"$binnacle" demo --listen 127.0.0.1:0 --pods 100 --kubeconfig-out "$folder/kubeconfig" 2> "$folder/demo" &
children+=($!)
address "$folder/demo" "listening on " > /dev/null
valgrind --tool=callgrind --demangle=no --callgrind-out-file="$folder/ran" \
    "$binnacle" --listen 127.0.0.1:0 --insecure-listen 127.0.0.1:0 --log-level warn \
    --kubeconfig "$folder/kubeconfig" --state-dir "$folder/state" 2> "$folder/news" &
gateway=$!
children+=("$gateway")
tls="https://$(address "$folder/news" "listening on https://")"
plain="http://$(address "$folder/news" "listening on http://")"

ask() { curl --silent --insecure --max-time 60 --header "Authorization: Bearer demo-admin-token" "$@"; }
drop() { ask --output /dev/null "$@" || true; }
# namespace/name of the first two of a list.
two() {
    ask "$tls/api/v1/$1?itemsPerPage=2" |
        sed 's/"objectMeta":/\n&/g' | sed -nE 's/^"objectMeta":\{"name":"([^"]+)","namespace":"([^"]+)".*/\2\/\1/p'
}

until ask "$plain/readyz?verbose" | grep -q . && ! ask "$plain/readyz?verbose" | grep -q syncing; do
    kill -0 "$gateway"
    sleep 1
done
# Long enough for each thing that happens every so often.
sleep 40
callgrind_control --dump "$gateway" > /dev/null
for kind in namespace node event pod deployment replicaset statefulset daemonset job cronjob service ingress \
    configmap secret persistentvolumeclaim horizontalpodautoscaler role serviceaccount; do
    drop "$tls/api/v1/$kind"
    drop "$tls/api/v1/$kind?itemsPerPage=10&page=1&sortBy=d,creationTimestamp&filterBy=name,a"
done
for pod in $(two pod); do
    for path in "pod/$pod" "pod/$pod/event" "log/$pod"; do drop "$tls/api/v1/$path"; done
    drop "$tls/clusters/demo/api/v1/namespaces/${pod%/*}/pods/${pod#*/}"
done
for deployment in $(two deployment); do drop "$tls/api/v1/deployment/$deployment"; done
for at in "$tls" "$plain"; do
    for path in "api/v1/pod?itemsPerPage=10&page=1&sortBy=d,creationTimestamp" api/v1/overview \
        "api/v1/search?q=a" "clusters/demo/api/v1/pods?limit=5" clusters/demo/version metrics readyz livez; do
        drop --http1.1 "$at/$path"
        drop --http2 "$at/$path"
    done
done
drop --max-time 6 --header "Accept: text/event-stream" "$tls/api/v1/pod?itemsPerPage=10"
drop --max-time 6 "$tls/clusters/demo/api/v1/pods?watch=true"
kill "$gateway"
wait "$gateway" || true

# A crate's number changes with its version, and long names differ in their first 300 letters. Rust puts cold
# functions into .text.unlikely.
{ ran "$folder/ran.1"; ran "$folder/ran"; } |
    sed -E 's/Cs[0-9A-Za-z]+_([0-9])/Cs*_\1/g; s/^aws_lc_[0-9]+_[0-9]+_[0-9]+_/aws_lc_*_/' |
    awk '
        BEGIN { print "/* Written by benches/order.sh; read by build.rs. */\nSECTIONS\n{\n  .text.first :\n  {" }
        { name = length($0) > 300 ? substr($0, 1, 300) "*" : $0 }
        !seen[name]++ { print "    *(.text." (name ~ /^_R/ ? "*" : "") name ")" }
        END { print "  }\n}\nINSERT BEFORE .text;" }
    ' > deploy/order.ld.new
mv deploy/order.ld.new deploy/order.ld
wc deploy/order.ld
