"""Starting weights, chosen so that a small model trains from scratch."""

from __future__ import annotations

from torch import nn

from wristworld_ros.models.vggt.blocks import CrossAttention
from wristworld_ros.models.vggt.dense_head import DenseHead
from wristworld_ros.models.vggt.pose_heads import ROUNDS, PoseRefinement

STD = 0.02


def initialise(model: nn.Module) -> None:
    """Fill the parameters in place; a model on the meta device is left alone.

    Linear layers and tokens: normal of 0.02 cut at two deviations, biases zero. Convolutions: torch's own. Dense heads
    end in values near zero: depth exp(0) = 1 m, points at the origin, confidence 2. Pose heads end near the identity
    rotation with fields of view of one radian after the last round, so that no quaternion starts at zero and no ReLU
    starts dead. LayerScale keeps what the configuration says.
    """
    if next(model.parameters()).is_meta:
        return
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=STD)
            nn.init.zeros_(module.bias)
        elif isinstance(module, CrossAttention):
            nn.init.trunc_normal_(module.in_proj_weight, std=STD)
    for name, parameter in model.named_parameters():
        if name.rsplit('.', 1)[-1] in _TOKENS:
            nn.init.trunc_normal_(parameter, std=STD)
    for module in model.modules():
        if isinstance(module, DenseHead) and not module.keep_features:
            *_, weight, bias = module.scratch.output_conv2.parameters()
            nn.init.trunc_normal_(weight, std=1e-2)
            nn.init.zeros_(bias)
        elif isinstance(module, PoseRefinement):
            last = module.pose_branch.fc2
            nn.init.trunc_normal_(last.weight, std=2e-3)
            last.bias.data[6:] = 1.0 / ROUNDS  # w of the quaternion, both fields of view


_TOKENS = {
    'camera_token',
    'register_token',
    'cls_token',
    'pos_embed',
    'register_tokens',
    'token_query',
    'query_ref_token',
    'virual_tracks',
}
