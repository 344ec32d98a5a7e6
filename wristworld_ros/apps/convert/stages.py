"""The two stages of a model directory, made from the published files: checked, renamed, prompts embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wristworld_ros.apps.convert.settings import ConvertSettings
from wristworld_ros.apps.convert.sources import (
    DOWNLOAD_AGAIN,
    STAGE1_PREFIXES,
    WAN_REPOSITORY,
    clip_config,
    generator_config,
    read_tensors,
    require_part,
    stage1_config,
    text_config,
    vae_config,
)
from wristworld_ros.apps.convert.students import (
    Student,
    Tensors,
    add_lora,
    is_student,
    student_of,
    student_tensors,
)
from wristworld_ros.models.config import AUTOENCODER, GENERATOR, STAGE1, ModelError
from wristworld_ros.models.state_dict import check_shapes, named_tensors
from wristworld_ros.models.vggt import ReconstructionModel
from wristworld_ros.models.wan import GeneratorConfig, WristGenerator
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.models.wan.checkpoints import CLIP_VIT_H, clip_tensors, text_encoder_from_release, vae_tensors
from wristworld_ros.runtime.progress import ProgressBar

VGGT_LICENCE = 'VGGT-1B: non-commercial (VGGT-1B-Commercial: its own, accepted with its download)'
WRISTWORLD_LICENCE = 'none stated by WristWorld'
WAN_LICENCE = 'Apache-2.0 (Wan2.1)'
TOKENIZER_FILES = ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'spiece.model')
INIT_SCALE = 0.02  # standard deviation of new embeddings
_TEXT = ('text_context', 'negative_text_context')  # of the generator: embeddings of the prompt and of the negative one


@dataclass
class Source:
    """A file that was converted. licence: in words; sha256: of the whole file, '' until it is known."""

    path: Path
    part: str
    licence: str
    sha256: str = ''


@dataclass
class Stage:
    """What a stage adds to the model directory. files: name -> tensors. untrained: parts without trained weights."""

    config: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    untrained: list[str] = field(default_factory=list)
    use_anchor_tokens: bool = True


def convert_stage1(path: Path, settings: ConvertSettings, overrides: Mapping[str, Any]) -> Stage:
    """Stage 1 from its file, with every name and shape checked.

    Args:
        path: Of VGGT's weights, with or without the wrist head.
        settings: Which heads to keep.
        overrides: Sections of `read_overrides`.

    Raises:
        ModelError: The file is not such a checkpoint.
    """
    weights = read_tensors(path)
    config = stage1_config(weights, str(path), overrides.get('stage1', {}))
    if settings.heads:
        if lacking := sorted(set(settings.heads) - set(config['heads'])):
            raise ModelError(f'{path} has no head {", ".join(lacking)}', f'keep some of {", ".join(config["heads"])}')
        config['heads'] = list(settings.heads)
    dropped = tuple(prefix for head, prefix in STAGE1_PREFIXES.items() if head not in config['heads'])
    tensors = {name: value for name, value in weights.items() if not name.startswith(dropped)}
    with torch.device('meta'):
        model = ReconstructionModel.from_config(config)
    check_shapes(named_tensors(model), tensors, str(path))
    trained = 'wrist' in config['heads']
    licence = f'{WRISTWORLD_LICENCE}; made from {VGGT_LICENCE}' if trained else VGGT_LICENCE
    return Stage(
        config=config,
        files={STAGE1: tensors},
        sources=[Source(path, 'stage 1', licence)],
        untrained=[] if trained else ['the wrist head'],
    )


def convert_stage2(
    paths: Mapping[str, Path],
    folders: Sequence[Path],
    settings: ConvertSettings,
    overrides: Mapping[str, Any],
    progress: bool,
) -> Stage:
    """Stage 2 from its files, with every name and shape checked and the prompts embedded.

    Args:
        paths: Part (a key of `PARTS`) -> its file; `clip` may be absent where the video transformer is Wan's own.
        folders: Where they were looked for.
        settings: The prompts.
        overrides: Sections of `read_overrides`.
        progress: Whether a bar is shown.

    Raises:
        ModelError: A file is not such a checkpoint, or they do not belong together.
    """
    video, untrained = read_tensors(paths['video']), []
    student = student_of(paths['video'].name) if is_student(video) else None
    if student is not None:
        video = _student_video(video, student, paths)
    elif 'lora' in paths:
        raise ModelError(
            f'{paths["lora"]} is the LoRA of a student, and {paths["video"]} is no student',
            'leave out --lora, or give its file',
        )
    clip = read_tensors(paths['clip']) if 'clip' in paths else None
    anchor_encoder = clip and clip_config(clip, str(paths['clip']), overrides.get('anchor_encoder', {}))
    plain = 'patch_embedding.weight' in video and 'denoising_model.patch_embedding.weight' not in video
    if plain:
        clip_dim = anchor_encoder['dim'] if anchor_encoder else CLIP_VIT_H['dim']
        video = _from_plain_wan(video, clip_dim, str(paths['video']), overrides.get('generator', {}))
        untrained = ['the condition input of the video transformer', 'the projection of the anchor tokens']
    elif clip is None:
        require_part('clip', folders)  # it is missing, and this says so
    own = {} if student is None else student.config
    config = generator_config(video, str(paths['video']), own | dict(overrides.get('generator', {})))
    vae = read_tensors(paths['vae'])
    autoencoder = vae_config(vae, str(paths['vae']), overrides.get('autoencoder', {}))
    config |= {'anchor_encoder': anchor_encoder, 'autoencoder': autoencoder, 'text': 'stored'}
    config = GeneratorConfig.from_config(config).to_config()
    _check_together(config, paths)

    tensors = dict(video)
    if clip is not None:
        tower = clip_tensors(clip, anchor_encoder, str(paths['clip']))
        tensors |= {f'anchor_encoder.{name}': value for name, value in tower.items()}
    with torch.device('meta'):
        wanted = WristGenerator.from_config(config).release_tensors()
        wanted_vae = named_tensors(autoencoder_from_config(autoencoder))
    check_shapes({k: v for k, v in wanted.items() if k not in _TEXT}, tensors, str(paths['video']))
    vae = vae_tensors(vae, autoencoder, str(paths['vae']))
    check_shapes(wanted_vae, vae, str(paths['vae']))

    tensors |= _embedded_prompts(paths, settings, overrides, config['context_length'], wanted, progress)
    made_by = WAN_LICENCE if plain else f'{WRISTWORLD_LICENCE}; made from {WAN_LICENCE}'
    if student is not None:
        made_by = f'{student.licence}; made from {WAN_LICENCE}'
    sources = _stage2_sources(paths, made_by)
    return Stage(config, {GENERATOR: tensors, AUTOENCODER: vae}, sources, untrained, use_anchor_tokens=clip is not None)


def _embedded_prompts(
    paths: Mapping[str, Path],
    settings: ConvertSettings,
    overrides: Mapping[str, Any],
    length: int,
    wanted: Mapping[str, torch.Tensor],
    progress: bool,
) -> Tensors:
    """The prompt and the negative one as the generator stores them, each [length, channels]; arguments as of `convert_stage2`.

    Raises:
        ModelError: The text encoder is another model's.
    """
    source, weights = str(paths['text_encoder']), read_tensors(paths['text_encoder'])
    embeddings = prompt_embeddings(
        [settings.prompt, settings.negative_prompt],
        paths['tokenizer'],
        weights,
        text_config(weights, source, overrides.get('text_encoder', {})),
        length,
        source,
        progress,
    )
    for name, embedding in zip(_TEXT, embeddings, strict=True):
        if embedding.shape != wanted[name].shape:
            raise ModelError(
                f'{source}: key token_embedding.weight makes embeddings of {embedding.shape[1]} channels, '
                f'wanted {wanted[name].shape[1]} (text_embedding.0.weight of {paths["video"]})',
                'give files of one model',
            )
    return dict(zip(_TEXT, embeddings, strict=True))


def _stage2_sources(paths: Mapping[str, Path], made_by: str) -> list[Source]:
    """What stage 2 was made from. made_by: licence of the video transformer."""
    sources = [Source(paths['video'], 'video transformer', made_by)]
    sources += [Source(paths['lora'], "the video transformer's LoRA", made_by)] if 'lora' in paths else []
    sources += [Source(paths['vae'], 'video autoencoder', WAN_LICENCE)]
    sources += [Source(paths['clip'], 'vision tower', WAN_LICENCE)] if 'clip' in paths else []
    sources += [Source(paths['text_encoder'], 'text encoder (its embeddings of the prompts)', WAN_LICENCE)]
    tokenizer = (paths['tokenizer'] / name for name in TOKENIZER_FILES)
    return sources + [Source(file, 'tokenizer', WAN_LICENCE) for file in tokenizer if file.is_file()]


def _student_video(weights: Mapping[str, torch.Tensor], student: Student, paths: Mapping[str, Path]) -> Tensors:
    """A student's transformer with its LoRA added: under the names of Wan's own, or of the release where it is a wrist camera's."""
    video = student_tensors(weights, str(paths['video']))
    if 'lora' in paths:
        video = add_lora(video, read_tensors(paths['lora']), student.scale, str(paths['lora']))
    if 'ext_proj.0.weight' not in video:
        return video
    anchors = ('ext_proj.', 'temporal_embed.', 'view_embed.')
    return {name if name.startswith(anchors) else f'denoising_model.{name}': value for name, value in video.items()}


