"""The constant prompts' embeddings: the text encoder runs here, once, and never on the robot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tqdm import tqdm

from wristworld_ros.models.wan.checkpoints import text_encoder_from_release
from wristworld_ros.pipeline import ModelError

TOKENIZER_FILES = ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'spiece.model')


def tokenize(prompts: Sequence[str], folder: Path, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 [B, L], of prompts by a tokenizer's own files, read offline; white space is collapsed.

    length: tokens a prompt is cut to. Raises ModelError, one sentence, when the folder holds no tokenizer.
    """
    if not any((folder / name).is_file() for name in ('tokenizer.json', 'spiece.model')):
        raise ModelError(
            f'{folder} holds no tokenizer (tokenizer.json is missing); give the folder google/umt5-xxl of the release of '
            'Wan2.1 with --tokenizer.'
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the library answers bad files with whatever it stumbles over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip('.')
        raise ModelError(f'{folder} cannot be read as a tokenizer ({reason}); download it again.') from None
    made = tokenizer(
        [' '.join(prompt.split()) for prompt in prompts], padding=True, truncation=True, max_length=length,
        add_special_tokens=True, return_tensors='pt',
    )  # fmt: skip
    return made['input_ids'], made['attention_mask']


def prompt_embeddings(
    prompts: Sequence[str],
    tokenizer: Path,
    weights: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    length: int,
    source: str,
    progress: bool = True,
) -> list[torch.Tensor]:
    """Embeddings of prompts, each [length, dim] in the encoder's dtype, zero after the prompt's end.

    tokenizer: folder of its files. weights, config: of ``text_encoder_from_release``; the weights are used as they lie,
    mapped from their file or not. source: what to call them in an error. Raises ModelError, one sentence.
    """
    text = text_encoder_from_release(weights, config, source)
    ids, mask = tokenize(prompts, tokenizer, length)
    if int(ids.max()) >= config['vocab']:
        raise ModelError(
            f'{tokenizer} makes token {int(ids.max())}, but {source} has {config["vocab"]} (token_embedding.weight); '
            'give the tokenizer of this text encoder.'
        )
    with tqdm(total=config['num_layers'], desc='text encoder', unit='layer', disable=not progress) as bar:
        for block in text.encoder.encoder.block:
            block.register_forward_hook(lambda *_: bar.update() and None)
        embeddings = text.context(ids, mask)
    return [F.pad(e, (0, 0, 0, length - e.shape[0])) for e in embeddings]
