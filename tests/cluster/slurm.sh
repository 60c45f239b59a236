#!/usr/bin/env bash
# A real Slurm of one node: dask-jobqueue submits two jobs of one worker; one job is killed midway, and replaced.
EPOCHS=${EPOCHS:-10} # so that it outlasts the 30 s after which a job is replaced
. "$(dirname "$0")/common.sh"
. "$here/slurm-daemons.sh"

kill_job() { # the youngest of the running ones, without a chance to clean up
    squeue
    scancel --signal=KILL --full "$(squeue -h -t running -o %i | sort -n | tail -n 1)"
}

say "12 runs in two Slurm jobs"
there=(hydra/launcher=dask hydra.launcher.cluster=slurm hydra.launcher.jobs=2 hydra.launcher.memory=1GB
    hydra.launcher.queue=short hydra.launcher.walltime=00:30:00 hydra.launcher.interface=lo)
sweep slurm "${there[@]}" & main=$!
killed_midway slurm kill_job
wait $main
say "jobs that were submitted, and what is left of them"
ls slurm/sweeps/jobs
squeue
same slurm
search slurm "${there[@]}"
