"""Training of stage 2: the wrist video generator.

Episodes and a finished stage 1 come in; `conditions` renders condition maps of its geometry once, `data` cuts them into
clips, and `train` leaves a run's folder.
Everything is computed on the device it is told; nothing else in the process changes.
"""
