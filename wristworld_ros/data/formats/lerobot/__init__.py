"""LeRobot data sets, v3.0 and v2.1: `LeRobotSet` reads them, `write_lerobot` writes them, `add_camera` gives one a camera more,
`problems` says what is wrong in one.

`layout` knows the files and their names, `tables` the Parquet files, `columns` which of them are the robot's numbers, `stats` the
statistics that the format wants, `depth` how depth becomes 12 bits. Both versions become one row per episode; nothing behind
`layout` tells them apart but what writes.
"""
