"""The ROS 2 nodes, the only folder that imports rclpy: anchor images, calibrations and parameters come in as messages, wrist
images with pose, calibration, cloud, TF and status go out. Everything else is done by the folders below; the walk is
`ImageInputs.take_image` -> `ModelWorker.submit` -> `VirtualWristNode.deliver` -> `WristPublisher.publish`. Topic names,
stamps, frames and status codes are an interface (docs/ros.md) and change only on purpose.
"""
