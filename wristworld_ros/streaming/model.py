"""A model directory: both stages with all they need to run, and how it is read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from wristworld_ros.generation import WristGenerator
from wristworld_ros.generation.autoencoders import Autoencoder, autoencoder_from_config
from wristworld_ros.generation.weights import load_strict, named_tensors
from wristworld_ros.reconstruction import ReconstructionModel
from wristworld_ros.streaming.chunks import ChunkStream
from wristworld_ros.streaming.condition import CloudSettings, wrist_condition
from wristworld_ros.streaming.reconstructor import Reconstructor
from wristworld_ros.types import AnchorSet, ConditionMap, Reconstruction

FORMAT = 1
SMALL = 50_000_000  # parameters
STAGE1, GENERATOR, AUTOENCODER = 'stage1.safetensors', 'generator.safetensors', 'autoencoder.safetensors'
EMBEDDED = Path(__file__).parent.parent / 'models'


class ModelError(ValueError):
    """A model that cannot be loaded; the message is one sentence with the file and what to do."""


@dataclass(frozen=True)
class ModelConfig:
    """`config.json` of a model directory.

    stage1, generator: configurations of the two networks; empty where a directory holds only the other one.
    anchor_width: pixels stage 1 runs at. wrist_hw: size of the wrist image. cloud: how points become condition maps.
    noise_share: of the sampler. use_condition, use_anchor_tokens: false for models trained without them (the paper's
    ablations). untrained: parts that must be trained before the model can run; empty for models that are ready.
    """

    name: str
    stage1: dict
    generator: dict
    anchor_width: int
    wrist_hw: tuple[int, int]
    cloud: CloudSettings
    noise_share: float = 0.5
    use_condition: bool = True
    use_anchor_tokens: bool = True
    licence: str = 'Apache-2.0'
    untrained: tuple[str, ...] = ()

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


class WristModel:
    """Both stages, ready to run on one device. autoencoder: None for a new one of the generator's configuration, which
    is right where it has no weights."""

    def __init__(
        self, config: ModelConfig, stage1: ReconstructionModel, generator: WristGenerator, device: str,
        autoencoder: Autoencoder | None = None,
    ):  # fmt: skip
        self.config, self.device = config, torch.device(device)
        self.stage1 = stage1.eval().requires_grad_(False).to(self.device)
        self.generator = generator.eval().requires_grad_(False).to(self.device)
        autoencoder = autoencoder or autoencoder_from_config(config.generator['autoencoder'])
        self.autoencoder = autoencoder.eval().requires_grad_(False).to(self.device)
        self._reconstructor = Reconstructor(self.stage1, config.anchor_width, config.wrist_hw)

    @property
    def small(self) -> bool:
        """Whether a second CPU thread would cost more than it gives: every operation then waits for it longer than it
        works."""
        networks = (self.stage1, self.generator)
        return sum(p.numel() for network in networks for p in network.parameters()) < SMALL

    def reconstruct(self, anchors: AnchorSet) -> Reconstruction:
        """Stage 1 on one anchor set."""
        return self._reconstructor(anchors)

    def condition(self, reconstruction: Reconstruction, images: np.ndarray, near: float | None = None) -> ConditionMap:
        """The condition map; images uint8 [V, H, W, 3] at full resolution give the colours. near: metres."""
        cloud = self.config.cloud if near is None else replace(self.config.cloud, near=near)
        return wrist_condition(reconstruction, torch.from_numpy(images).to(self.device), cloud)

    def stream(self, chunk: int, steps: int, history: int, seed: int = 0, reanchor: int = 0) -> ChunkStream:
        """A new wrist video of this model."""
        return ChunkStream(
            self.generator, self.autoencoder, self.config.wrist_hw, chunk, steps, history, seed,
            self.config.noise_share, self.config.use_condition, self.config.use_anchor_tokens, reanchor,
        )  # fmt: skip


def choose_device(device: str) -> str:
    """`auto` becomes cuda where there is a GPU; ModelError when cuda is asked for and there is none."""
    if device == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda' and not torch.cuda.is_available():
        raise ModelError(
            'The device is cuda but torch sees no CUDA GPU here; use cpu or auto, or install a CUDA torch.'
        )
    return device


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


def load_weights(targets: Mapping[str, torch.Tensor], path: Path) -> None:
    """Fill tensors from safetensors, strictly; halves become float32.

    Raises ModelError, one sentence: file, key, shape found, shape wanted, what to do.
    """
    if not path.exists():
        raise ModelError(f'{path} is missing; copy it there from where the model came, or choose another model.')
    try:
        load_strict(targets, load_file(path), str(path))
    except SafetensorError as e:
        raise ModelError(f'{path} cannot be read as safetensors ({e}); it may be truncated: copy it again.') from None
    except ValueError as e:
        raise ModelError(str(e)) from None


def _stage1_files(stage1: ReconstructionModel) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors of stage 1's weight file under the public checkpoints' names."""
    return {STAGE1: named_tensors(stage1)}


