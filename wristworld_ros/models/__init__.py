"""The two networks and how their weights are loaded: tensors in, tensors out.

`vggt` is stage 1, `wan` is stage 2, `state_dict` the one strict loader and `config` what a model directory says of
itself. Nothing here knows of threads, streams or ROS; parameter names are those of the public checkpoints and must stay
so.
"""
