#!/bin/bash

job=$PWD
workspace=${job%/jobs/*/*}

# A log for each attempt; the latest has the plain name.
for end in out err; do
  if [ -s 'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'.$end ]; then
    n=1
    while [ -e 'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'.$n.$end ]; do n=$((n + 1)); done
    mv -- 'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'.$end 'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'.$n.$end
  fi
done
exec >>'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'.out 2>>'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'.err

export DASH=-n
export EMPTY=''
export LINES_='two
lines

'
export QUOTE=''"'"''
export WORDS='it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'
export PYTHONPATH="$workspace"/'.xpm/code/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!':"$workspace"/.xpm/code/b${PYTHONPATH:+:$PYTHONPATH}
exec '/opt/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!/python' "$workspace"/'.xpm/lib/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'/run_task.py "$job"
