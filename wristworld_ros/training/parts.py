"""Finished runs of the parts that reconstruct: what condition maps are made from, and what a model directory is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from wristworld_ros.errors import UserError
from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.input_files import convert, json_text, read_json
from wristworld_ros.models.config import HAND, PRIOR, STAGE1, SWEEP, ModelConfig
from wristworld_ros.models.hand import HandConfig, HandNetwork
from wristworld_ros.models.sweep import SweepConfig, SweepNetwork
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_directory import load_close_up, load_prior, load_stage1
from wristworld_ros.runtime.files import file_sha256
from wristworld_ros.training.checkpoint import read_weights, weights_file
from wristworld_ros.training.stage1.train import finished_stage1

ANCHOR_WIDTH = 128
WRIST_HW = (128, 128)
CLOUD = CloudSettings(upsample=3, edge=0.06, radius=1, near=0.10)


@dataclass(frozen=True)
class TrainedParts:
    """Folders of finished runs: of stage 1, and of the plane sweep and the hand network where there are such; and the sizes, pixels, of
    the images that the model takes and gives."""

    stage1: Path
    sweep: Path | None = None
    hand: Path | None = None
    anchor_width: int = ANCHOR_WIDTH
    wrist_hw: tuple[int, int] = WRIST_HW

    @property
    def key(self) -> str:
        """Changes with any of the weights and configurations."""
        folders = [folder for folder in (self.stage1, self.sweep, self.hand) if folder is not None]
        return ''.join(
            file_sha256(path) for folder in folders for path in (weights_file(folder), folder / 'config.json')
        )

    def model(self, name: str, generator: WristGenerator, config: dict[str, Any], **others: Any) -> WristModel:
        """All parts together, on the CPU.

        Args:
            name: Of the model.
            generator: Stage 2.
            config: Its configuration.
            others: Further values of `ModelConfig`.

        Raises:
            UserError: A run is not finished, or damaged.
        """
        stage1_config, stage1 = finished_stage1(self.stage1)
        sweep_config, sweep = _finished(self.sweep, 'sweep', SweepConfig, SweepNetwork)
        hand_config, hand = _finished(self.hand, 'hand', HandConfig, HandNetwork)
        model_config = ModelConfig(
            name=name, stage1=stage1_config, generator=config, anchor_width=self.anchor_width, wrist_hw=self.wrist_hw, cloud=CLOUD,
            sweep=sweep_config, hand=hand_config, **others,
        )  # fmt: skip
        return WristModel(model_config, stage1, generator, 'cpu', sweep=sweep, hand=hand)


@dataclass(frozen=True)
class PackagedParts:
    """The parts of a finished model: what its directory reconstructs with."""

    folder: Path

    @property
    def key(self) -> str:
        """Changes with any of the weights and with how condition maps are made."""
        config = ModelConfig.read(self.folder / 'config.json')
        files = [self.folder / name for name in (STAGE1, SWEEP, HAND, PRIOR)]
        geometry = (
            config.stage1,
            config.sweep,
            config.hand,
            config.anchor_width,
            config.wrist_hw,
            asdict(config.cloud),
            *([config.prior] if config.prior else []),
        )
        return ''.join(file_sha256(path) for path in files if path.exists()) + json_text(geometry)

    def model(self, name: str, generator: WristGenerator, config: dict[str, Any]) -> WristModel:
        """All parts with another generator, on the CPU; errors as in `pipeline.load_model`."""
        own, stage1 = load_stage1(str(self.folder))
        sweep, hand = load_close_up(self.folder, own)
        return WristModel(
            replace(own, name=name, generator=config), stage1, generator, 'cpu', sweep=sweep, hand=hand,
            prior=load_prior(self.folder, own),
        )  # fmt: skip


def _finished(folder: Path | None, what: str, kind: type, network: type) -> tuple[dict[str, Any], nn.Module | None]:
    """Configuration and network of a finished run; nothing without a folder."""
    if folder is None:
        return {}, None
    fix = f'give the folder of a finished `wristworld train {what}`'
    if not weights_file(folder).exists():
        raise UserError(f'{folder} has no {weights_file(folder).name}', fix)
    config = read_json(folder / 'config.json', dict[str, Any], fix)
    module = network(convert(config, kind, str(folder / 'config.json'), fix)).eval()
    read_weights(module, folder)
    return config, module