def _check_together(config: Mapping[str, Any], paths: Mapping[str, Path]) -> None:
    """Raise ModelError where the shapes of one file do not match those of another."""
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
            f'{paths[part]}: key {key} has {found} channels, wanted {needed} ({by} of {video})',
            'give files of one model',
        )


def _from_plain_wan(
    weights: Mapping[str, torch.Tensor], clip_dim: int, source: str, overrides: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Wan's own transformer as a start for training: a second set of input channels of zeros for the condition map, and a
    newly initialised projection of anchor tokens."""
    wan = {f'denoising_model.{name}': value for name, value in weights.items()}
    key = 'denoising_model.patch_embedding.weight'
    if wan[key].ndim != 5:
        found = list(wan[key].shape)
        raise ModelError(f'{source}: key patch_embedding.weight has shape {found}, wanted 5 dimensions', DOWNLOAD_AGAIN)
    wan[key] = torch.cat([wan[key], torch.zeros_like(wan[key])], dim=1)
    text_key = 'denoising_model.text_embedding.0.weight'
    if text_key not in wan:
        raise ModelError(f'{source}: key text_embedding.0.weight is missing', DOWNLOAD_AGAIN)
    text_dim, like = wan[text_key].shape[-1], wan[key]
    published = {'clip_hidden': 2048, 'max_frames': 200, 'max_views': 2} | dict(overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hidden = published['clip_hidden']
        parts = {'0': nn.Linear(clip_dim, hidden), '3': nn.Linear(hidden, text_dim)}
        new = {f'ext_proj.{i}.{kind}': getattr(p, kind) for i, p in parts.items() for kind in ('weight', 'bias')}
        new['temporal_embed.weight'] = INIT_SCALE * torch.randn(published['max_frames'], clip_dim)
        new['view_embed.weight'] = INIT_SCALE * torch.randn(published['max_views'], clip_dim)
    return wan | {name: value.detach().to(like.dtype) for name, value in new.items()}


def tokenize(prompts: Sequence[str], folder: Path, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 [B, L], of prompts by a tokenizer's own files, read offline; white space is collapsed.

    Args:
        prompts: B of them.
        folder: Of the tokenizer's files.
        length: Tokens that a prompt is cut to.

    Raises:
        ModelError: The folder holds no tokenizer.
    """
    if not any((folder / name).is_file() for name in ('tokenizer.json', 'spiece.model')):
        raise ModelError(
            f'{folder} holds no tokenizer (tokenizer.json is missing)',
            f'give the folder google/umt5-xxl of {WAN_REPOSITORY} with --tokenizer',
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # bad files can raise almost anything in the library
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip('.')
        raise ModelError(f'{folder} cannot be read as a tokenizer ({reason})', 'download it again') from None
    made = tokenizer(
        [' '.join(prompt.split()) for prompt in prompts], padding=True, truncation=True, max_length=length,
        add_special_tokens=True, return_tensors='pt',
    )  # fmt: skip
    return made['input_ids'], made['attention_mask']


def prompt_embeddings(
    prompts: Sequence[str],
    tokenizer: Path,
    weights: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    length: int,
    source: str,
    progress: bool = True,
) -> list[torch.Tensor]:
    """Embeddings of constant prompts: the text encoder runs here, once, and never on the robot.

    Args:
        prompts: In words.
        tokenizer: Folder of its files.
        weights: Of the text encoder, as `text_encoder_from_release` takes them, mapped from their file or not.
        config: Likewise.
        length: Rows of each embedding.
        source: What to call the weights in an error.
        progress: Whether a bar is shown.

    Returns:
        [length, dim] for each prompt, in the encoder's dtype, zero after the prompt's end.

    Raises:
        ModelError: The files cannot be read, or do not belong together.
    """
    text = text_encoder_from_release(weights, config, source)
    ids, mask = tokenize(prompts, tokenizer, length)
    if int(ids.max()) >= config['vocab']:
        raise ModelError(
            f'{tokenizer} makes token {int(ids.max())}, but {source} has {config["vocab"]} (token_embedding.weight)',
            'give the tokenizer of this text encoder',
        )
    with ProgressBar(total=config['num_layers'], desc='text encoder', unit='layer', disable=not progress) as bar:
        for block in text.encoder.encoder.block:
            block.register_forward_hook(lambda *_: bar.update() and None)
        embeddings = text.context(ids, mask)
    return [F.pad(e, (0, 0, 0, length - e.shape[0])) for e in embeddings]
