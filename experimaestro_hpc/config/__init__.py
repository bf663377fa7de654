"""What a task is: types, objects, identifier, serialisation. Shipped to clusters, so standard library only.

``objects`` is imported by every job and keeps its own imports to almost nothing; ``types``, ``identifier`` and
``serialize`` work on the laptop, ``load`` inside a job.
"""
