"""A model directory: which files it has, and what its `config.json` says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wristworld_ros.geometry.cloud import CloudSettings

FORMAT = 1
STAGE1, GENERATOR, AUTOENCODER = 'stage1.safetensors', 'generator.safetensors', 'autoencoder.safetensors'
TINY_DECODER = 'tiny_decoder.safetensors'
EMBEDDED = Path(__file__).parent.parent / 'pretrained'


class ModelError(ValueError):
    """A model that cannot be loaded; the message is one sentence with the file and what to do."""


@dataclass(frozen=True)
class ModelConfig:
    """`config.json` of a model directory.

    stage1, generator: configurations of the two networks; empty where a directory holds only the other one.
    anchor_width: pixels stage 1 runs at. wrist_hw: size of the wrist image. cloud: how points become condition maps.
    noise_share: of the sampler. precision: what the big networks were trained to compute in, float32 or bfloat16.
    use_condition, use_anchor_tokens: false for models trained without them (the paper's ablations). untrained: parts that must be trained before the model can run; empty for models that are ready.
    tiny_decoder: width and blocks of the light decoder, empty where there is none.
    """

    name: str
    stage1: dict
    generator: dict
    anchor_width: int
    wrist_hw: tuple[int, int]
    cloud: CloudSettings
    noise_share: float = 0.5
    precision: str = 'float32'
    use_condition: bool = True
    use_anchor_tokens: bool = True
    licence: str = 'Apache-2.0'
    untrained: tuple[str, ...] = ()
    tiny_decoder: dict = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """Read `config.json`; ModelError when it is missing, no JSON, of another format or incomplete."""
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:
            raise ModelError(f'{path} is missing; a model directory has config.json and its weights.') from None
        except json.JSONDecodeError as e:
            raise ModelError(f'{path} is no JSON ({e}); restore it from where the model came.') from None
        if raw.pop('format', None) != FORMAT:
            raise ModelError(f'{path} does not say format {FORMAT}; this version of wristworld_ros reads no other.')
        try:
            cloud = CloudSettings(**raw.pop('cloud'))
            sequences = {'wrist_hw': tuple(raw['wrist_hw']), 'untrained': tuple(raw.get('untrained', ()))}
            return cls(**{**raw, **sequences}, cloud=cloud)
        except (KeyError, TypeError) as e:
            raise ModelError(f'{path} is incomplete or has keys that are not known ({e}).') from None

    def write(self, path: Path) -> None:
        """Write `config.json`."""
        path.write_text(json.dumps({'format': FORMAT} | asdict(self), indent=2) + '\n')


def find_model(name_or_path: str) -> Path:
    """Directory of a model that ships with the package, or the path itself; ModelError when there is none."""
    shipped = EMBEDDED / name_or_path
    if (shipped / 'config.json').exists():
        return shipped
    path = Path(name_or_path).expanduser()
    if not path.is_dir():
        names = ', '.join(sorted(p.name for p in EMBEDDED.glob('*') if p.is_dir())) or 'none'
        raise ModelError(f'There is no model {name_or_path!r}; give the path of a model directory or one of: {names}.')
    return path
