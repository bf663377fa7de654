"""The laptop: has all the dependencies. Plans, renders job scripts, mirrors files, watches and collects."""
