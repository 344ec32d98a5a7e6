"""`wristworld doctor`: what on this machine stands between the cameras and a wrist view, and what to do about it."""
