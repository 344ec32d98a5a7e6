"""Training of a tiny decoder for a model with a video autoencoder.

A model directory and recordings come in; `data` runs clips through the model's own autoencoder, `train` learns its
decoder's output, and `install` measures the result and puts it into the model directory.
Of the model directory, the tiny decoder's weights, its entry in `config.json` and the card's section change, nothing else.
"""
