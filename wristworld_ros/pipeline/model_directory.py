"""Model directories read: weights go straight to their device, in the precision they will have there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from wristworld_ros.data.images import read_image
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_file, convert
from wristworld_ros.models.config import (
    AUTOENCODER,
    GENERATOR,
    HAND,
    PRETRAINED,
    PRIOR,
    STAGE1,
    SWEEP,
    TINY_DECODER,
    ModelConfig,
    ModelError,
    building,
)
from wristworld_ros.models.hand import HandConfig, HandNetwork
from wristworld_ros.models.state_dict import empty_weights, load_into, named_tensors
from wristworld_ros.models.sweep import SweepConfig, SweepNetwork
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.models.wan.autoencoders import Autoencoder, WanAutoencoder, autoencoder_from_config
from wristworld_ros.models.wan.tiny_decoder import TinyAutoencoder, TinyDecoderSizes, tiny_decoder_for
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.prior import WristPrior
from wristworld_ros.runtime.machine import has_bfloat16_instructions

Tensors = dict[str, torch.Tensor]


def find_model(name_or_path: str) -> Path:
    """Directory of a model that ships with the package, or the path itself; ModelError when there is none."""
    shipped = PRETRAINED / name_or_path
    if (shipped / 'config.json').exists():
        return shipped
    path = Path(name_or_path).expanduser()
    if not path.is_dir():
        names = ', '.join(sorted(p.name for p in PRETRAINED.glob('*') if p.is_dir())) or 'none'
        raise ModelError(
            f'There is no model {name_or_path!r}', f'give the path of a model directory or one of: {names}'
        )
    return path


def choose_device(device: str) -> str:
    """`auto` becomes cuda where there is a GPU.

    Raises:
        ModelError: cuda or cuda:N is asked for and is not there.
    """
    if device == 'auto':
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise ModelError(
            f'Setting device is {device}, but torch sees no CUDA GPU here',
            'set device to cpu or auto, or install a CUDA build of torch',
        )
    number = device.partition(':')[2]
    if number and int(number) >= (count := torch.cuda.device_count()):
        raise ModelError(
            f'Setting device is {device}, but torch sees {count} GPU{"s" if count > 1 else ""} here',
            f'give cuda:0 to cuda:{count - 1}' if count > 1 else 'give cuda',
        )
    return device


def choose_precision(config: ModelConfig, precision: str, device: str) -> torch.dtype:
    """The dtype that the big networks are kept in.

    Args:
        config: Of the model.
        precision: Of `StreamSettings`.
        device: As in 'cpu' or 'cuda'.
    """
    name = precision
    if precision == 'auto':
        name = config.precision if device.startswith('cuda') else 'float32'
    return {'float32': torch.float32, 'bfloat16': torch.bfloat16}[name]


def load_model(
    name_or_path: str = 'sim_tiny', device: str = 'auto', precision: str = 'auto', decoder: str = 'full'
) -> WristModel:
    """Load a model by the name of one that ships with the package or by its directory.

    Args:
        name_or_path: As in `find_model`.
        device: As in `StreamSettings`, like the following ones.
        precision: What the big networks are kept in.
        decoder: full or tiny.

    Raises:
        ModelError: Something is missing or does not fit.
    """
    if decoder not in ('full', 'tiny'):
        raise ModelError(f'decoder is {decoder!r}', 'set it to full or tiny')
    device = choose_device(device)
    folder = find_model(name_or_path)
    config = _read_config(folder)
    if config.untrained:
        raise ModelError(
            f'{folder} cannot run, for these parts of it were never trained: {", ".join(config.untrained)}',
            'train them (load_stage1 and load_stage2 load what there is), or convert weights that have them',
        )
    if not (config.stage1 and config.generator):
        there = 'stage 1' if config.stage1 else 'stage 2'
        raise ModelError(
            f'{folder} holds {there} alone, and a wrist camera needs both', 'convert them into one directory'
        )
    dtype = choose_precision(config, precision, device)
    _, stage1 = load_stage1(str(folder), device, dtype)
    _, generator, autoencoder = load_stage2(str(folder), device, dtype)
    sweep, hand = load_close_up(folder, config, device)
    if sweep is not None and device == 'cpu' and precision != 'float32' and has_bfloat16_instructions():
        sweep.convolve_in(torch.bfloat16)
    model = WristModel(config, stage1, generator, device, autoencoder, sweep, hand, load_prior(folder, config))
    if decoder == 'tiny' or config.tiny_decoder:
        tiny = load_tiny_decoder(folder, config, autoencoder, dtype, device)
        model.tiny_autoencoder = tiny.requires_grad_(False).to(model.device)
    if decoder == 'tiny':
        model.use_tiny_decoder()
    return model


def load_stage1(
    name_or_path: str, device: str = 'cpu', dtype: torch.dtype = torch.float32
) -> tuple[ModelConfig, ReconstructionModel]:
    """Stage 1 alone, in evaluation mode, of any model directory that has one; errors as in `load_model`.

    A directory converted from VGGT's own weights gives a model without a wrist head: something to train from.

    Args:
        name_or_path: As in `find_model`.
        device: As in 'cpu' or 'cuda'.
        dtype: What the aggregator is kept in; the heads are float32.
    """
    folder = find_model(name_or_path)
    config = _read_config(folder)
    if not config.stage1:
        raise ModelError(f'{folder} holds no stage 1', 'convert or train one')
    with building(folder), empty_weights():
        stage1 = ReconstructionModel.from_config(config.stage1)
    _fill(stage1, named_tensors(stage1), folder / STAGE1, lambda name: stage1.param_dtype(name, dtype), device)
    return config, stage1.eval()


def load_stage2(
    name_or_path: str, device: str = 'cpu', dtype: torch.dtype = torch.float32
) -> tuple[ModelConfig, WristGenerator, Autoencoder]:
    """The generator and its autoencoder alone, in evaluation mode, of any model directory that has them.

    Args:
        name_or_path: As in `find_model`.
        device: As in 'cpu' or 'cuda'.
        dtype: What transformer, vision tower and autoencoder are kept in.

    Raises:
        ModelError: As in `load_model`.
    """
    folder = find_model(name_or_path)
    config = _read_config(folder)
    if not config.generator:
        raise ModelError(f'{folder} holds no stage 2', 'convert or train one')
    with building(folder), empty_weights():
        generator = WristGenerator.from_config(config.generator)
        autoencoder = autoencoder_from_config(generator.settings.autoencoder)
    release = generator.release_tensors()
    _fill(generator, release, folder / GENERATOR, lambda name: generator.param_dtype(name, dtype), device)
    if tensors := named_tensors(autoencoder):
        _fill(autoencoder, tensors, folder / AUTOENCODER, lambda name: dtype, device)
    return config, generator, autoencoder.eval()


def load_close_up(
    folder: Path, config: ModelConfig, device: str = 'cpu'
) -> tuple[SweepNetwork | None, HandNetwork | None]:
    """The plane sweep and the hand network of a model directory, in evaluation mode; None for what it does not have.

    Args:
        folder: The model directory.
        config: Its configuration.
        device: As in 'cpu' or 'cuda'.

    Raises:
        ModelError: A configuration or a weight file does not fit.
    """
    return (
        _small_network(folder, config.sweep, 'sweep', SweepConfig, SweepNetwork, folder / SWEEP, device),
        _small_network(folder, config.hand, 'hand', HandConfig, HandNetwork, folder / HAND, device),
    )


def _small_network(folder: Path, raw: dict, key: str, kind: type, network: type, path: Path, device: str):
    """A network that runs in float32, of its part of config.json; None where that is empty."""
    if not raw:
        return None
    with _as_model_errors():
        settings = convert(raw, kind, f'{folder / "config.json"}, {key}', 'train it again')
    with building(folder), empty_weights():
        module = network(settings)
    _fill(module, named_tensors(module), path, lambda name: torch.float32, device)
    return module.eval()


def load_autoencoder(name_or_path: str) -> tuple[ModelConfig, Autoencoder]:
    """The autoencoder alone, in evaluation mode on the CPU, of any model directory that has a stage 2; errors as in
    `load_model`."""
    folder = find_model(name_or_path)
    config = _read_config(folder)
    if not config.generator:
        raise ModelError(f'{folder} holds no stage 2 and so no autoencoder', 'convert or train one')
    with building(folder):
        autoencoder = autoencoder_from_config(config.generator.get('autoencoder'))
    if tensors := named_tensors(autoencoder):
        _fill(autoencoder, tensors, folder / AUTOENCODER, lambda name: torch.float32, 'cpu')
    return config, autoencoder.eval()


def load_tiny_decoder(
    folder: Path, config: ModelConfig, autoencoder: Autoencoder, dtype: torch.dtype = torch.float32, device: str = 'cpu'
) -> TinyAutoencoder:
    """The autoencoder with the tiny decoder of its directory beside its own, which it still holds.

    Args:
        folder: The model directory.
        config: Its configuration.
        autoencoder: Its full autoencoder.
        dtype: What the tiny decoder is kept in.
        device: As in 'cpu' or 'cuda'.

    Raises:
        ModelError: There is none.
    """
    if not isinstance(autoencoder, WanAutoencoder):
        raise ModelError(
            f'{folder} has no video autoencoder (its latents are the pixels themselves), so it has no tiny decoder either',
            'set decoder to full',
        )
    if not config.tiny_decoder:
        raise ModelError(
            f'{folder} has no {TINY_DECODER}',
            f'make it with `wristworld train tiny-decoder EPISODES --model {folder}`, or set decoder to full',
        )
    where = f'{folder / "config.json"}, tiny_decoder'
    with _as_model_errors():
        sizes = convert(config.tiny_decoder, TinyDecoderSizes, where, 'train it again')
    decoder = tiny_decoder_for(autoencoder, sizes.width, sizes.blocks)
    _fill(decoder, named_tensors(decoder), folder / TINY_DECODER, lambda name: dtype, device)
    return TinyAutoencoder(autoencoder, decoder.eval())


def load_prior(folder: Path, config: ModelConfig) -> WristPrior | None:
    """The mean wrist image below the condition maps of a model directory; None where it has none, ModelError where it is damaged."""
    if not config.prior:
        return None
    with _as_model_errors():
        image = read_image(folder / PRIOR)
    if image.shape[:2] != config.wrist_hw:
        raise ModelError(
            f'{folder / PRIOR} is {image.shape[1]}x{image.shape[0]}, and the wrist image {config.wrist_hw[1]}x{config.wrist_hw[0]}',
            'copy it again from where the model came',
        )
    return WristPrior(torch.from_numpy(image), config.prior, config.prior_light)


@contextmanager
def _as_model_errors() -> Iterator[None]:
    """What parts that know no models raise as a UserError is a ModelError here, with the same sentence."""
    try:
        yield
    except ModelError:
        raise
    except UserError as e:
        raise ModelError(e.what, e.fix) from None


def _read_config(folder: Path) -> ModelConfig:
    return ModelConfig.read(folder / 'config.json')


def _fill(
    module: nn.Module,
    targets: Mapping[str, torch.Tensor],
    path: Path,
    param_dtype: Callable[[str], torch.dtype],
    device: str,
) -> None:
    """Fill a module from a file, strictly, as in `load_into`; ModelError: file, key, shape found, shape wanted, fix."""
    with _as_model_errors():
        load_into(module, targets, _read_weights(path), str(path), param_dtype, device)


def _read_weights(path: Path) -> Tensors:
    """The tensors of a file, mapped. ModelError when it is missing or cannot be read."""
    try:
        with _as_model_errors():
            check_file(path, 'copy it there from where the model came, or choose another model')
        return load_file(path)
    except OSError as e:
        raise ModelError(f'{path} cannot be read ({e.strerror or e})', 'make it readable') from None
    except SafetensorError as e:
        raise ModelError(
            f'{path} cannot be read as safetensors ({e}) and may be truncated',
            'copy it again from where the model came',
        ) from None
