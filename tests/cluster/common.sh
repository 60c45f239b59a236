# Sourced by the scripts beside it: 12 short real runs on a cluster of which a part is killed midway, and two searches
# on two workers, must come out as those of the local pool. Needs the extras: scripts/environment all, or a Python that
# has them first on PATH.
# shellcheck shell=bash
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
words=(lr=0.1,0.05,0.02,0.01 seed=0,1,2 epochs=${EPOCHS:-3})
pids=() # what stop must end
cd "$work"

say() { printf '\n=== %s\n' "$*"; }

stop() { # ends what the script started, by process id
    tear_down || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
}

finish() {
    status=$?
    stop >/dev/null 2>&1
    if [ $status = 0 ]; then rm -rf "$work" && echo PASS; else echo "FAIL (see $work)"; fi
    exit $status
}
trap finish EXIT

sweep() { # sweep TREE WORDS…: to its end
    python -m mlp.train --multirun "${words[@]}" out="$work/$1" "${@:2}"
}

rows() { cat "$work/$1"/runs/*/metrics.csv 2>/dev/null | grep -vc ^epoch || true; }

killed_midway() { # killed_midway TREE COMMAND…: the sweep's in the background; the command strikes after some epochs
    local tree=$1
    until [ "$(rows "$tree")" -ge 7 ]; do sleep 0.2; done
    say "after $(rows "$tree") epochs: ${*:2}"
    "${@:2}"
}

same() { # same TREE: as the local pool's
    say "the local pool"
    sweep pool | tail -n 1
    say "compare"
    python "$here/compare.py" "$work/pool" "$work/$1"
}

search() { # search TREE WORDS…: the words say where; each run is then repeated by the local pool
    local tree=$1 words=(data.holdout=5000)
    local halving=(hydra/sweeper=halving lr=0.2,0.05,0.01 activ=relu,gelu
        epochs=4 hydra.sweeper.min_epochs=1 hydra.sweeper.eta=2)
    say "6 points by halving"
    sweep "$tree-halving" "${halving[@]}" "${@:2}"
    say "the local pool"
    sweep pool-halving "${halving[@]}" | tail -n 1
    say "compare"
    python "$here/compare.py" "$work/pool-halving" "$work/$tree-halving"
    say "8 trials by Optuna"
    sweep "$tree-optuna" hydra/sweeper=optuna 'lr=tag(log,interval(1e-3,0.3))' activ=relu,gelu,tanh \
        epochs=2 hydra.sweeper.trials=8 hydra.sweeper.startup=4 "${@:2}"
    say "the local pool"
    python "$here/repeat.py" "$work/$tree-optuna" "$work/pool-optuna" | tail -n 1
    say "compare"
    python "$here/compare.py" "$work/pool-optuna" "$work/$tree-optuna"
}
