#!/bin/bash
#SBATCH --job-name=train
#SBATCH --time=01:00:00
#SBATCH --gres=gpu:1
#SBATCH --output=train.err
#SBATCH --error=train.err
#SBATCH --open-mode=append

job=$PWD
workspace=${job%/jobs/*/*}

# A log for each attempt; the latest has the plain name.
for end in out err; do
  if [ -s train.$end ]; then
    n=1
    while [ -e train.$n.$end ]; do n=$((n + 1)); done
    mv -- train.$end train.$n.$end
  fi
done
exec >>train.out 2>>train.err

container=$(command -v apptainer || command -v singularity) || { echo "there is no apptainer here" >&2; exit 1; }
export PYTHONPATH="$workspace"/.xpm/code/fedc${PYTHONPATH:+:$PYTHONPATH}
exec "$container" exec --nv --bind "$workspace" --pwd "$job" --bind /data "$workspace"/.xpm/env/0123456789abcdef/image.sif python3 "$workspace"/.xpm/lib/0123/run_task.py "$job"
