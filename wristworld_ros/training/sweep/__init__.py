"""Training of the plane sweep: wrist views from anchors whose cameras are known, well or badly.

Packed episodes come in; `data` gives batches with the errors that calibrations have, `losses` compares with the true wrist
image and depth, and `train` leaves a run's folder.
"""
