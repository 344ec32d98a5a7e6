"""The walk from a model directory and recordings to an adapted model directory; each step leaves files that the next run finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.table import EvaluationTable
from wristworld_ros.input_files import check_folder, json_text, read_json
from wristworld_ros.models.config import ModelConfig
from wristworld_ros.models.wan import WristGenerator
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.pipeline.model_directory import find_model, load_model
from wristworld_ros.pipeline.prior import WristPrior
from wristworld_ros.runtime.files import clear_leftovers, file_sha256, new_directory, write_text
from wristworld_ros.setting import check
from wristworld_ros.settings import StreamSettings
from wristworld_ros.training.finetune.adapt import Curve, adapt_generator, stage2_training
from wristworld_ros.training.finetune.card import write_card, write_weights
from wristworld_ros.training.finetune.conditions import prepare_recordings
from wristworld_ros.training.finetune.evaluation import compare, stream_recordings, write_table
from wristworld_ros.training.finetune.geometry import AdaptedGeometry, adapt_geometry, can_adapt_geometry, is_published
from wristworld_ros.training.finetune.prior import mean_image
from wristworld_ros.training.finetune.published import adapt_published
from wristworld_ros.training.finetune.recordings import Split, split_recordings
from wristworld_ros.training.finetune.settings import FinetuneSettings
from wristworld_ros.training.parts import PackagedParts

MODEL, RECORD, EVALUATION = 'model', 'finetune.json', 'evaluation'
_LICENCE = 'with the licence of the recordings that it was adapted to'
_FREE = ('out', 'device', 'threads')  # settings that another call of the same run may change


@dataclass(frozen=True)
class Plan:
    """What a run does, all of it checked and no weights read yet. folder: of the model that it starts from."""

    settings: FinetuneSettings
    folder: Path
    config: ModelConfig
    split: Split

    @property
    def out(self) -> Path:
        return Path(self.settings.out).expanduser()

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of each weight file of the model that it starts from."""
        return {path.name: file_sha256(path) for path in sorted(self.folder.glob('*.safetensors'))}


def plan_finetune(settings: FinetuneSettings) -> Plan:
    """Check settings, model and recordings, without reading weights.

    Raises:
        UserError: Something is missing or does not fit, or `out` holds a run with other settings.
    """
    check(settings)
    check_folder(settings.out)
    folder = find_model(settings.model)
    config = ModelConfig.read(folder / 'config.json')
    _check_model(settings.model, config)
    plan = Plan(settings, folder, config, split_recordings(settings))
    record = _record(plan)
    path = plan.out / RECORD
    if path.exists():
        _check_same(read_json(path, dict[str, Any], 'give another --out'), record, plan.out)
    return plan


def run_finetune(plan: Plan, device: str) -> EvaluationTable:
    """Adapt, measure and write `out/model`; a run that was stopped continues, a finished one is read back.

    Args:
        plan: Of `plan_finetune`.
        device: cpu or cuda.

    Returns:
        The table of the held-out episodes.

    Raises:
        UserError: The model cannot be loaded, a recording cannot be decoded, or training diverged.
    """
    settings, split, out = plan.settings, plan.split, plan.out
    out.mkdir(parents=True, exist_ok=True)
    clear_leftovers(out)
    write_text(out / RECORD, json_text(_record(plan), indent=2))
    model = load_model(str(plan.folder), device, 'float32')
    hashes = plan.hashes
    stream = StreamSettings(model=settings.model, seed=settings.seed)
    halved = replace(settings, minutes=None if settings.minutes is None else settings.minutes / 2)
    timed = halved if can_adapt_geometry(plan.config, split) else settings
    geometry = adapt_geometry(model, split, out, settings, device)
    generator, prior, curve = _adapt_stage2(geometry, plan, timed, device)
    mean = mean_image(recording.truth(plan.config.wrist_hw).wrist for recording in split.adapt)
    adapted = _with_stage2(geometry.model, generator, prior, out.resolve().name)
    with new_directory(out / MODEL, replace=True) as folder:
        new_hashes = write_weights(folder, adapted, mean)
        loaded = load_model(str(folder), device, 'float32')  # as it is stored
        streamed = stream_recordings(
            model, loaded, not geometry.key, split.held_out, out / EVALUATION / 'frames', json_text([hashes, new_hashes]), stream
        )  # fmt: skip
        table, sheet = compare(split.held_out, streamed, mean, plan.config.wrist_hw)
        table.head.update(_head(plan, curve))
        write_table(out / EVALUATION, table, sheet)
        what = [stage2_sentence(plan, curve), *geometry.sentences]
        write_card(folder, settings, plan.config, split, what, table, new_hashes, plan.folder)
    return table


