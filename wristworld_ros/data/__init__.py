"""Recorded data: video files, episodes and live recordings.

Paths come in; arrays with their shapes and units, `AnchorSet`s and whole files go out. Every video of the package is read
and written by `data.video`; a format of data sets is one file in `data/formats`. Add a format there, and nothing elsewhere.
"""
