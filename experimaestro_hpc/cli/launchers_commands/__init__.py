"""The commands of ``xpm-hpc launchers``."""
