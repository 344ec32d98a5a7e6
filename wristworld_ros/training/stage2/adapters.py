"""Low-rank adapters (LoRA, arXiv 2106.09685) on the generator's transformer, by peft."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

from torch import Tensor

from wristworld_ros.errors import require_package
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.training.config import GenerationModel

# Wan's name of a layer -> its name in diffusers' block.
_LAYERS = {
    'q': r'attn[12]\.to_q', 'k': r'attn[12]\.to_k', 'v': r'attn[12]\.to_v', 'o': r'attn[12]\.to_out\.0', 'ffn.0': r'ffn\.net\.0\.proj',
    'ffn.2': r'ffn\.net\.2',
}  # fmt: skip
_ALSO = {
    'patch_embedding': ('transformer.patch_embedding.',), 'anchors': ('ext_proj.', 'temporal_embed.', 'view_embed.', 'text_context'),
    'head': ('transformer.proj_out.', 'transformer.scale_shift_table'),
}  # fmt: skip
_BASE, _DOWN, _UP = '.base_layer.', '.lora_A.default.weight', '.lora_B.default.weight'


def adapt(generator: WristGenerator, model: GenerationModel) -> None:
    """Choose what is trained, in place: adapters and some layers beside them, or everything but the anchor encoder.

    Raises:
        MissingPackageError: peft is not installed.
    """
    if model.adapt == 'full':
        generator.requires_grad_(True)
    else:
        require_package('peft', 'train', 'Training adapters (model.adapt is lora)')
        from peft import LoraConfig, inject_adapter_in_model

        generator.requires_grad_(False)
        layers = '|'.join(_LAYERS[name] for name in model.targets)
        config = LoraConfig(r=model.rank, lora_alpha=model.alpha, target_modules=rf'blocks\.\d+\.({layers})')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            inject_adapter_in_model(config, generator.transformer)
        prefixes = tuple(prefix for name in model.also for prefix in _ALSO[name])
        for name, parameter in generator.named_parameters():
            if name.startswith(prefixes):
                parameter.requires_grad_(True)
    if generator.anchor_encoder is not None:
        generator.anchor_encoder.requires_grad_(False)


def adapter_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters alone, out of a generator's tensors."""
    return {name: tensor for name, tensor in state.items() if '.lora_' in name}


def merged(state: Mapping[str, Tensor], model: GenerationModel) -> dict[str, Tensor]:
    """A generator's tensors with the adapters added to the weights that they adapt, under the names without adapters.

    Args:
        state: Of a generator after `adapt`.
        model: How it was adapted.
    """
    result = {}
    for name, tensor in state.items():
        if '.lora_' in name:
            continue
        plain = name.replace(_BASE, '.')
        prefix = re.sub(r'\.base_layer\.weight$', '', name)
        if prefix + _DOWN in state:
            change = state[prefix + _UP].float() @ state[prefix + _DOWN].float()
            tensor = (tensor.float() + model.alpha / model.rank * change).to(tensor.dtype)
        result[plain] = tensor
    return result
