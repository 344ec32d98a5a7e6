"""`wristworld bench`: rate, latency and memory on this machine, next to a roofline and to the published pipeline.

In come a model (or a name of one with random weights) and sizes; out come tables as text, markdown and JSON. `roofline` and
`inputs` are the means, `parts`, `streams`, `published_pipeline` and `reference_renderer` what is measured, `cases` and
`report` what becomes of it.
"""
