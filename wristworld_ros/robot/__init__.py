"""What the robot knows: its shape, where its cameras are, what they measured.

In come a robot description, joint angles, depth images, calibration images and predicted geometry; out go points on the
robot's surface, calibrated cameras, completed depth and remembered scenes. Arrays in, arrays out; no ROS and no networks of
the package's own.
"""
