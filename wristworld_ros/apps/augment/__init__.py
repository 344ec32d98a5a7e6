"""`wristworld augment`: a LeRobot data set in, the same set with a virtual wrist camera out.

Episodes go one by one through the stream in worker processes, and what is finished is kept beside the target, so that a run that
was killed goes on. The set is put together at the end and appears whole or not at all.
"""
