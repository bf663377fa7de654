#!/bin/sh
# Make a chroot with Debian sid's Slurm and a pyslurm that is built for it, in the empty directory $1.
#
# Run by chroot.py, as root and in a mount namespace of its own: what is mounted here goes with the process. The
# chroot is kept under a name made from this file's content, so a change of a line here makes a new one.
set -eu
root=$1
pyslurm=25.11.2 # what there is for the series before; its version is made Slurm's own below

debootstrap --variant=minbase sid "$root"

printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no package starts a daemon
chmod 755 "$root/usr/sbin/policy-rc.d"
echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/99newer-slurm" # a mirror may be behind
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"

inside() {
    chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
}

inside apt-get -q update
inside apt-get -q install --yes --no-install-recommends \
    slurmctld slurmd slurmdbd slurm-client munge mariadb-server mariadb-client iproute2 procps \
    libslurm-dev gcc cython3 python3-dev python3-pip python3-setuptools python3-wheel ca-certificates \
    python3-pytest python3-click python3-filelock python3-jinja2 python3-tabulate python3-tqdm
inside apt-get -q clean

# A site may have a certificate authority of its own.
bundle=/etc/ssl/certs/ca-certificates.crt
if [ -e "$bundle" ]; then
    mount --bind "$bundle" "$root$bundle"
fi
cat >"$root/root/pyslurm.sh" <<'INSIDE'
set -eu
export PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_BUILD_ISOLATION=1 PIP_DISABLE_PIP_VERSION_CHECK=1
cd /root
python3 -m pip download --quiet --no-deps --no-binary pyslurm "pyslurm==$1"
tar xzf "pyslurm-$1.tar.gz"
cd "pyslurm-$1"
# "0x1a0505" is 26.5.5. setup.py takes no other Slurm than its own version's series.
number=$(sed -n 's/^#define SLURM_VERSION_NUMBER *//p' /usr/include/slurm/slurm_version.h)
version="$((number >> 16)).$((number >> 8 & 255)).$((number & 255))"
sed -i "s/^__version__ = .*/__version__ = \"$version\"/" pyslurm/version.py
printf '[build_ext]\nparallel = 2\n' >>setup.cfg
export SLURM_INCLUDE_DIR=/usr/include SLURM_LIB_DIR="/usr/lib/$(gcc -print-multiarch)" PYSLURM_BUILD_JOBS=2
# Names that 26.05 has changed; none of them is met by what the tests call.
export CFLAGS="-O0 -g0 -w -DSLURM_BACKWARD_COMPAT -Dslurm_free_ctl_conf=slurm_free_conf \
-DESLURM_ERROR_ON_DESC_TO_RECORD_COPY=SLURM_ERROR"
python3 -m pip install --no-deps .
rm -rf /root/pyslurm* /root/.cache
INSIDE
inside sh /root/pyslurm.sh "$pyslurm"

inside useradd --create-home --shell=/bin/bash alice
inside mkdir -p /repository
