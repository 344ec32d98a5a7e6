"""Recorded data: video files, episodes and live recordings.

Paths come in; arrays with their shapes and units, `AnchorSet`s and whole files go out. `sets.open_data_set` opens recordings of any
format as `episode.DataSet` and `episode.Episode`, and nothing behind it tells formats apart. Every video of the package is read and
written by `data.video`, frames in any order by `data.video_access`. A format is a module or folder in `data/formats`: add it there and
in `sets`, and nowhere else.
"""
