"""Training of causal few-step students (`wristworld train teacher`, `wristworld train causal`).

A model directory and the condition maps of its own stage 1 come in; `teacher` trains its generator as a windowed flow model,
`forcing` makes it causal, `distill` makes it a student of few steps by its own roll-outs, and `train` leaves a model directory.
Everything is computed on the device it is told; nothing else in the process changes.
"""
