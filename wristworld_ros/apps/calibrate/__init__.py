"""The calibration of cameras: with a board, or by the arm that a depth camera sees.

In comes a folder of images and arm poses; out go a calibration file for the node, a launch file and a self-contained page that
shows how well it fits. No ROS.
"""
