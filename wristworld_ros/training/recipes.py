"""Every kind of configuration there is, by stage and recipe."""

from __future__ import annotations

from wristworld_ros.training.config import DecoderConfig, GenerationConfig, ImagesConfig
from wristworld_ros.training.config_causal import CausalConfig, CausalImagesConfig
from wristworld_ros.training.config_stage1 import GeometryConfig, ReconstructionConfig

Config = (
    ReconstructionConfig
    | GeometryConfig
    | GenerationConfig
    | ImagesConfig
    | CausalConfig
    | CausalImagesConfig
    | DecoderConfig
)
# stage -> recipe -> record; `recipe` is a key of the file.
RECIPES: dict[str, dict[str, type]] = {
    'reconstruction': {'published': ReconstructionConfig, 'from_scratch': GeometryConfig},
    'generation': {'published': GenerationConfig, 'images': ImagesConfig},
    'causal': {'published': CausalConfig, 'images': CausalImagesConfig},
    'decoder': {'tiny': DecoderConfig},
}
