"""The subcommands of `wristworld`: arguments in, files, printed text and an exit status out.

Each is a module with `add_arguments(parser)` and `run(args)`, called by `cli.py`; only `run` may import torch. They may use
everything below them, and no other folder imports them.
"""
