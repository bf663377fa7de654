#!/bin/bash
#OAR --name it-s---touch-pwned---touch-pwned---q-----------d
#OAR --resource /nodes=1/gpu=2,walltime=1:30:0
#OAR --queue default
#OAR --property gpu_model = 'Tesla V100'
#OAR --type besteffort
#OAR --stdout job.log
#OAR --stderr job.log

# When the job's time ends, for remaining_time().
if [ -n "${OAR_JOB_WALLTIME_SECONDS:-}" ] && [ -z "${XPM_HPC_END_TIME:-}" ]; then
  export XPM_HPC_END_TIME=$(($(date +%s) + OAR_JOB_WALLTIME_SECONDS))
fi

job=$PWD
workspace=${job%/jobs/*/*}

# A log for each attempt; the latest has the plain name.
for end in out err; do
  if [ -s 'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ '.$end ]; then
    n=1
    while [ -e 'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ '.$n.$end ]; do n=$((n + 1)); done
    mv -- 'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ '.$end 'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ '.$n.$end
  fi
done
exec >>'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ '.out 2>>'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ '.err

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
module load cuda/12
export A='it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d'
export B='two
lines'

export PYTHONPATH="$workspace"/'.xpm/code/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d':"$workspace"/b${PYTHONPATH:+:$PYTHONPATH}
exec '/opt/my python' "$workspace"/'.xpm/lib/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d'/run_task.py "$job"
