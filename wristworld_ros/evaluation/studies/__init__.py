"""Studies behind numbers in the documentation, each a program: `python -m wristworld_ros.evaluation.studies.<name>`.

They take a folder of held-out episodes and a model and print Markdown tables; nothing else in the package imports them.
"""
