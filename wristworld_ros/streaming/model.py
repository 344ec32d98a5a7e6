"""A model directory: both stages with all they need to run, and how it is read and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from wristworld_ros.generation import WristGenerator
from wristworld_ros.generation.autoencoders import Autoencoder, WanAutoencoder, autoencoder_from_config
from wristworld_ros.generation.light_decoder import LightAutoencoder, light_decoder_for
from wristworld_ros.generation.weights import named_tensors
from wristworld_ros.reconstruction import ReconstructionModel
from wristworld_ros.streaming.chunks import ChunkStream
from wristworld_ros.streaming.condition import CloudSettings
from wristworld_ros.streaming.precision import place, without_values
from wristworld_ros.streaming.reconstructor import Reconstructor
from wristworld_ros.streaming.sight import Eye

FORMAT = 1
SMALL = 50_000_000  # parameters
STAGE1, GENERATOR, AUTOENCODER = 'stage1.safetensors', 'generator.safetensors', 'autoencoder.safetensors'
LIGHT_DECODER = 'light_decoder.safetensors'
EMBEDDED = Path(__file__).parent.parent / 'models'


class ModelError(ValueError):
    """A model that cannot be loaded; the message is one sentence with the file and what to do."""


@dataclass(frozen=True)
class ModelConfig:
    """`config.json` of a model directory.

    stage1, generator: configurations of the two networks; empty where a directory holds only the other one.
    anchor_width: pixels stage 1 runs at. wrist_hw: size of the wrist image. cloud: how points become condition maps.
    noise_share: of the sampler. precision: what the big networks were trained to compute in, float32 or bfloat16. use_condition, use_anchor_tokens: false for models trained without them (the paper's
    ablations). untrained: parts that must be trained before the model can run; empty for models that are ready.
    light_decoder: width and blocks of the light decoder, empty where there is none.
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
    light_decoder: dict = field(default_factory=dict)

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

    light_autoencoder: LightAutoencoder | None = None  # beside the full one, where the directory has a light decoder

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

    def take_light_decoder(self) -> None:
        """Decode with the light decoder from the next stream on, and give up the weights of the full one."""
        assert self.light_autoencoder is not None
        self.autoencoder = self.light_autoencoder
        self.autoencoder.full.drop_decoder()

    @property
    def half(self) -> bool:
        """Whether the big networks are held in half precision."""
        return self.generator.transformer.patch_embedding.weight.dtype != torch.float32

    def reconstructor(self) -> Reconstructor:
        """Stage 1 alone as a step."""
        return Reconstructor(self.stage1, self.config.anchor_width, self.config.wrist_hw)

    def eye(self, near: float | None = None, wrist_fov: float = 0.0, graphs: bool = False) -> Eye:
        """Stage 1 and the condition map as one step; near: metres, None for the model's own; others as in `Eye`."""
        cloud = self.config.cloud if near is None else replace(self.config.cloud, near=near)
        return Eye(self.reconstructor(), cloud, wrist_fov, graphs)

    def stream(
        self, chunk: int, steps: int, history: int, seed: int = 0, graphs: bool = False, guidance: float = 1.0,
        reanchor: int = 0,
    ) -> ChunkStream:  # fmt: skip
        """A new wrist video of this model."""
        return ChunkStream(
            self.generator, self.autoencoder, self.config.wrist_hw, chunk, steps, history, seed, self.config.noise_share,
            self.config.use_condition, self.config.use_anchor_tokens, graphs, guidance, reanchor,
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


def choose_precision(config: ModelConfig, precision: str, device: str) -> torch.dtype:
    """What the big networks are held in. precision: of `StreamSettings`. device: cpu or cuda."""
    name = precision
    if precision == 'auto':
        name = config.precision if device == 'cuda' else 'float32'
    return {'float32': torch.float32, 'bfloat16': torch.bfloat16}[name]


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, mapped. ModelError when it is missing or cannot be read."""
    if not path.exists():
        raise ModelError(f'{path} is missing; copy it there from where the model came, or choose another model.')
    try:
        return load_file(path)
    except SafetensorError as e:
        raise ModelError(f'{path} cannot be read as safetensors ({e}); it may be truncated: copy it again.') from None


def _fill(module: nn.Module, targets: Mapping[str, torch.Tensor], path: Path, *form) -> None:
    """Fill a module from a file, strictly; targets and form as in `place`.

    Raises ModelError, one sentence: file, key, shape found, shape wanted, what to do.
    """
    try:
        place(module, targets, _read(path), str(path), *form)
    except ModelError:
        raise
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


def load_stage1(
    name_or_path: str, device: str = 'cpu', half: torch.dtype = torch.float32
) -> tuple[ModelConfig, ReconstructionModel]:
    """Stage 1 alone, in evaluation mode, of any model directory that has one; errors as in `load_model`.

    device: cpu or cuda. half: what the aggregator is held in; the heads are float32. A directory converted from VGGT's own weights gives a model without a wrist head: something to train from.
    """
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if not config.stage1:
        raise ModelError(f'{folder} holds no stage 1; convert or train one.')
    with without_values():
        stage1 = ReconstructionModel.from_config(config.stage1)
    for name, tensors in _stage1_files(stage1).items():
        _fill(stage1, tensors, folder / name, half, stage1.may_be_half, device)
    return config, stage1.eval()


def load_stage2(
    name_or_path: str, device: str = 'cpu', half: torch.dtype = torch.float32
) -> tuple[ModelConfig, WristGenerator, Autoencoder]:
    """The generator and its autoencoder alone, in evaluation mode, of any model directory that has them; errors as in
    `load_model`. device: cpu or cuda. half: what transformer, vision tower and autoencoder are held in."""
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if not config.generator:
        raise ModelError(f'{folder} holds no stage 2; convert or train one.')
    with without_values():
        generator = WristGenerator.from_config(config.generator)
        autoencoder = autoencoder_from_config(generator.settings.autoencoder)
    rules = {GENERATOR: (generator, generator.may_be_half), AUTOENCODER: (autoencoder, lambda name: True)}
    for name, tensors in _stage2_files(generator, autoencoder).items():
        module, rule = rules[name]
        _fill(module, tensors, folder / name, half, rule, device)
    return config, generator, autoencoder.eval()


def load_autoencoder(name_or_path: str) -> tuple[ModelConfig, Autoencoder]:
    """The autoencoder alone, in evaluation mode on the CPU, of any model directory that has a stage 2; errors as in
    `load_model`."""
    folder = find_model(name_or_path)
    config = ModelConfig.read(folder / 'config.json')
    if not config.generator:
        raise ModelError(f'{folder} holds no stage 2 and so no autoencoder; convert or train one.')
    autoencoder = autoencoder_from_config(config.generator['autoencoder'])
    if tensors := named_tensors(autoencoder):
        _fill(autoencoder, tensors, folder / AUTOENCODER)
    return config, autoencoder.eval()


def read_light_decoder(
    folder: Path, config: ModelConfig, autoencoder: Autoencoder, half: torch.dtype = torch.float32, device: str = 'cpu'
) -> LightAutoencoder:
    """The autoencoder with the light decoder of its directory beside its own, which it still holds.

    half: what the light one is held in. Raises ModelError where there is none.
    """
    if not isinstance(autoencoder, WanAutoencoder):
        raise ModelError(
            f'{folder} has no video autoencoder (its latents are the pixels themselves), so there is no light decoder of '
            'it; use decoder full.'
        )
    if not config.light_decoder:
        raise ModelError(
            f'{folder} has no {LIGHT_DECODER}; make it with `wristworld train light-decoder EPISODES --model {folder}`, or '
            'use decoder full.'
        )
    try:
        light = light_decoder_for(autoencoder, **config.light_decoder)
    except (TypeError, ValueError) as e:
        raise ModelError(f'{folder / "config.json"} does not describe a light decoder ({e}); train it anew.') from None
    _fill(light, named_tensors(light), folder / LIGHT_DECODER, half, lambda name: True, device)
    return LightAutoencoder(autoencoder, light.eval())


def load_model(
    name_or_path: str = 'sim_tiny', device: str = 'auto', precision: str = 'auto', decoder: str = 'full'
) -> WristModel:
    """Load a model by the name of one that ships with the package or by its directory.

    device, precision, decoder: as in `StreamSettings`. Raises ModelError, one sentence, for whatever is missing or does
    not fit.
    """
    device = choose_device(device)
    if decoder not in ('full', 'light'):
        raise ModelError(f'The decoder is {decoder!r}; it is full or light.')
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
    half = choose_precision(config, precision, device)
    _, stage1 = load_stage1(str(folder), device, half)
    _, generator, autoencoder = load_stage2(str(folder), device, half)
    model = WristModel(config, stage1, generator, device, autoencoder)
    if decoder == 'light' or config.light_decoder:
        light = read_light_decoder(folder, config, autoencoder, half, device)
        model.light_autoencoder = light.requires_grad_(False).to(model.device)
    if decoder == 'light':
        model.take_light_decoder()
    return model


def save_model(model: WristModel, folder: Path, half: bool = True) -> dict[str, str]:
    """Write a model directory; returns the sha256 of each weight file. half: store float16.

    Without its light decoder, which belongs to the weights of the directory that it was trained in. Raises ValueError for
    a model that was loaded with the light one, whose own decoder is gone."""
    if isinstance(model.autoencoder, LightAutoencoder):
        raise ValueError('A model with its light decoder has no decoder of its own to save; load it with decoder full.')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    replace(model.config, light_decoder={}).write(folder / 'config.json')
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
