"""A model directory: which files it has, and what its ``config.json`` says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from wristworld_ros.errors import UserError
from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.input_files import Share, Size, convert, json_text, read_json

FORMAT = 1
STAGE1, GENERATOR, AUTOENCODER = 'stage1.safetensors', 'generator.safetensors', 'autoencoder.safetensors'
TINY_DECODER, SWEEP, HAND = 'tiny_decoder.safetensors', 'sweep.safetensors', 'hand.safetensors'
PRIOR = 'wrist_prior.png'
_RESTORE = 'give a complete model directory, or restore it from where the model came'
Level = Annotated[float, Meta(ge=1, le=255)]  # of a pixel's channels, which 0 cannot be compared with
Row = tuple[float, float, float, float]
Pose = tuple[Row, Row, Row, Row]
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
        min_confidence: Least confidence at which a frame is valid where nothing is measured, 0 to 1, chosen likewise.
        use_condition: False for a model trained without condition maps (an ablation of the paper).
        use_anchor_tokens: False for a model trained without anchor tokens (an ablation of the paper).
        licence: SPDX identifier or a short statement.
        untrained: Parts that must be trained before the model can run; empty for a model that is ready.
        tiny_decoder: Width and blocks of the tiny decoder; empty where there is none.
        sweep: Configuration of the plane sweep (`sweep.SweepConfig`); empty where there is none.
        hand: Configuration of the hand network (`hand.HandConfig`); empty where there is none.
        mount: T_hand_wrist, metres, of the wrist cameras that the generator learnt from; None where they differed or nobody knows.
        prior: Weights of what the anchors show beside the mean wrist image (`pipeline.prior.WristPrior`); empty where there is none.
        prior_light: Mean level of the anchors' images that the mean wrist image goes with, 1 to 255.
    """

    name: str
    stage1: dict[str, Any]
    generator: dict[str, Any]
    anchor_width: Size
    wrist_hw: tuple[Size, Size]
    cloud: CloudSettings
    noise_share: Share = 0.5
    precision: Literal['float32', 'bfloat16'] = 'float32'
    min_agreement: Share | None = None
    min_confidence: Share = 0.1
    use_condition: bool = True
    use_anchor_tokens: bool = True
    licence: str = 'Apache-2.0'
    untrained: tuple[str, ...] = ()
    tiny_decoder: dict[str, Any] = field(default_factory=dict)
    sweep: dict[str, Any] = field(default_factory=dict)
    hand: dict[str, Any] = field(default_factory=dict)
    mount: Pose | None = None
    prior: tuple[Share, ...] = ()
    prior_light: Level = 128.0

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """Read a ``config.json``.

        Raises:
            ModelError: The file is missing, unreadable, not JSON, of another format, lacks or has an unknown key, or has a
                value of another type or size.
        """
        try:
            raw = read_json(path, dict[str, Any], _RESTORE)
            if raw.pop('format', None) != FORMAT:
                raise UserError(
                    f'{path} is not of format {FORMAT}, the only one that this version of wristworld_ros reads',
                    f'convert the model with this version, or restore "format": {FORMAT}',
                )
            return convert(raw, cls, str(path), _RESTORE)
        except UserError as e:
            raise ModelError(e.what, e.fix) from None

    def write(self, path: Path) -> None:
        """Write a ``config.json``; ModelError where that is not possible."""
        try:
            path.write_text(json_text({'format': FORMAT} | asdict(self), indent=2))
        except OSError as e:
            raise ModelError(f'{path} cannot be written ({e.strerror})', 'make its directory writable') from None


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Around the building of networks from a model directory's configuration.

    Values may be well typed and still describe no network, as sizes that do not divide each other; what the libraries
    raise then becomes a ModelError that names the file.
    """
    where = folder / 'config.json'
    try:
        yield
    except UserError as e:
        raise ModelError(e.what if str(folder) in e.what else f'{where}: {e.what}', e.fix) from None
    except Exception as e:
        lines = [line.strip() for line in str(e).splitlines() if line.strip()] or [type(e).__name__]
        raise ModelError(
            f'{where} does not describe networks that can be built ({lines[-1].rstrip(".")})', _RESTORE
        ) from e
