"""Loading public checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

from wristworld_ros.models.vggt.init import initialise
from wristworld_ros.models.vggt.model import ReconstructionModel
from wristworld_ros.models.vggt.pose_heads import WristHead

log = logging.getLogger(__name__)

WRIST_PREFIX = 'wrist_head.'


def load_public_weights(model: ReconstructionModel, weights: Mapping[str, Tensor]) -> str:
    """Load a public checkpoint, with or without a wrist head, and say in one sentence what came of it.

    The public VGGT file (1797 names) has no ``wrist_head.*``: the wrist head stays as it was, and the returned sentence
    says so (it is logged too). Weights of heads that the model was built without are left out and counted.
    A model built on the meta device takes the tensors as they are, without a copy, and gets a fresh wrist head if need be.
    Raises ValueError in one sentence, before anything is changed, for a missing or unknown name or a wrong shape (the
    key, the shape found, the shape wanted).
    """
    own = model.state_dict()
    built = {name.split('.', 1)[0] for name in own}
    known = {'aggregator', 'camera_head', 'wrist_head', 'depth_head', 'point_head', 'track_head'}
    left_out = [name for name in weights if name.split('.', 1)[0] in known - built]
    offered = {name: value for name, value in weights.items() if name.split('.', 1)[0] not in known - built}
    without_wrist = 'wrist_head' in built and not any(name.startswith(WRIST_PREFIX) for name in offered)
    wanted = {name for name in own if not (without_wrist and name.startswith(WRIST_PREFIX))}
    if unknown := sorted(set(offered) - wanted):
        raise ValueError(f'The weights hold {_some(unknown)}, which this model does not have; is it the right config?')
    if missing := sorted(wanted - set(offered)):
        raise ValueError(f'The weights lack {_some(missing)}, which this model needs; is it the right config?')
    for name in sorted(wanted):
        if offered[name].shape != own[name].shape:
            raise ValueError(
                f'{name} has shape {list(offered[name].shape)} in the weights; this model wants {list(own[name].shape)}.'
            )
    on_meta = any(value.is_meta for value in own.values())
    if on_meta and without_wrist:
        model.wrist_head = WristHead(model.config).to(next(iter(offered.values())).device)
        initialise(model.wrist_head)
    model.load_state_dict(offered, strict=False, assign=on_meta)
    sentence = f'Loaded {len(offered)} tensors'
    if left_out:
        sentence += f', left out {len(left_out)} of heads that this model does not have'
    if without_wrist:
        sentence += '; the weights have no wrist_head.*, so the wrist head stays as it was'
    sentence += '.'
    (log.warning if without_wrist else log.info)(sentence)
    return sentence


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f'{names[0]} and {len(names) - 1} more'
