#!/usr/bin/env bash
# A real Slurm of one node: a sweep of 24 runs is planned and left to an array of 4 tasks, of which two fit at once. The
# shell that submitted it is killed; then one task is killed, and another comes to its time limit.
. "$(dirname "$0")/common.sh"

say "an epoch on this machine as it is now, by two runs at once"
python -m mlp.train --multirun seed=0,1 epochs=2 hydra.launcher.workers=2 out="$work/measured" | tail -n 1
# Enough epochs for two tasks to be still at work when a limit of a minute has come; and for the others a limit of four
# times what one task alone would take for all runs.
read -r EPOCHS minutes < <(python - "$work/measured" "${EPOCHS:-0}" <<'PYTHON'
import math, sys, sweeps
rows = sweeps.load(sys.argv[1]).epochs
epoch = (rows["seconds"] + rows["eval_seconds"]).median()
epochs = int(sys.argv[2]) or min(24, max(4, math.ceil(2 * 240 / (24 * epoch))))
print(epochs, 10 + math.ceil(4 * 24 * epochs * epoch / 60))
PYTHON
)
echo "$EPOCHS epochs a run, at most $minutes minutes a task"
. "$here/slurm-daemons.sh"
words=(lr=0.1,0.05,0.02,0.01 seed=0,1,2,3,4,5 "epochs=$EPOCHS" hydra.sweeper.name=left)
watch() { python -m sweeps watch --once --sweep left --out "$work/array"; }
states() { squeue -h -r -o "%K %T" | sort -n; }
until_log() { until grep -q "$2" "$work/array/sweeps/left/"slurm-*_"$1".log 2>/dev/null; do sleep 1; done; }

say "submit 24 runs as an array of 4, in a shell that is killed"
: >submit.log
setsid bash -c 'cd "$1" && python -m mlp.train --multirun "${@:2}" && exec sleep 600' submit "$work" "${words[@]}" \
    out="$work/array" hydra/launcher=slurm hydra.launcher.array=4 hydra.launcher.partition=short \
    "hydra.launcher.time='$minutes'" >submit.log 2>&1 &
shell=$!
until grep -q "^end it:" submit.log; do
    kill -0 $shell || { cat submit.log; exit 1; }
    sleep 0.2
done
kill -KILL -- "-$shell"
cat submit.log
array=$(cat array/sweeps/left/slurm-jobs)

until [ "$(rows array)" -ge 7 ]; do sleep 0.2; done
say "who works on what, from another shell"
states
watch
python -m sweeps ls --out "$work/array" --columns run,state,worker state=running

say "task 1 is killed with KILL"
scancel --signal=KILL --full "${array}_1"
until states | grep -q "^3 RUNNING"; do sleep 0.5; done

say "task 2 comes to its time limit, which is cut to the minute that is Slurm's least"
scontrol update "jobid=${array}_2" TimeLimit=1
until ! states | grep -q "^2 "; do sleep 1; done
cat "array/sweeps/left/slurm-${array}_2.log"
grep -q "DUE TO TIME LIMIT" "array/sweeps/left/slurm-${array}_2.log"
grep -q "stopping at a checkpoint" "array/sweeps/left/slurm-${array}_2.log"
watch

say "the others go on"
until [ -z "$(states)" ]; do sleep 1; done
watch
tail -n 3 "array/sweeps/left/slurm-${array}_"[34].log
python -m sweeps work left --out "$work/array" | tee left.log # nothing is left to do
grep -q "24 finished" left.log

say "the local pool"
python -m mlp.train --multirun "${words[@]}" out="$work/pool" | tail -n 1
say "compare"
python "$here/compare.py" "$work/pool" "$work/array"
