"""Wrist videos for recordings: `wristworld generate`."""
