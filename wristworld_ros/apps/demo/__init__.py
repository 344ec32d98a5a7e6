"""The demonstration: cameras, the node and a recorder over ROS 2 topics, then a report of what they did.

In come settings and, optionally, videos; out comes a folder with a recording, logs and a self-contained HTML page. `report`
and what it uses read a recording only and know nothing of ROS; `run` starts and stops the processes.
"""
