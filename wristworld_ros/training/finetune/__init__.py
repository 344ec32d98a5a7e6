"""Fine-tuning on a desk: a model directory and recordings with a wrist camera come in, an adapted model directory goes out.

`recordings` chooses and splits episodes, `conditions` and `adapt` train on some of them, `evaluation` compares before and after on
others, `card` writes the directory; `run` is the walk through all of it. Everything lies in one folder, and each part continues
where it was stopped.
"""
