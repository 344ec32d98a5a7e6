"""A model directory: which files it has, and what its ``config.json`` says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wristworld_ros.errors import UserError
from wristworld_ros.geometry.cloud import CloudSettings

FORMAT = 1
STAGE1, GENERATOR, AUTOENCODER = 'stage1.safetensors', 'generator.safetensors', 'autoencoder.safetensors'
TINY_DECODER = 'tiny_decoder.safetensors'
# Model directories that ship with the package.
PRETRAINED = Path(__file__).parents[1] / 'pretrained'


class ModelError(UserError):
    """A model that cannot be found, read or run; the message names the file and says what to do."""


@dataclass(frozen=True)
class ModelConfig:
    """``config.json`` of a model directory.

    Attributes:
        name: What the model is called.
        stage1: Configuration of stage 1 (`vggt.ReconstructionConfig`); empty where the directory has none.
        generator: Configuration of stage 2 (`wan.GeneratorConfig`); empty where the directory has none.
        anchor_width: Width that stage 1 runs at, pixels.
        wrist_hw: Height and width of the wrist image, pixels.
        cloud: How points become condition maps.
        noise_share: Share of the sampling noise's variance that all frames have in common, 0 to 1.
        precision: What the big networks were trained to compute in: 'float32' or 'bfloat16'.
        min_agreement: Least agreement of the anchors at which a frame is valid, 0 to 1, chosen on validation data; None
            where that has not been done.
        use_condition: False for a model trained without condition maps (an ablation of the paper).
        use_anchor_tokens: False for a model trained without anchor tokens (an ablation of the paper).
        licence: SPDX identifier or a short statement.
        untrained: Parts that must be trained before the model can run; empty for a model that is ready.
        tiny_decoder: Width and blocks of the tiny decoder; empty where there is none.
    """

    name: str
    stage1: dict
    generator: dict
    anchor_width: int
    wrist_hw: tuple[int, int]
    cloud: CloudSettings
    noise_share: float = 0.5
    precision: str = 'float32'
    min_agreement: float | None = None
    use_condition: bool = True
    use_anchor_tokens: bool = True
    licence: str = 'Apache-2.0'
    untrained: tuple[str, ...] = ()
    tiny_decoder: dict = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """Read a ``config.json``.

        Raises:
            ModelError: The file is missing, unreadable, not JSON, of another format, or lacks or has an unknown key.
        """
        raw = _read_json(path)
        if raw.pop('format', None) != FORMAT:
            raise ModelError(
                f'{path} is not of format {FORMAT}, the only one that this version of wristworld_ros reads',
                f'convert the model with this version, or restore "format": {FORMAT}',
            )
        try:
            cloud = CloudSettings(**raw.pop('cloud'))
            sequences = {'wrist_hw': tuple(raw['wrist_hw']), 'untrained': tuple(raw.get('untrained', ()))}
            return cls(**{**raw, **sequences}, cloud=cloud)
        except UserError as e:
            raise ModelError(f'{path}: {e.what}', e.fix) from None
        except (KeyError, TypeError) as e:
            raise ModelError(
                f'{path} lacks a key or has an unknown one ({e})', 'restore it from where the model came'
            ) from None

    def write(self, path: Path) -> None:
        """Write a ``config.json``; ModelError where that is not possible."""
        try:
            path.write_text(json.dumps({'format': FORMAT} | asdict(self), indent=2) + '\n')
        except OSError as e:
            raise ModelError(f'{path} cannot be written ({e.strerror})', 'make its directory writable') from None


def _read_json(path: Path) -> dict:
    restore = 'restore it from where the model came'
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(
            f'{path} is missing', 'give a model directory, which has config.json and its weights'
        ) from None
    except OSError as e:
        raise ModelError(f'{path} cannot be read ({e.strerror})', 'make it readable') from None
    except ValueError as e:  # not UTF-8, or not JSON
        raise ModelError(f'{path} is not JSON ({e})', restore) from None
    if not isinstance(raw, dict):
        raise ModelError(f'{path} holds a {type(raw).__name__}, not an object', restore)
    return raw
