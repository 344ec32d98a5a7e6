"""Relative depth from any depth-estimation model of transformers, e.g. Depth Anything V2 Small, from a folder on this machine.

Such a model needs no weights of this package, and `depth_fit` makes metres of what it says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from wristworld_ros.errors import UserError

_FIX = (
    'give the folder of a depth-estimation model of transformers, with config.json, preprocessor_config.json and '
    '*.safetensors'
)


class DepthModel:
    """A network for one image's depth up to scale and shift, of depth or of its inverse.

    Args:
        model: What `AutoModelForDepthEstimation` gives, on its device.
        processor: Its image processor: uint8 images to pixel values.
    """

    def __init__(self, model: torch.nn.Module, processor: Any):
        self._model, self._processor = model.eval(), processor

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = 'cpu') -> DepthModel:
        """The model of a folder; nothing is downloaded, no code of the folder runs, and weights are read from safetensors only.

        Raises:
            UserError: The folder or one of its files is missing or broken, or holds another kind of model.
        """
        folder = Path(path).expanduser()
        _check_files(folder)
        from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation

        local = {'local_files_only': True, 'trust_remote_code': False}
        try:
            config = AutoConfig.from_pretrained(folder, **local)
            if type(config) not in AutoModelForDepthEstimation._model_mapping:
                raise UserError(f'{folder} holds a model of type {config.model_type}, which estimates no depth', _FIX)
            processor = AutoImageProcessor.from_pretrained(folder, **local)
            model, report = AutoModelForDepthEstimation.from_pretrained(
                folder, config=config, use_safetensors=True, output_loading_info=True, **local
            )
        except UserError:
            raise
        except Exception as e:  # transformers, safetensors and json each raise kinds of their own for broken files
            raise UserError(f'The depth model in {folder} cannot be loaded ({_first_line(e)})', _FIX) from e
        if missing := sorted(report['missing_keys']):
            what = f'The weights in {folder} lack {len(missing)} tensors of its config.json, {missing[0]} among them'
            raise UserError(what, _FIX)
        return cls(model.float().to(device), processor)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Relative depth (or relative inverse depth, as the model was trained) of images.

        Args:
            images: uint8 [V, H, W, 3], RGB.

        Returns:
            float32 [V, H, W], without unit.

        Raises:
            ValueError: The images have another dtype or shape.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f'images is {images.dtype} {list(images.shape)}; it must be uint8 [V, H, W, 3].')
        inputs = self._processor(images=list(images), return_tensors='pt', input_data_format='channels_last')
        device = next(self._model.parameters()).device
        outputs = self._model(pixel_values=inputs['pixel_values'].to(device))
        return self._at_image_size(outputs, (images.shape[1], images.shape[2])).cpu().numpy()

    def _at_image_size(self, outputs: Any, hw: tuple[int, int]) -> torch.Tensor:
        """By the processor's own way, which knows of padding, where it has one."""
        undo = getattr(self._processor, 'post_process_depth_estimation', None)
        if undo is not None:
            found = undo(outputs, target_sizes=[hw] * len(outputs.predicted_depth))
            return torch.stack([one['predicted_depth'] for one in found]).float()
        depth = outputs.predicted_depth.float()[:, None]
        return F.interpolate(depth, size=hw, mode='bilinear', align_corners=False)[:, 0]


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f'There is no folder {folder} for the depth model', _FIX)
    for name in ('config.json', 'preprocessor_config.json'):
        if not (folder / name).is_file():
            raise UserError(f'{folder} has no {name}', _FIX)
    if not any(folder.glob('*.safetensors')):
        raise UserError(f'{folder} has no weights in safetensors', _FIX)


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0].rstrip('.')
