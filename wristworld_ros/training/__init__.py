"""Training of both stages and of a model's tiny decoder.

Recorded episodes (or videos) come in; a run's folder goes out: checkpoints, `log.jsonl`, `model.safetensors` with the averaged
weights, and from two finished runs a model directory.
It may use `evaluation`, `pipeline` and everything below; only `parallel.run_parallel`, where a training process starts,
sets what holds for the whole process.
"""