def _stage2_files(generator: WristGenerator, autoencoder: Autoencoder) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors of stage 2's weight files under the public checkpoints' names; an autoencoder may have none."""
    files = {GENERATOR: generator.release_tensors(), AUTOENCODER: named_tensors(autoencoder)}
    return {name: tensors for name, tensors in files.items() if tensors}


def weight_files(
    stage1: ReconstructionModel, generator: WristGenerator, autoencoder: Autoencoder
) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors of each weight file of a whole model under the public checkpoints' names."""
    return _stage1_files(stage1) | _stage2_files(generator, autoencoder)


def load_stage1(name_or_path: str) -> tuple[ModelConfig, ReconstructionModel]:
    """Stage 1 alone, in evaluation mode on the CPU, of any model directory that has one; errors as in `load_model`.

    A directory converted from VGGT's own weights gives a model without a wrist head: something to train from.
    """
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if not config.stage1:
        raise ModelError(f'{folder} holds no stage 1; convert or train one.')
    stage1 = ReconstructionModel.from_config(config.stage1)
    for name, tensors in _stage1_files(stage1).items():
        load_weights(tensors, folder / name)
    return config, stage1.eval()


def load_stage2(name_or_path: str) -> tuple[ModelConfig, WristGenerator, Autoencoder]:
    """The generator and its autoencoder alone, in evaluation mode on the CPU, of any model directory that has them;
    errors as in `load_model`."""
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if not config.generator:
        raise ModelError(f'{folder} holds no stage 2; convert or train one.')
    generator = WristGenerator.from_config(config.generator)
    autoencoder = autoencoder_from_config(generator.settings.autoencoder)
    for name, tensors in _stage2_files(generator, autoencoder).items():
        load_weights(tensors, folder / name)
    return config, generator, autoencoder.eval()


def load_model(name_or_path: str = 'sim_tiny', device: str = 'auto') -> WristModel:
    """Load a model by the name of one that ships with the package or by its directory.

    Raises ModelError, one sentence, for whatever is missing or does not fit.
    """
    device = choose_device(device)
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if config.untrained:
        raise ModelError(
            f'{folder} cannot run, for these parts of it were never trained: {", ".join(config.untrained)}; train them '
            '(load_stage1 and load_stage2 give what is there), or convert weights that have them.'
        )
    if not (config.stage1 and config.generator):
        there = 'stage 1' if config.stage1 else 'stage 2'
        raise ModelError(f'{folder} holds {there} alone; a wrist camera needs both: convert them into one directory.')
    _, stage1 = load_stage1(str(folder))
    _, generator, autoencoder = load_stage2(str(folder))
    return WristModel(config, stage1, generator, device, autoencoder)


def save_model(model: WristModel, folder: Path, half: bool = True) -> dict[str, str]:
    """Write a model directory; returns the sha256 of each weight file. half: store float16."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.write(folder / 'config.json')
    hashes = {}
    for name, tensors in weight_files(model.stage1, model.generator, model.autoencoder).items():
        dtype = torch.float16 if half else torch.float32
        stored = {k: v.detach().to('cpu', dtype).contiguous().clone() for k, v in tensors.items()}
        for key, tensor in stored.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(
                    f'{folder / name}: {key} is not finite as {dtype}; save an earlier state, or half=False.'
                )
        save_file(stored, folder / name, metadata={'format': 'pt'})
        (folder / name).chmod(0o644)  # safetensors leaves it to its owner alone
        hashes[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return hashes


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
