#!/bin/bash
#SBATCH --job-name=concat
#SBATCH --account=project
#SBATCH --exclude=node7,node12
#SBATCH --requeue
#SBATCH --partition=gpu
#SBATCH --cpus-per-task=8
#SBATCH --time=01:30:00
#SBATCH --mem=65536M
#SBATCH --gres=gpu:h100:2
#SBATCH --output=concat.err
#SBATCH --error=concat.err
#SBATCH --open-mode=append

job=$PWD
workspace=${job%/jobs/*/*}

# A log for each attempt; the latest has the plain name.
for end in out err; do
  if [ -s concat.$end ]; then
    n=1
    while [ -e concat.$n.$end ]; do n=$((n + 1)); done
    mv -- concat.$end concat.$n.$end
  fi
done
exec >>concat.out 2>>concat.err

module load cuda/12
source "$HOME/venv/bin/activate"
export MODE=fast
export OMP_NUM_THREADS=8
export PYTHONPATH="$workspace"/.xpm/code/fedcba9876543210${PYTHONPATH:+:$PYTHONPATH}
exec python3 "$workspace"/.xpm/lib/0123456789abcdef/run_task.py "$job"
