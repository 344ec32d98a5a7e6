"""Training of stage 1: geometry and the wrist camera's pose.

Packed episodes come in (`data`), their true geometry is what `losses` compares with, and `train` leaves a run's folder.
Everything is computed on the device it is told; nothing else in the process changes.
"""
