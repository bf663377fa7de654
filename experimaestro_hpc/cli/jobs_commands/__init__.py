"""The commands of ``xpm-hpc jobs``, loaded when they are used."""
