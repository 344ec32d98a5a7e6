"""`wristworld augment`: recordings in (LeRobot, ROS 2 bags, folders of videos), the same with a virtual wrist camera out.

A format is an `AugmentSource`: what an episode of it depends on, and how the set gets the camera.

Episodes go one by one through the stream in worker processes, and what is finished is kept beside the target, so that a run that
was killed goes on. The set is put together at the end and appears whole or not at all.
"""
