#!/bin/bash
# Builds an environment. One builder at a time: the lock is given up when this process and its children have ended.
cd "$(dirname "$0")" || exit 1
exec 9>>.lock
flock --nonblock --conflict-exit-code 75 9
case $? in
  0) ;;
  75) echo "another process builds this environment; waiting for its end"; flock 9 ;;
  *) echo "no lock could be taken; going on without" >&2 ;;
esac
if [ -e .complete ]; then echo "the environment is there"; exit 0; fi
if [ -n "$1" ]; then exec >"$1" 2>&1; fi

run() {
  printf '+'; printf ' %q' "$@"; echo
  "$@" || { echo "$1 ended with exit status $?" >&2; exit 1; }
}
first() {
  for one in "$@"; do
    if command -v "$one"; then return; fi
  done
}
rm -rf -- env image.sif tools  # of a builder that was killed
here=$PWD
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH
if ! type module >/dev/null 2>&1; then
  for file in "${LMOD_PKG:-/usr/share/lmod/lmod}"/init/bash "${MODULESHOME:-/usr/share/modules}"/init/bash \
    /usr/share/Modules/init/bash /etc/profile.d/*lmod.sh /etc/profile.d/modules.sh; do
    if [ -r "$file" ]; then . "$file"; break; fi
  done
fi
module load python/3.11 || exit 1
cd source || exit 1
run python3 -m venv "$here"/env
run "$here"/env/bin/python -m pip install --disable-pip-version-check --no-input --requirement requirements.txt

# What was built must be able to run tasks.
cd "$here" || exit 1
check='import sys; print("Python %d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 9) and "tasks need Python 3.9 or newer")'
env/bin/python -c "$check" || exit 1
date >.complete.new && mv -- .complete.new .complete
