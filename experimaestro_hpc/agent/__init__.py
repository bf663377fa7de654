"""What runs on the login node: files, submissions and states of one workspace. Shipped, so standard library only.

The driver starts one agent for each connection and talks to it in frames (:mod:`.frames`, :mod:`.main`); with a
local connector it calls the same :class:`~.service.Service` in its own process.
"""
