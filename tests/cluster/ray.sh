#!/usr/bin/env bash
# A Ray cluster of two nodes (a head and another, each with its own raylet) on one machine; the second is killed midway.
. "$(dirname "$0")/common.sh"
export RAY_TMPDIR=$work RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$work/token
python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH"
chmod 600 "$RAY_AUTH_TOKEN_PATH"
port=${PORT:-6389}

# `ray stop` would end every Ray of this machine; these have this script's folder on their command lines.
ours() { pgrep -f -- "$1.*$work|$work.*$1" || true; }
tear_down() { kill $(ours raylet) $(ours gcs_server) $(ours ray/) 2>/dev/null; sleep 2; kill -9 $(ours /) 2>/dev/null; }

start() {
    ray start --node-ip-address 127.0.0.1 --num-cpus 1 --disable-usage-stats "$@" >>nodes.log 2>&1 ||
        { tail nodes.log; false; }
}
start --head --port "$port" --include-dashboard=false
first=$(ours raylet/raylet)
start --address "127.0.0.1:$port"
second=$(ours raylet/raylet | grep -vx "$first")

say "12 runs on two nodes"
sweep ray hydra/launcher=ray hydra.launcher.address="127.0.0.1:$port" & main=$!
killed_midway ray kill -9 "$second"
wait $main
same ray
start --address "127.0.0.1:$port"
search ray hydra/launcher=ray hydra.launcher.address="127.0.0.1:$port"
