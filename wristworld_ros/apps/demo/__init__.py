"""The demonstration: cameras, the node and a recorder over ROS 2 topics, then a report of what they did.

In come settings and, optionally, videos; out comes a folder with a recording, logs and a self-contained HTML page. `run` starts
and stops the processes, `replay` tells the model less of a recorded desk, and neither that nor `report` knows of ROS.
"""
