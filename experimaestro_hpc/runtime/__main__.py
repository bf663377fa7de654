"""``python -m experimaestro_hpc.runtime JOBDIR``: run one task.

Job scripts start ``run_task.py`` instead, see ``driver.ship``.
"""

import sys

from .run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
