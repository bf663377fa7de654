#!/bin/bash
#OAR --name say
#OAR --resource /nodes=1/core=2
#OAR --stdout oar.%jobid%.log
#OAR --stderr oar.%jobid%.log

# When the job's time ends, for remaining_time().
if [ -n "${OAR_JOB_WALLTIME_SECONDS:-}" ] && [ -z "${XPM_HPC_END_TIME:-}" ]; then
  export XPM_HPC_END_TIME=$(($(date +%s) + OAR_JOB_WALLTIME_SECONDS))
fi

# $1 has the indexes of this array's elements, such as 0-2,5; OAR counts them from 1.
rest=$OAR_ARRAY_INDEX
for span in ${1//,/ }; do
  index=$((${span%-*} + rest - 1))
  [ "$index" -le "${span#*-}" ] && break
  rest=$((index - ${span#*-}))
done
# One element of an array: each goes on as the job of its own directory.
jobs=(
[0]=jobs/say/0
[1]=jobs/say/1
[2]=jobs/say/2
[3]=jobs/say/3
[4]=jobs/say/4
[5]=jobs/say/5
[6]='jobs/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d/6'
)
cd ../../../"${jobs[$index]}" || exit 1
exec /bin/bash job.sh

