"""`wristworld convert`: the published files in, a model directory out.

Files are mapped and copied one tensor at a time, after every name and shape has been checked. Only the target directory is
written, and it appears complete or not at all.
"""
