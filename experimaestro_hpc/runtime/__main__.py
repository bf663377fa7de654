"""``python -m experimaestro_hpc.runtime JOBDIR``: run one task."""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.exit(
            "xpm-hpc: tasks need Python 3.9 or newer, and %s is %d.%d;"
            " set [environment] python in the launcher file" % ((sys.executable,) + sys.version_info[:2])
        )
    from experimaestro_hpc.runtime.run import main

    sys.exit(main(sys.argv))
