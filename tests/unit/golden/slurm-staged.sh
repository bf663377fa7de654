#!/bin/bash
#SBATCH --job-name=it-s---touch-pwned---touch-pwned---q-----------d---HOME-----
#SBATCH --comment="it's $(touch pwned) `touch pwned` \"q\" ; é 猫 \\ %d ${HOME} * ~ & > pwned | #!"
#SBATCH --constraint="a&b|c"
#SBATCH --output="it's $(touch pwned) `touch pwned` \"q\" ; é 猫 \\ %%d ${HOME} * ~ & > pwned | #!.err"
#SBATCH --error="it's $(touch pwned) `touch pwned` \"q\" ; é 猫 \\ %%d ${HOME} * ~ & > pwned | #!.err"
#SBATCH --open-mode=append

if [ "${XPM_HPC_STAGED:-}" != "$PWD" ]; then
job='jobs/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!/aa'
login='it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'
remote='exec sh -c '"'"'it'"'"'"'"'"'"'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'"'"''
folders=('.xpm/lib/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!' '.xpm/code/it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!')
: "${TMPDIR:=/tmp}"
scratch="$TMPDIR"/'it'"'"'s $(touch pwned) `touch pwned` "q" ; é 猫 \ %d ${HOME} * ~ & > pwned | #!'

nonce=$RANDOM$RANDOM$RANDOM
work= token= name=
for program in ssh tar find flock; do command -v "$program" >/dev/null || exit 116; done

ask() { # a request on standard input; the file for what ssh complains of
  ssh -T -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4 \
    -- "$login" "$remote" 2>"$1"
}
answer() { # skip what a login shell may print before
  local line
  while IFS= read -r line; do [ "$line" = "xpm-hpc $nonce" ] && return; done
  return 1
}
give_up() { # an exit status for when nobody can be told, and words
  local reason=launch
  cd /
  if [ "$1" = 119 ]; then reason=exit && mv -- "$work" "$kept" && touch -- "$kept"; else rm -rf -- "$work"; fi
  printf '%s\n' fail "$nonce" "${job#jobs/}" "$token" "$reason" "${HOSTNAME}: $2" | ask /dev/null | answer && exit 1
  exit "$1"
}
pause() { # longer from try to try, and not the same for all who try
  sleep $((1 + RANDOM % (1 << ($1 < 6 ? $1 : 6))))
}

