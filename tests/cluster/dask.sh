#!/usr/bin/env bash
# A Dask scheduler and two workers in processes of their own; one worker and its nanny are killed midway.
. "$(dirname "$0")/common.sh"
tear_down() { :; }
address=tcp://127.0.0.1:${PORT:-18786}

dask scheduler --host 127.0.0.1 --port "${address##*:}" --no-dashboard >scheduler.log 2>&1 & pids+=($!)
start_worker() { dask worker "$address" --name "$1" --nthreads 1 --no-dashboard >"$1.log" 2>&1 & pids+=($!); }
start_worker first
start_worker second

# The nanny first, else it would start another.
kill_worker() { children=$(pgrep -P "$1"); kill -9 "$1"; kill -9 $children; }

say "12 runs on $address"
sweep dask hydra/launcher=dask hydra.launcher.address="$address" & main=$!
killed_midway dask kill_worker "${pids[2]}"
wait $main
same dask
start_worker third
search dask hydra/launcher=dask hydra.launcher.address="$address"
