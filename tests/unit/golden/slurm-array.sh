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
#SBATCH --output=%a.log
#SBATCH --error=%a.log
#SBATCH --open-mode=append

index=$SLURM_ARRAY_TASK_ID
# One element of an array: each goes on as the job of its own directory.
jobs=(
[0]=jobs/test.concat/aa
[2]=jobs/test.concat/bb
[17]='jobs/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!/cc'
)
cd ../../../"${jobs[$index]}" || exit 1
exec /bin/bash job.sh

