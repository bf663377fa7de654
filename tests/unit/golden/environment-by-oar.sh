#!/bin/bash
#OAR --name environment
#OAR --resource /resource_id=1,walltime=1:0:0
#OAR --stdout environment.err
#OAR --stderr environment.err

# When the job's time ends, for remaining_time().
if [ -n "${OAR_JOB_WALLTIME_SECONDS:-}" ] && [ -z "${XPM_HPC_END_TIME:-}" ]; then
  export XPM_HPC_END_TIME=$(($(date +%s) + OAR_JOB_WALLTIME_SECONDS))
fi

job=$PWD
workspace=${job%/jobs/*/*}

# A log for each attempt; the latest has the plain name.
for end in out err; do
  if [ -s environment.$end ]; then
    n=1
    while [ -e environment.$n.$end ]; do n=$((n + 1)); done
    mv -- environment.$end environment.$n.$end
  fi
done
exec >>environment.out 2>>environment.err

started=$(date +%s)
native=${SLURM_JOB_ID:-${OAR_JOB_ID:-$XPM_HPC_NATIVE_ID}}
common='"host": "'$(uname -n)'", "native_id": "'$native'", "started": '$started
write() {
  printf '%s\n' "$2" >"$1".tmp && mv -- "$1".tmp "$1"
}
rm -f -- environment.failed
write progress.json "{$common}"
bash "$workspace"/.xpm/env/0123456789abcdef/build.sh 2>&1
code=$?
common="$common, \"ended\": $(date +%s), \"exit_code\": $code"
if [ "$code" = 0 ]; then
  write environment.done "{\"state\": \"done\", $common}"
else
  # the end of the log, as a text of JSON
  words=$(tail -n 12 -- environment.out | LC_ALL=C tr -cd '\12\40-\176' | sed 's/[\\"]/\\&/g' | awk '{ printf "%s%s", end, $0; end = "\\n" }')
  write environment.failed "{\"state\": \"failed\", \"reason\": \"exit\", \"message\": \"$words\", $common}"
fi
exit "$code"
