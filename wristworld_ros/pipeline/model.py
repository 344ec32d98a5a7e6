"""Both stages of a model, and the steps of the stream that run on them."""

from __future__ import annotations

from dataclasses import replace

import torch

from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder, autoencoder_from_config
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder
from wristworld_ros.pipeline.generate import ChunkStream
from wristworld_ros.pipeline.reconstruct import ReconstructionStep
from wristworld_ros.pipeline.reconstructor import Reconstructor
from wristworld_ros.settings import StreamSettings

SMALL = 50_000_000  # parameters


class WristModel:
    """Both stages, ready to run on one device. autoencoder: None for a new one of the generator's configuration, which
    is right where it has no weights."""

    tiny_autoencoder: TinyAutoencoder | None = None  # beside the full one, where the directory has a light decoder

    def __init__(
        self, config: ModelConfig, stage1: ReconstructionModel, generator: WristGenerator, device: str,
        autoencoder: Autoencoder | None = None,
    ):  # fmt: skip
        self.config, self.device = config, torch.device(device)
        self.stage1 = stage1.eval().requires_grad_(False).to(self.device)
        self.generator = generator.eval().requires_grad_(False).to(self.device)
        autoencoder = autoencoder or autoencoder_from_config(config.generator['autoencoder'])
        self.autoencoder = autoencoder.eval().requires_grad_(False).to(self.device)

    @property
    def small(self) -> bool:
        """Whether a second CPU thread would cost more than it gives: every operation then waits for it longer than it
        works."""
        networks = (self.stage1, self.generator)
        return sum(p.numel() for network in networks for p in network.parameters()) < SMALL

    def use_tiny_decoder(self) -> None:
        """Decode with the light decoder from the next stream on, and give up the weights of the full one."""
        assert self.tiny_autoencoder is not None
        self.autoencoder = self.tiny_autoencoder
        self.autoencoder.full.drop_decoder()

    @property
    def half(self) -> bool:
        """Whether the big networks are held in half precision."""
        return self.generator.transformer.patch_embedding.weight.dtype != torch.float32

    def reconstructor(self) -> Reconstructor:
        """Stage 1 alone as a step."""
        return Reconstructor(self.stage1, self.config.anchor_width, self.config.wrist_hw)

    def reconstruction_step(self, near: float | None = None, wrist_fov: float = 0.0, graphs: bool = False) -> ReconstructionStep:
        """Stage 1 and the condition map as one step; near: metres, None for the model's own; others as in `ReconstructionStep`."""
        cloud = self.config.cloud if near is None else replace(self.config.cloud, near=near)
        return ReconstructionStep(self.reconstructor(), cloud, wrist_fov, graphs)

    def stream(self, settings: StreamSettings) -> ChunkStream:
        """A new wrist video of this model."""
        return ChunkStream(self.generator, self.autoencoder, self.config, settings)


def tiny_random_model(seed: int = 0, device: str = 'cpu') -> WristModel:
    """A model of the same classes with random weights, as small as they get: for tests of everything but quality."""
    torch.manual_seed(seed)
    stage1 = {
        'img_size': 56, 'embed_dim': 16, 'depth': 4, 'num_heads': 2, 'patch_embed_depth': 1, 'patch_embed_heads': 2,
        'camera_trunk_depth': 1, 'camera_heads': 2, 'dpt_features': 8, 'dpt_out_channels': [8, 8, 8, 8],
        'heads': ['camera', 'wrist', 'points'],
    }  # fmt: skip
    generator = {
        'dim': 16, 'ffn_dim': 32, 'text_dim': 16, 'freq_dim': 16, 'num_heads': 2, 'num_layers': 1, 'clip_dim': 16,
        'clip_hidden': 16, 'max_frames': 16, 'max_views': 4, 'context_length': 66, 'sampling_steps': 1,
        'cfg_scale': 1.0, 'shift': 1.0, 'in_channels': 192 + 320, 'out_channels': 8, 'patch_size': [1, 2, 2],
        'latent_channels': 192, 'prediction': 'sample', 'text': 'learned',
        'decoder': {'factor': 8, 'widths': [8, 8, 8], 'noise_channels': 16},
        'anchor_encoder': {'image_size': 32, 'dim': 16, 'num_heads': 2, 'num_layers': 2, 'patch_size': 16},
        'autoencoder': {'kind': 'pixel_unshuffle', 'factor': 8},
    }  # fmt: skip
    config = ModelConfig(
        name='tiny_random', stage1=stage1, generator=generator, anchor_width=56, wrist_hw=(32, 32),
        cloud=CloudSettings(upsample=1, edge=0.0, radius=2, near=0.01),
    )  # fmt: skip
    first, second = ReconstructionModel.from_config(stage1), WristGenerator.from_config(generator)
    with torch.no_grad():  # points spread out in front of the wrist camera, and a decoder that draws
        first.point_head.scratch.output_conv2[-1].weight.normal_(std=0.5)
        first.wrist_head.pose_branch.fc2.bias[2] += 0.25
        second.decoder.last.weight.normal_(std=0.3)
    return WristModel(config, first, second, device)
