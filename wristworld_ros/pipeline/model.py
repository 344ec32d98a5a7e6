"""Both stages of a model, on one device."""

from __future__ import annotations

import torch

from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.hand import HandNetwork
from wristworld_ros.models.sweep import SweepNetwork
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder, autoencoder_from_config
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder
from wristworld_ros.pipeline.prior import WristPrior
from wristworld_ros.runtime.process import configure_process


class WristModel:
    """Both stages, ready to run. Streams share it: it holds weights, and nothing that a call changes.

    Args:
        config: `config.json` of its directory.
        stage1: The reconstruction model.
        generator: The wrist video generator.
        device: Where they run, as in 'cuda:0'.
        autoencoder: None for a new one of the generator's configuration, which is right where it has no weights.
        sweep: The plane sweep, or None.
        hand: The hand network, or None.
        prior: The mean wrist image and what is seen beside it, or None.
    """

    tiny_autoencoder: TinyAutoencoder | None = None  # beside the full one, where the directory has a tiny decoder

    def __init__(
        self,
        config: ModelConfig,
        stage1: ReconstructionModel,
        generator: WristGenerator,
        device: str,
        autoencoder: Autoencoder | None = None,
        sweep: SweepNetwork | None = None,
        hand: HandNetwork | None = None,
        prior: WristPrior | None = None,
    ):
        self.config, self.device = config, torch.device(device)
        self.stage1 = stage1.eval().requires_grad_(False).to(self.device)
        self.generator = generator.eval().requires_grad_(False).to(self.device)
        autoencoder = autoencoder or autoencoder_from_config(config.generator.get('autoencoder'))
        self.autoencoder = autoencoder.eval().requires_grad_(False).to(self.device)
        self.sweep = None if sweep is None else sweep.eval().requires_grad_(False).to(self.device)
        self.hand = None if hand is None else hand.eval().requires_grad_(False).to(self.device)
        self.prior = None if prior is None else prior.to(self.device)

    @property
    def networks(self) -> tuple[torch.nn.Module, ...]:
        """Stage 1, generator and autoencoder."""
        return self.stage1, self.generator, self.autoencoder

    @property
    def low_precision(self) -> bool:
        """Whether the big networks are kept in less than float32."""
        return self.generator.transformer.patch_embedding.weight.dtype != torch.float32

    def configure_process(self, threads: int | None = None) -> None:
        """`runtime.process.configure_process` for this model; for programs that stream it, once."""
        configure_process(self.networks, self.device, threads, self.low_precision)

    def use_tiny_decoder(self) -> None:
        """Decode with the tiny decoder from the next stream on, and free the weights of the full one."""
        assert self.tiny_autoencoder is not None
        self.autoencoder = self.tiny_autoencoder
        self.autoencoder.full.drop_decoder()


def tiny_random_model(seed: int = 0, device: str = 'cpu') -> WristModel:
    """A model of the same classes with random weights, as small as possible: for tests of everything but quality."""
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
    with torch.no_grad():  # points spread out in front of the wrist camera, and a decoder whose output has structure
        first.point_head.scratch.output_conv2[-1].weight.normal_(std=0.5)
        first.wrist_head.pose_branch.fc2.bias[2] += 0.25
        second.decoder.last.weight.normal_(std=0.3)
    return WristModel(config, first, second, device)
