"""`wristworld doctor`: what on this machine keeps the cameras from giving a wrist view, and what to do about it.

In come the settings that a node would run with; out comes one finding per thing checked, and an exit status. Nothing is
changed and no weight is loaded; a missing torch or ROS is a finding, not a failure.
"""
