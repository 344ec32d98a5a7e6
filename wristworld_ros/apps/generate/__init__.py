"""`wristworld generate`: an episode or anchor videos in, a wrist video and its camera's poses out.

The whole recording is known, so it is sampled in overlapping windows (`pipeline.offline`) instead of chunk by chunk. Two
files are written, each complete or not at all.
"""
