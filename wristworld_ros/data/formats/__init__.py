"""Formats of data sets, one file each.

A directory comes in and an `Episode` goes out, or the reverse. `native` is the package's own format; a new format reads
into the same `Episode`, so that nothing else has to know it.
"""