# ---- a folder in scratch, and an end to those that killed jobs left
base=$scratch/xpm-hpc-$(id -u)
[[ $base == /?*/* ]] || give_up 115 "scratch is $base, which is no absolute path"
words=$(mkdir -p -m 700 -- "$base" 2>&1) && [ -O "$base" ] && [ ! -L "$base" ] && mkdir -p -- "$base/cache" ||
  give_up 115 "scratch cannot be used: ${words:-$base belongs to somebody else}"
words=$(mktemp -d -- "$base/job.XXXXXXXX" 2>&1) && work=$words || give_up 115 "scratch cannot be used: $words"
kept=$base/kept.${work##*.}
exec {held}>"$work/held" && flock -n "$held"
trap 'rm -rf -- "$work"; exit 143' TERM
find "$base" -mindepth 1 -maxdepth 1 -name 'job.*' -mmin +60 \
  -exec flock -n {}/held rm -rf -- {} \; 2>/dev/null
find "$base" "$base/cache" -mindepth 1 -maxdepth 1 ! -name 'job.*' ! -name cache -mtime +7 -exec rm -rf -- {} + 2>/dev/null

# ---- what the task needs
fetch() { # 1: the connection was lost, or never there; its complaint is in $words
  local said ssh tar
  said=$(
    {
      printf '%s\n' give "$nonce" "${job#jobs/}"
      for folder in "${folders[@]}"; do
        cached=$base/cache/${folder//\//-}
        mkdir -p -- "$work/${folder%/*}"
        touch -c -- "$cached" && [ -d "$cached" ] && cp -al -- "$cached" "$work/$folder" && printf '%s\n' "$folder"
      done 2>/dev/null
      echo
    } | ask "$work/words" | {
      answer && IFS= read -r token && IFS= read -r name || exit 3
      printf '%s\n' "$token" "$name"
      tar -x -C "$work" 2>&1 && [ -e "$work/$job/.lock" ]
    }
    printf '\n%s' "${PIPESTATUS[*]:1}"
  )
  read -r ssh tar < <(echo "${said##*$'\n'}")
  said=${said%$'\n'*}
  token=${said%%$'\n'*} said=${said#*$'\n'}
  name=${said%%$'\n'*} said=${said#*$'\n'}
  words=$(<"$work/words")
  case $ssh,$tar in
  *,0) return 0 ;;
  255,3) return 1 ;;
  *,3) give_up 114 "$login cannot give the files of the task: $words" ;;
  esac
  [[ -z $said || $said == *"Unexpected EOF"* ]] ||
    give_up 115 "the files of the task cannot be written to $work: ${said:0:500}"
  return 1
}
tries=0
until fetch; do
  tries=$((tries + 1))
  case $words in
  *"Permission denied"* | *"Host key verification"* | *"HOST IDENTIFICATION"*) rm -rf -- "$work"; exit 117 ;;
  esac
  [ "$tries" -lt 8 ] || { rm -rf -- "$work"; exit 118; }
  find "$work" -mindepth 1 -maxdepth 1 ! -name held -exec rm -rf -- {} +
  pause "$tries"
done
for folder in "${folders[@]}"; do
  cached=$base/cache/${folder//\//-}
  [ -d "$cached" ] || { cp -al -- "$work/$folder" "$work/new" && touch -- "$work/new" && mv -T -- "$work/new" "$cached"; } 2>/dev/null
done
cd "$work/$job" || give_up 115 "the job has no directory in $work"
look() { # what there is that is copied
  find . -mindepth 1 \( -type d -o \( -type f -o -type l \) ! -name .lock ! -name '*.tmp' \) "$@"
}
look -printf '%i %p\0' >"$work/given" # the inode and the name, of all that the login node has
touch -d "@$(($(date +%s) - 1))" "$work/stamp" # what changes from now on has a later ctime, whatever its mtime

# ---- what the task leaves
declare -A sent=()
note() { # what is new in the logs, and the progress
  local LC_ALL=C line size one text= news=()
  while IFS= read -r -d '' line; do
    size=${line%% *} one=${line#* }
    [ "$size" -ge "${sent[$one]:-0}" ] || sent[$one]=0
    [ "$size" -eq "${sent[$one]:-0}" ] || news+=("$line")
  done < <(find . -maxdepth 1 -type f \( -name '*.out' -o -name '*.err' \) ! -name '.*' ! -name $'*\n*' \
    -cnewer "$work/stamp" -printf '%s %f\0')
  [ ! -e progress.json ] || text=$(<progress.json)
  [ "$text" != "${sent[progress.json]:-}" ] || text=
  [ -n "$text${news[*]}" ] || return 0
  {
    printf '%s\n' note "$nonce" "${job#jobs/}" "$token"
    [ -z "$text" ] || printf '%s\n%s' "-1 ${#text} progress.json" "$text"
    for line in "${news[@]}"; do
      size=${line%% *} one=${line#* }
      printf '%s\n' "${sent[$one]:-0} $((size - ${sent[$one]:-0})) $one"
      { # as long as was said, even if it gets shorter now
        tail -c "+$((${sent[$one]:-0} + 1))" -- "$one"
        cat /dev/zero
      } | head -c "$((size - ${sent[$one]:-0}))"
      printf '0 ./%s\0' "$one" >>"$work/given"
    done
  } 2>/dev/null | ask /dev/null | answer || return 1
  for line in "${news[@]}"; do sent[${line#* }]=${line%% *}; done
  [ -z "$text" ] || sent[progress.json]=$text
  declare -p sent >"$work/sent"
}
push() { # everything that is new; 0: it is there, 1: no connection, 2: it is no longer wanted, 3: it cannot be taken
  local LC_ALL=C said one name now=() new=() gone=()
  local -A had=()
  touch -d "@$(($(date +%s) - 1))" "$work/next"
  while IFS= read -r -d '' one && [ -n "$one" ]; do had[${one#* }]=${one%% *}; done <"$work/given"
  while IFS= read -r -d '' one && [ "$one" != all ]; do
    name=${one#* }
    [ "${had[$name]:-}" = "${one%% *}" ] || new+=("$name") # a file in a folder with a new name has no new ctime
    had[$name]=
    now+=("${one#!}")
  done < <(look \( -cnewer "$work/stamp" -printf '!%i %p\0' -o -printf '%i %p\0' \) && printf 'all\0')
  [ -n "$one${now[*]}" ] || return 3
  for name in "${!had[@]}"; do [ -z "${had[$name]}" ] || gone+=("$name"); done
  [ "$one" = all ] || { now+=("${gone[@]/#/0 }"); gone=(); } # what could not be looked at may be there
  said=$({
    printf '%s\n' take "$nonce" "${job#jobs/}" "$token" "$(printf '%s\0' "${gone[@]}" | base64 -w 0)"
    printf '%s\0' "${new[@]}" ./.lock | tar -c --null --no-recursion --ignore-failed-read -T - 2>/dev/null
  } | ask "$work/words" | { answer && head -n 1; }
    [ "${PIPESTATUS[1]}" != 255 ] || echo lost)
  case $said in
  ok) printf '%s\0' "${now[@]}" >"$work/given"; mv -- "$work/next" "$work/stamp" ;;
  other) return 2 ;;
  *lost) return 1 ;;
  *) return 3 ;;
  esac
}

# ---- the task
export XPM_HPC_STAGED=$PWD XPM_HPC_FLUSH=$work/flush XPM_HPC_MARKER_PATIENCE=0
/bin/bash job.sh </dev/null &
task=$!
set -m # a process group of its own, to be ended with the ssh in it
(
  trap '' USR1 USR2
  next=0 wait=2
  while sleep 1; do
    [ ! -e "$work/flush" ] || { push && rm -f -- "$work/flush"; } # the task is about to be started again
    [ "$SECONDS" -ge "$next" ] || continue
    note
    next=$((SECONDS + wait)) wait=$((wait < 30 ? wait + 1 : 30))
  done
) &
noter=$!
set +m
for signal in TERM USR1 USR2 INT HUP; do trap "again=1; kill -$signal $task 2>/dev/null" "$signal"; done
again=1 status=0
while [ -n "$again" ]; do
  again=
  wait "$task"
  code=$?
  [ "$code" = 127 ] && [ "$status" != 0 ] || status=$code
done
trap '' TERM USR1 USR2 INT HUP # what is left of the time is for the results
kill -- "-$noter" 2>/dev/null
wait "$noter" 2>/dev/null
[ ! -s "$work/sent" ] || . "$work/sent"
[ "$status" -le 128 ] || note # there may be little time left: what explains the end goes first
tries=0
until push; do
  code=$?
  [ "$code" = 2 ] && { cd /; rm -rf -- "$work"; exit 75; } # the job was started again elsewhere
  tries=$((tries + 1))
  [ "$tries" -lt $((code == 1 ? 12 : 3)) ] || give_up 119 "the results cannot be copied back to $login, and are kept in $kept: $(<"$work/words")"
  pause "$tries"
done
cd /
rm -rf -- "$work"
[ "$status" -le 128 ] || { trap - TERM USR1 USR2 INT HUP; ulimit -c 0; kill -$((status - 128)) $$; }
exit "$status"
fi
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
