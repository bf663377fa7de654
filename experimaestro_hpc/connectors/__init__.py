"""How a login node is reached: a command with its streams, nothing more."""
