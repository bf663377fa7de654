"""What runs inside a job, in the user's own environment. Shipped to clusters, so standard library only.

Every import here is paid by every job: only what all of them need is loaded.
"""
