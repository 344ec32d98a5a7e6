"""The whole conversion: find, check, embed the prompts, write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from wristworld_ros.apps.convert import sizes
from wristworld_ros.apps.convert.card import Source, Written, card
from wristworld_ros.apps.convert.prompts import TOKENIZER_FILES, prompt_embeddings
from wristworld_ros.apps.convert.settings import ConvertSettings
from wristworld_ros.apps.convert.sources import find_part, need_part, read_tensors
from wristworld_ros.apps.convert.write import file_sha256, new_directory, stored_bytes, write_tensors
from wristworld_ros.geometry.cloud import CloudSettings
from wristworld_ros.models.config import AUTOENCODER, GENERATOR, STAGE1
from wristworld_ros.models.state_dict import check_fit, named_tensors
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.wan import GeneratorSettings, WristGenerator
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.models.wan.checkpoints import CLIP_VIT_H, clip_tensors, vae_tensors
from wristworld_ros.pipeline import ModelConfig, ModelError
from wristworld_ros.settings import check

# Paper sheet 2.4: the published system's cloud and the size it paints at.
CLOUD = CloudSettings(upsample=1, edge=0.0, radius=2, near=0.01, render_size=(294, 518))
VGGT_LICENCE = 'VGGT-1B: non-commercial (VGGT-1B-Commercial: its own, accepted with its download)'
WRISTWORLD_LICENCE = 'none stated by WristWorld'
WAN_LICENCE = 'Apache-2.0 (Wan2.1)'
FRESH_SCALE = 0.02


@dataclass
class Stage:
    """What a stage gives to the model directory. files: name -> tensors. untrained: parts without trained weights."""

    config: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    untrained: list[str] = field(default_factory=list)
    use_anchor_tokens: bool = True


def convert_release(folders: Sequence[Path], settings: ConvertSettings, progress: bool = True) -> Path:
    """Write a model directory from the published files; returns its path.

    folders: where the files lie, in the layout of WristWorld's release, of VGGT-1B's or of Wan2.1's. Everything is
    checked before anything is written, and the directory appears at the end, whole, or not at all.
    Raises ValueError (ModelError for files), one sentence: file, key, shape found, shape wanted, what to do.
    """
    check(settings)  # type: ignore[arg-type]
    folders = [Path(folder).expanduser() for folder in folders]
    for folder in folders:
        if not folder.is_dir():
            raise ModelError(f"{folder} is no folder; give the one that the release's files were downloaded to.")
    if settings.wrist_width % 16 or settings.wrist_height % 16:
        raise ValueError(
            f'The wrist image is {settings.wrist_width}x{settings.wrist_height}; both must be multiples of 16.'
        )
    overrides = sizes.read_overrides(settings.sizes)
    paths = _paths(folders, settings)
    out = Path(settings.out).expanduser().absolute()
    for path in paths.values():
        if path.absolute().is_relative_to(out):
            raise ModelError(f'{path} lies in {out}, which the conversion would replace; give another --out.')
    with new_directory(out, settings.force) as making:
        first = _stage1(paths['stage1'], settings, overrides) if 'stage1' in paths else Stage()
        second = _stage2(paths, folders, settings, overrides, progress) if 'video' in paths else Stage()
        _write(making, out.name, first, second, settings, progress)
    return out


def _paths(folders: Sequence[Path], settings: ConvertSettings) -> dict[str, Path]:
    """Every file that the wanted parts need, or ModelError for the first that is missing."""
    wanted = []
    if settings.parts != 'stage2':
        wanted.append('stage1')
    if settings.parts != 'stage1':
        wanted += ['video', 'vae', 'text_encoder', 'tokenizer']
    paths = {part: need_part(part, folders, getattr(settings, part)) for part in wanted}
    if 'video' in paths and (clip := find_part('clip', folders, settings.clip)):
        paths['clip'] = clip
    return paths


def _stage1(path: Path, settings: ConvertSettings, overrides: Mapping[str, Any]) -> Stage:
    weights = read_tensors(path)
    config = sizes.stage1_config(weights, str(path), overrides.get('stage1', {}))
    if settings.heads:
        if lacking := sorted(set(settings.heads) - set(config['heads'])):
            raise ModelError(f'{path} has no head {", ".join(lacking)}; it has {", ".join(config["heads"])}.')
        config['heads'] = list(settings.heads)
    dropped = tuple(prefix for head, prefix in sizes.STAGE1_PREFIXES.items() if head not in config['heads'])
    tensors = {name: value for name, value in weights.items() if not name.startswith(dropped)}
    with torch.device('meta'):
        model = ReconstructionModel.from_config(config)
    check_fit(named_tensors(model), tensors, str(path))
    trained = 'wrist' in config['heads']
    licence = f'{WRISTWORLD_LICENCE}; made from {VGGT_LICENCE}' if trained else VGGT_LICENCE
    return Stage(
        config=config,
        files={STAGE1: tensors},
        sources=[Source(path, 'stage 1', licence)],
        untrained=[] if trained else ['the wrist head'],
    )


def _stage2(
    paths: Mapping[str, Path],
    folders: Sequence[Path],
    settings: ConvertSettings,
    overrides: Mapping[str, Any],
    progress: bool,
) -> Stage:
    video, untrained = read_tensors(paths['video']), []
    clip = read_tensors(paths['clip']) if 'clip' in paths else None
    anchor_encoder = clip and sizes.clip_config(clip, str(paths['clip']), overrides.get('anchor_encoder', {}))
    plain = 'patch_embedding.weight' in video and 'denoising_model.patch_embedding.weight' not in video
    if plain:
        clip_dim = anchor_encoder['dim'] if anchor_encoder else CLIP_VIT_H['dim']
        video = _from_plain_wan(video, clip_dim, str(paths['video']), overrides.get('generator', {}))
        untrained = ['the condition input of the video transformer', 'the projection of the anchor tokens']
    elif clip is None:
        need_part('clip', folders)  # it is missing, and this says so
    config = sizes.generator_config(video, str(paths['video']), overrides.get('generator', {}))
    vae = read_tensors(paths['vae'])
    autoencoder = sizes.vae_config(vae, str(paths['vae']), overrides.get('autoencoder', {}))
    config |= {'anchor_encoder': anchor_encoder, 'autoencoder': autoencoder, 'text': 'stored'}
    config = GeneratorSettings.from_config(config).to_config()
    _check_together(config, paths)

    tensors = dict(video)
    if clip is not None:
        tower = clip_tensors(clip, anchor_encoder, str(paths['clip']))
        tensors |= {f'anchor_encoder.{name}': value for name, value in tower.items()}
    with torch.device('meta'):
        wanted = WristGenerator.from_config(config).release_tensors()
        wanted_vae = named_tensors(autoencoder_from_config(autoencoder))
    text_names = ('text_context', 'negative_text_context')
    check_fit({k: v for k, v in wanted.items() if k not in text_names}, tensors, str(paths['video']))
    vae = vae_tensors(vae, autoencoder, str(paths['vae']))
    check_fit(wanted_vae, vae, str(paths['vae']))

    text = read_tensors(paths['text_encoder'])
    embeddings = prompt_embeddings(
        [settings.prompt, settings.negative_prompt],
        paths['tokenizer'],
        text,
        sizes.text_config(text, str(paths['text_encoder']), overrides.get('text_encoder', {})),
        config['context_length'],
        str(paths['text_encoder']),
        progress,
    )
    for name, embedding in zip(text_names, embeddings, strict=True):
        if embedding.shape != wanted[name].shape:
            raise ModelError(
                f'{paths["text_encoder"]}: key token_embedding.weight makes embeddings of {embedding.shape[1]} channels, '
                f'wanted {wanted[name].shape[1]} (text_embedding.0.weight of {paths["video"]}); give files of one model.'
            )
        tensors[name] = embedding
    made_by = WAN_LICENCE if plain else f'{WRISTWORLD_LICENCE}; made from {WAN_LICENCE}'
    sources = [Source(paths['video'], 'video transformer', made_by)]
    sources += [Source(paths['vae'], 'video autoencoder', WAN_LICENCE)]
    sources += [Source(paths['clip'], 'vision tower', WAN_LICENCE)] if clip is not None else []
    sources += [Source(paths['text_encoder'], 'text encoder (its embeddings of the prompts)', WAN_LICENCE)]
    tokenizer = (paths['tokenizer'] / name for name in TOKENIZER_FILES)
    sources += [Source(file, 'tokenizer', WAN_LICENCE) for file in tokenizer if file.is_file()]
    return Stage(config, {GENERATOR: tensors, AUTOENCODER: vae}, sources, untrained, use_anchor_tokens=clip is not None)


def _check_together(config: Mapping[str, Any], paths: Mapping[str, Path]) -> None:
    """What one file's shapes promise another's."""
    wrong, video = None, paths['video']
    if config['anchor_encoder'] and config['anchor_encoder']['dim'] != config['clip_dim']:
        wrong = (
            'clip',
            'visual.cls_embedding',
            config['anchor_encoder']['dim'],
            config['clip_dim'],
            'ext_proj.0.weight',
        )
    if config['autoencoder']['z_dim'] != config['latent_channels']:
        wrong = (
            'vae', 'decoder.conv1.weight', config['autoencoder']['z_dim'], config['latent_channels'], 'head.head.weight',
        )  # fmt: skip
    if wrong:
        part, key, found, needed, by = wrong
        raise ModelError(
            f'{paths[part]}: key {key} has {found} channels, wanted {needed} ({by} of {video}); give files of one model.'
        )


def _from_plain_wan(
    weights: Mapping[str, torch.Tensor], clip_dim: int, source: str, overrides: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Wan's own transformer as the start of a wrist camera: a second set of input channels that says nothing yet (zeros),
    and a fresh projection of anchor tokens."""
    wan = {f'denoising_model.{name}': value for name, value in weights.items()}
    key = 'denoising_model.patch_embedding.weight'
    if wan[key].ndim != 5:
        raise ModelError(f'{source}: key patch_embedding.weight has shape {list(wan[key].shape)}, wanted 5 dimensions.')
    wan[key] = torch.cat([wan[key], torch.zeros_like(wan[key])], dim=1)
    text_key = 'denoising_model.text_embedding.0.weight'
    if text_key not in wan:
        raise ModelError(f'{source}: key text_embedding.0.weight is missing; download the file again.')
    text_dim, like = wan[text_key].shape[-1], wan[key]
    published = {'clip_hidden': 2048, 'max_frames': 200, 'max_views': 2} | dict(overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hidden = published['clip_hidden']
        parts = {'0': nn.Linear(clip_dim, hidden), '3': nn.Linear(hidden, text_dim)}
        fresh = {f'ext_proj.{i}.{kind}': getattr(p, kind) for i, p in parts.items() for kind in ('weight', 'bias')}
        fresh['temporal_embed.weight'] = FRESH_SCALE * torch.randn(published['max_frames'], clip_dim)
        fresh['view_embed.weight'] = FRESH_SCALE * torch.randn(published['max_views'], clip_dim)
    return wan | {name: value.detach().to(like.dtype) for name, value in fresh.items()}


def _write(making: Path, name: str, first: Stage, second: Stage, settings: ConvertSettings, progress: bool) -> None:
    dtype = None if settings.dtype == 'keep' else getattr(torch, settings.dtype)
    files, sources = first.files | second.files, first.sources + second.sources
    needed = sum(stored_bytes(tensors, dtype) for tensors in files.values())
    if (free := shutil.disk_usage(making).free) < needed:
        raise ModelError(
            f'{making.parent} has {free / 1e9:.1f} GB free, and the model takes {needed / 1e9:.1f} GB; make room, or give '
            'another --out or a smaller --dtype.'
        )
    untrained = tuple(first.untrained + second.untrained)
    config = ModelConfig(
        name=settings.name or name,
        stage1=first.config,
        generator=second.config,
        anchor_width=settings.anchor_width,
        wrist_hw=(settings.wrist_height, settings.wrist_width),
        cloud=CLOUD,
        noise_share=0.0,
        precision='bfloat16',
        use_anchor_tokens=second.use_anchor_tokens,
        licence='; '.join(dict.fromkeys(words for source in sources for words in source.licence.split('; '))),
        untrained=untrained,
    )
    total = needed + sum(source.path.stat().st_size for source in sources)
    with tqdm(total=total, unit='B', unit_scale=True, disable=not progress) as bar:
        written = []
        for file, tensors in files.items():
            bar.set_description(f'write {file}')
            digest = write_tensors(making / file, tensors, dtype, bar.update)
            written.append(Written(file, (making / file).stat().st_size, digest))
        for source in sources:
            bar.set_description(f'hash {source.path.name}')
            source.sha256 = file_sha256(source.path, bar.update)
    config.write(making / 'config.json')
    (making / 'README.md').write_text(card(config, sources, written, settings))
