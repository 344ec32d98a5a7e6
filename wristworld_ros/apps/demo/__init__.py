"""The demonstration: cameras, the node and a recorder over ROS 2 topics, then a report of what they did."""
