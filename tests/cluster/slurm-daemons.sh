# Sourced by the scripts for Slurm: one node, from Debian's packages (apt-get install slurm-wlm munge), with daemons of its
# own on other ports; must be root.
# shellcheck shell=bash
export SLURM_CONF=$work/slurm.conf PATH=$PATH:/usr/sbin:/sbin
tear_down() { scancel --user "$(id -un)" || true; sleep 1; }

chmod 755 "$work"
mkdir munge state spool
dd if=/dev/urandom of=munge/key bs=1k count=1 status=none
chmod 700 munge && chmod 400 munge/key
cat >slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmctldPort=26817
SlurmdPort=26818
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

munged --foreground --force --key-file=munge/key --socket="$work/munge/socket" --pid-file=munge/pid \
    --log-file=munge/log --seed-file=munge/seed >munged.log 2>&1 & pids+=($!)
sleep 1
slurmctld -D >slurmctld.log 2>&1 & pids+=($!)
slurmd -D -N "$(hostname -s)" >slurmd.log 2>&1 & pids+=($!)
until sinfo -h -o %T 2>/dev/null | grep -q idle; do sleep 1; done
sinfo
