"""A workspace on the laptop: experiments and jobs as they were last seen. Reads and writes files, asks nobody."""
