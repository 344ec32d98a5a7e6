"""How good generated wrist images and poses are: metrics, baselines, and one table of both on the same frames.

Recorded episodes and a model (or its name) come in; measures of every row on the same frames go out, as an
`EvaluationTable` and as text, Markdown, CSV and JSON.
It may use `pipeline` and everything below; models are only run here, never changed, and nothing imports ROS.
"""
