#!/bin/bash
#OAR --name say
#OAR --resource /nodes=1/gpu=1,walltime=1:0:0
#OAR --type idempotent
#OAR --checkpoint 120
#OAR --signal 12
#OAR --stdout job.log
#OAR --stderr job.log

# When the job's time ends, for remaining_time().
if [ -n "${OAR_JOB_WALLTIME_SECONDS:-}" ] && [ -z "${XPM_HPC_END_TIME:-}" ]; then
  export XPM_HPC_END_TIME=$(($(date +%s) + OAR_JOB_WALLTIME_SECONDS))
fi
export XPM_HPC_IDEMPOTENT=1  # OAR starts the job again if it ends with 99

trap '' USR2  # a warning that comes before the task listens is not its end

job=$PWD
workspace=${job%/jobs/*/*}

# A log for each attempt; the latest has the plain name.
for end in out err; do
  if [ -s say.$end ]; then
    n=1
    while [ -e say.$n.$end ]; do n=$((n + 1)); done
    mv -- say.$end say.$n.$end
  fi
done
exec >>say.out 2>>say.err

# OAR names the job's GPUs only in a file. Where the site hides all others, CUDA counts the job's own from 0 by itself;
# elsewhere it must be told which they are.
properties=${OAR_RESOURCE_PROPERTIES_FILE:-}
if [ -r "$properties" ]; then
  hidden=
  for device in /dev/nvidia[0-9]*; do
    if [ -c "$device" ] && [ ! -r "$device" ]; then hidden=yes; fi
  done
  here=$(grep " = '${HOSTNAME%%.*}['.]" "$properties" || cat "$properties")
  gpus=$(sed -n "s/.* gpudevice = '\([0-9][0-9]*\)'.*/\1/p" <<<"$here" | sort -nu | paste -sd, -)
  if [ -n "$gpus" ] && [ -z "$hidden" ]; then export CUDA_VISIBLE_DEVICES=$gpus; fi
fi
# OAR has every bash read the user's .bashrc. This one did; those that the task starts need not.
unset BASH_ENV

export PYTHONPATH=${PYTHONPATH:+:$PYTHONPATH}
exec python3 "$workspace"/.xpm/lib/0/run_task.py "$job"
