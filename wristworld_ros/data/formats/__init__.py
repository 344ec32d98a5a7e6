"""Formats of data sets, a module or a folder each.

A path comes in and a `DataSet` of `Episode`s goes out, or the reverse. `native` is the package's own format; `data.sets` finds the
format of a path, so that nothing else has to know one.
"""
