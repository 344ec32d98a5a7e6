"""A simulated Franka arm with cameras: recorded episodes, and a live stream of images.

`SimulatorSettings` and a seed come in; episodes of `data.formats.native`, or images by camera name with their true cameras,
go out. The scene may be varied freely, but the model never learns that a recording was simulated: nothing above knows MuJoCo.
"""