def _adapt_stage2(
    geometry: AdaptedGeometry, plan: Plan, settings: FinetuneSettings, device: str
) -> tuple[WristGenerator, WristPrior | None, Curve]:
    """The generator and the mean image below its condition maps, on condition maps of the geometry that was adapted before, and how that went."""
    model, out = geometry.model, plan.out
    if is_published(plan.config):
        generator, curve = adapt_published(model, plan.split, out, settings, device)
        return generator, model.prior, curve
    key = PackagedParts(plan.folder).key + geometry.key
    training, validation = (
        prepare_recordings(model, part, out / 'conditions', key)
        for part in (plan.split.training, plan.split.validation)
    )
    run = stage2_training(settings, plan.config, device)
    return adapt_generator(model.generator, model.prior, training, validation, out, run, device)


def _with_stage2(model: WristModel, generator: WristGenerator, prior: WristPrior | None, name: str) -> WristModel:
    licence = model.config.licence if _LICENCE in model.config.licence else f'{model.config.licence}, {_LICENCE}'
    weights, light = ((), ModelConfig.prior_light) if prior is None else (prior.weights, prior.light)
    config = replace(model.config, name=name, licence=licence, prior=weights, prior_light=light, mount=None)
    return WristModel(
        config, model.stage1, generator, 'cpu', model.autoencoder, model.sweep, model.hand, prior
    )  # fmt: skip


def _check_model(name: str, config: ModelConfig) -> None:
    """Raise UserError for a model that cannot be adapted."""
    if config.untrained:
        raise UserError(f'{name} has parts without trained weights: {", ".join(config.untrained)}', 'train them first')
    if not (config.stage1 and config.generator):
        raise UserError(f'{name} holds {"stage 1" if config.stage1 else "stage 2"} alone', 'give a whole model')
    if config.generator.get('sampler'):
        raise UserError(
            f'{name} is a few-step student', 'adapt the teacher that it was distilled from, and distil again'
        )


def _record(plan: Plan) -> dict[str, Any]:
    return {'settings': asdict(plan.settings), 'model': plan.config.name, 'episodes': plan.split.record()}


def _check_same(earlier: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Raise UserError where a folder holds a run of another kind."""
    old, new = earlier.get('settings', {}), now['settings']
    for name, value in new.items():
        if name not in _FREE and name in old and old[name] != value:
            raise UserError(
                f'{out} holds a run with {name} {old[name]}, and {value} is given',
                'give another --out, or the same settings',
            )
    if earlier.get('episodes') != now['episodes']:
        raise UserError(f'{out} holds a run on other episodes than those that are given now', 'give another --out')


def _head(plan: Plan, curve: Curve) -> dict[str, str]:
    height, width = plan.config.wrist_hw
    split = plan.split
    return {
        'model': f'{plan.config.name}, wrist {width}x{height}',
        'data': f'{len(split.held_out)} held-out episodes, {sum(map(len, split.held_out))} frames',
        'adapted': f'{curve.best or 0} steps on {len(split.adapt)} episodes, {sum(map(len, split.adapt))} frames',
        'numbers': 'mean ± standard error over episodes; valid: frames that the stream itself calls valid',
    }


def stage2_sentence(plan: Plan, curve: Curve) -> str:
    """How the generator was trained, for the card."""
    run = plan.settings
    if is_published(plan.config):
        how, unit = 'low-rank adapters, the embeddings of condition and anchors; flow matching', 'flow loss'
        before, best, floor = -curve.before, -curve.best_psnr, ''
    else:
        how, unit = (
            f'all of it but the anchor encoder; clips of 4 frames, {run.batch} a step, recoloring {run.color:g}',
            'dB in one step',
        )
        before, best, floor = curve.before, curve.best_psnr, f', the mean image of the others {curve.floor:.2f}'
    below = (
        ''
        if curve.best is None or is_published(plan.config)
        else ' The mean wrist image lies below the condition maps (`prior`).'
    )
    chosen = (
        f'{curve.best} steps were best on the episodes that choose ({best:.2f} {unit}; before {before:.2f}{floor}; '
        f'{curve.steps[-1]} were tried), and so many were then taken on all episodes'
        if curve.best is not None
        else f'no number of steps was better than none on the episodes that choose ({before:.2f} {unit}), so the generator is as it was'
    )
    return (
        f"Stage 2 learnt on condition maps that the model's own geometry made of these recordings ({how}; learning rate "
        f'{run.learning_rate:g}, seed {run.seed}): {chosen}.{below}'
    )
