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

if ! type module >/dev/null 2>&1; then
  for file in "${LMOD_PKG:-/usr/share/lmod/lmod}"/init/bash "${MODULESHOME:-/usr/share/modules}"/init/bash \
    /usr/share/Modules/init/bash /etc/profile.d/*lmod.sh /etc/profile.d/modules.sh; do
    if [ -r "$file" ]; then . "$file"; break; fi
  done
fi
module load python/3.11 || exit 1
export VIRTUAL_ENV="$workspace"/.xpm/env/0123456789abcdef/env
export PATH="$VIRTUAL_ENV/bin:$PATH"
export PYTHONPATH="$workspace"/.xpm/code/fedc${PYTHONPATH:+:$PYTHONPATH}
exec "$workspace"/.xpm/env/0123456789abcdef/env/bin/python "$workspace"/.xpm/lib/0123/run_task.py "$job"
