"""A causal student: roll-outs are what it streams, targets follow the teacher, and both parts end in a model that runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from wristworld_ros import cli
from wristworld_ros.data.formats.native import CameraTrack, write_episode
from wristworld_ros.errors import UserError
from wristworld_ros.models.wan import WristGenerator, sample_chunks
from wristworld_ros.models.wan.autoencoders import autoencoder_from_config
from wristworld_ros.models.wan.sampling import euler_sample
from wristworld_ros.pipeline import VirtualWrist, load_model, save_model, tiny_random_model
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.settings import StreamSettings
from wristworld_ros.training.causal.clips import ClipEncoder, clip_shape
from wristworld_ros.training.causal.losses import ConsistencyLoss, ForcingLoss, WindowedLoss, random_levels, roll_out
from wristworld_ros.training.causal.train import (
    CausalTraining,
    prepare_for,
    train_causal,
    train_causal_on_latents,
    train_teacher,
)
from wristworld_ros.training.config import GenerationData, GenerationModel
from wristworld_ros.training.stage2.data import Stage2Clips, Stage2Sampling
from wristworld_ros.training.trainer import Step, TrainerConfig
from wristworld_ros.types import AnchorSet

SMALL = {'chunk_frames': 2, 'history_chunks': 2, 'max_frames': 32}
WAN = {
    'autoencoder': {'kind': 'wan', 'dim': 8, 'z_dim': 16}, 'latent_channels': 16, 'in_channels': 32, 'out_channels': 16,
    'decoder': None, 'prediction': 'velocity', 'text': 'stored', 'shift': 5.0, 'cfg_scale': 2.0,
}  # fmt: skip
STUDENT = {'sampler': {'kind': 'renoise', 'timesteps': [1000, 500]}, 'sampling_steps': 2}
FEW = TrainerConfig(steps=2, checkpoint_every=1, bf16=False)


@pytest.fixture(params=[{}, WAN], ids=['pixels', 'wan'])
def teacher(request):
    torch.manual_seed(0)
    gen = WristGenerator.from_config(tiny_random_model().config.generator | SMALL | request.param)
    if gen.decoder is not None:
        torch.nn.init.normal_(gen.decoder.last.weight, std=0.3)
    return gen


@pytest.fixture
def student(teacher):
    gen = WristGenerator.from_config(teacher.settings.to_config() | STUDENT)
    gen.load_state_dict(teacher.state_dict())
    return gen


@pytest.fixture
def clips(tmp_path):
    rng, paths = np.random.default_rng(0), []
    for i in range(2):
        paths.append(tmp_path / f'{i}.npz')
        np.savez(
            paths[-1],
            condition=rng.integers(0, 256, (2, 30, 32, 32, 3), dtype=np.uint8),
            depth=rng.uniform(0, 1, (2, 30, 32, 32)).astype(np.float16),
            trust=rng.integers(0, 256, (2, 30, 32, 32), dtype=np.uint8),
            objects=rng.integers(0, 3, (30, 32, 32), dtype=np.uint8),
            anchors=rng.integers(0, 256, (2, 30, 32, 32, 3), dtype=np.uint8),
            wrist=rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8),
        )
    return paths


@pytest.fixture
def encoder(teacher):
    torch.manual_seed(1)
    autoencoder = autoencoder_from_config(teacher.settings.autoencoder).eval().requires_grad_(False)
    return ClipEncoder(autoencoder, 'cpu')


@pytest.fixture
def batch(teacher, encoder, clips):
    frames, chunks = clip_shape(teacher, encoder.autoencoder.temporal_stride, 3)
    return Stage2Clips(clips, Stage2Sampling(batch=2, frames=frames, chunks=chunks[-1:]), seed=0)[0]


def test_a_clip_is_whole_chunks_of_latents_with_the_contexts_of_their_frames(teacher, encoder, batch):
    clip = encoder(teacher, batch)
    stride = encoder.autoencoder.temporal_stride
    assert clip.clean.shape == (2, teacher.settings.latent_channels, 6, 4, 4) and clip.chunk == 2
    assert clip.frames == [1 + stride, 2 * stride, 2 * stride]
    assert clip.contexts(teacher).shape[:2] == (2, 3) and clip.whole_context(teacher).shape[0] == 2
    assert torch.equal(clip.clean, encoder.autoencoder.encode(batch['wrist']))


@torch.no_grad()
@pytest.mark.parametrize('steps', [1, 2])
def test_a_roll_out_is_what_the_student_streams(student, encoder, batch, steps):
    clip = encoder(student, batch)
    contexts, noise = clip.contexts(student), clip.noise(0.5, steps)
    rolled = roll_out(student, clip, contexts, noise)
    if steps == 1:
        assert torch.equal(rolled.noisy, noise[0])
    short = replace(
        student.settings, sampler={'kind': 'renoise', 'timesteps': student.settings.sampler['timesteps'][:steps]}
    )
    student.settings = short
    streamed = sample_chunks(student, noise, clip.condition, clip.features, encoder.autoencoder.temporal_stride)
    assert (rolled.made - streamed).abs().max() < 1e-5


@torch.no_grad()
def test_the_pass_with_gradients_predicts_what_the_stream_did(student, encoder, batch):
    clip = encoder(student, batch)
    contexts = clip.contexts(student)
    rolled = roll_out(student, clip, contexts, clip.noise(0.5, 2))
    found = ConsistencyLoss._predict(student, clip, contexts, rolled.noisy, rolled.made, torch.tensor(0.5))
    assert (found - rolled.made).abs().max() < 1e-5


@torch.no_grad()
def test_the_target_is_the_end_of_the_teachers_flow_from_the_students_own_clip(teacher, student, encoder, batch):
    """Of the last level; of an earlier one it is what the student predicts where that flow crosses its next level."""
    clip, loss = encoder(teacher, batch), ConsistencyLoss(encoder, teacher, 0.5, substeps=2)
    contexts = clip.contexts(student)
    rolled = roll_out(student, clip, contexts, clip.noise(0.5, 2))
    velocity = teacher.guided_velocity(clip.condition, clip.whole_context(teacher))
    wanted = euler_sample(velocity, rolled.noisy, torch.tensor([0.5, 0.25]))
    half, zero = torch.tensor(0.5), torch.tensor(0.0)
    assert torch.allclose(loss.target(student, clip, contexts, rolled, half, zero), wanted, atol=1e-5)
    first = roll_out(student, clip, contexts, clip.noise(0.5, 1))
    crossing = first.noisy
    for start, end in ((1.0, 0.75), (0.75, 0.5)):
        crossing = crossing + (end - start) * velocity(crossing, torch.tensor(start))
    wanted = loss._predict(student, clip, contexts, crossing, first.made, half)
    assert torch.allclose(loss.target(student, clip, contexts, first, torch.tensor(1.0), half), wanted, atol=1e-5)


@pytest.mark.parametrize('kind', ['windowed', 'forcing', 'step 1', 'step 2'])
def test_every_trained_part_gets_a_gradient_and_the_teacher_none(teacher, student, encoder, batch, kind):
    loss = {'windowed': WindowedLoss(encoder, 0.5), 'forcing': ForcingLoss(encoder, 0.5)}.get(kind)
    loss = loss or ConsistencyLoss(encoder, teacher, 0.5, substeps=1)
    terms = loss(student.train(), batch, Step(int(kind[-1]) - 1 if kind[-1].isdigit() else 0, 0.5))
    terms['total'].backward()
    assert torch.isfinite(terms['total']) and all(p.grad is None for p in teacher.parameters())
    trained = {n: p for n, p in student.named_parameters() if not n.startswith('anchor_encoder.')}
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained.values())
    assert student.ext_proj[0].weight.grad.any() and all(p.grad is None for p in student.anchor_encoder.parameters())


def test_a_student_comes_nearer_to_its_target(teacher, student, encoder, batch):
    """By gradient steps on one batch with the same noise, from other weights than the teacher's."""
    torch.manual_seed(5)
    student = WristGenerator.from_config(student.settings.to_config())
    last = student.transformer.proj_out if student.decoder is None else student.decoder.last
    torch.nn.init.normal_(last.weight, std=0.3)
    loss = ConsistencyLoss(encoder, teacher, 0.5, substeps=1)
    optimizer, found = torch.optim.Adam((p for p in student.parameters() if p.requires_grad), 1e-3), []
    for _ in range(8):
        torch.manual_seed(0)
        terms = loss(student, batch, Step(1, 0.5))
        optimizer.zero_grad()
        terms['total'].backward()
        optimizer.step()
        found.append(terms['total'].item())
    assert min(found[4:]) < 0.9 * found[0]


def test_levels_are_shifted_and_sometimes_pure_noise():
    torch.manual_seed(0)
    even, shifted = (random_levels((1000,), shift, 0.2, 'cpu') for shift in (1.0, 5.0))
    assert float(even.min()) > 0 and float(even.max()) == 1
    assert 0.15 < float((even == 1).float().mean()) < 0.25
    assert float(shifted.median()) > 0.8 > float(even.median())


@pytest.fixture
def directory(tmp_path):
    """A model directory of the smallest model, with Wan's autoencoder or without weights of one."""
    plain = tiny_random_model()
    config = plain.config.generator | SMALL
    generator = WristGenerator.from_config(config)
    torch.nn.init.normal_(
        generator.decoder.last.weight, std=0.3
    )  # at zero nothing before it would learn in the first step
    model = WristModel(replace(plain.config, generator=config), plain.stage1, generator, 'cpu')
    save_model(model, tmp_path / 'start')
    return str(tmp_path / 'start')


def test_teacher_and_student_end_as_models_that_stream(clips, directory, tmp_path):
    run = CausalTraining(directory, Stage2Sampling(batch=1), FEW, timesteps=(1000.0, 500.0), substeps=1, workers=0)
    train_teacher(clips, clips[:1], tmp_path / 'teacher', run)
    teacher = tmp_path / 'teacher/model'
    train_causal(clips, clips[:1], tmp_path / 'causal', replace(run, model=str(teacher)))
    model = load_model(str(tmp_path / 'causal/model'), 'cpu')
    assert model.generator.settings.renoise.timesteps == (1000, 500) and 'causal' in model.config.name
    rng = np.random.default_rng(0)
    settings = StreamSettings(steps=None, check_anchors=False, min_coverage=0.0, min_confidence=0.0, min_agreement=0.01)
    wrist = VirtualWrist(model, settings)
    sets = [AnchorSet(i, ('a', 'b'), rng.integers(0, 256, (2, 56, 56, 3), np.uint8)) for i in range(3)]
    assert len([frame for s in sets for frame in wrist.push(s)]) == 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'causal').glob('*/model.safetensors')}
    assert len(before) == 2
    train_causal(clips, [], tmp_path / 'causal', replace(run, model=str(teacher)))
    assert before == {path: path.stat().st_mtime_ns for path in before}, 'finished parts are kept'
    with pytest.raises(UserError, match='few-step student itself'):
        train_causal(clips, [], tmp_path / 'again', replace(run, model=str(tmp_path / 'causal/model')))


def write_recording(folder, frames, seed=0):
    """An episode of noise with two anchors and a wrist camera."""
    rng = np.random.default_rng(seed)

    def camera(name, role, size):
        K = np.tile(np.array([[size, 0, size / 2 - 0.5], [0, size, size / 2 - 0.5], [0, 0, 1.0]]), (frames, 1, 1))
        images = rng.integers(0, 256, (frames, size, size, 3), dtype=np.uint8)
        depth = np.full((frames, size, size), 0.5, np.float32)
        return CameraTrack(name, role, images, K, np.tile(np.eye(4), (frames, 1, 1)), depth)

    cameras = [camera('left', 'anchor', 56), camera('right', 'anchor', 56), camera('wrist', 'wrist', 32)]
    write_episode(
        folder, task='none', seed=seed, fps=10, success=True, stamps_ns=np.arange(frames) * 10**8, cameras=cameras
    )


@pytest.mark.parametrize('adapt', ['full', 'lora'])
def test_a_student_of_recordings_learns_on_latents_that_are_encoded_once(directory, tmp_path, adapt):
    if adapt == 'lora':
        pytest.importorskip('peft')
    write_recording(tmp_path / 'episodes/000000', 5)
    data = GenerationData(width=32, height=32, frames=4, clips=2, condition='reconstruction')
    run = CausalTraining(
        directory, Stage2Sampling(batch=1), replace(FEW, optimizer='adamw', learning_rate=0.01, warm_up=0, samples_every=2),
        timesteps=(1000.0, 500.0), substeps=1, workers=0, adapters=GenerationModel(adapt=adapt, rank=2), gradient_checkpointing=True,
    )  # fmt: skip
    out = tmp_path / 'out'
    train_causal_on_latents(tmp_path / 'episodes', tmp_path / 'episodes', out, data, run, 'cpu')
    (shard,) = (out / 'latents').glob('*.safetensors')
    assert (out / 'distilled/samples/00000002.png').exists()
    model, before = load_model(str(out / 'model'), 'cpu'), load_model(directory, 'cpu')
    assert model.generator.settings.renoise.timesteps == (1000, 500)
    moved = {n for n, p in before.generator.named_parameters() if not torch.equal(p, model.generator.get_parameter(n))}
    assert any('attn1.to_q' in name for name in moved) and not any('anchor_encoder' in name for name in moved)
    assert any('norm_q' in name for name in moved) == (adapt == 'full'), 'adapters leave norms alone'
    written = shard.stat().st_mtime_ns
    train_causal_on_latents(tmp_path / 'episodes', None, out, data, run, 'cpu')
    assert shard.stat().st_mtime_ns == written


def test_one_command_makes_a_student_by_its_configuration(directory, tmp_path, capsys):
    write_recording(tmp_path / 'episodes/000000', 5)
    content = {
        'stage': 'causal', 'recipe': 'published', 'model': {'network': 'miniature'},
        'data': {'width': 32, 'height': 32, 'frames': 4, 'clips': 1},
        'forcing': {'steps': 1}, 'distillation': {'steps': 2, 'timesteps': [1000, 600], 'substeps': 1},
        'schedule': {'batch': 1, 'workers': 0, 'precision': 'float32'},
    }  # fmt: skip
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(content))
    paths = {name: str(tmp_path / name) for name in ('episodes', 'mine.yaml', 'out')}
    command = (
        f'train causal {paths["episodes"]} --config {paths["mine.yaml"]} --out {paths["out"]} --device cpu'.split()
    )
    assert cli.main(command) == 2 and 'need --model' in capsys.readouterr().err
    assert cli.main([*command, '--model', directory]) == 0
    made = load_model(str(tmp_path / 'out/model'), 'cpu').generator.settings
    assert made.renoise.timesteps == (1000, 600) and made.sampling_steps == 2
    for part, steps in (('forcing', 1), ('distilled', 2)):
        assert json.loads((tmp_path / 'out' / part / 'optimization.json').read_text())['steps'] == steps


def test_clips_that_are_no_whole_chunks_of_the_model_are_told_before_anything_is_encoded(directory, tmp_path):
    write_recording(tmp_path / 'episodes/000000', 5)
    data = GenerationData(width=32, height=32, frames=5)
    with pytest.raises(UserError, match=r'data\.frames is 5, and a chunk of the model has 2 .*give 4, or 2 more'):
        train_causal_on_latents(tmp_path / 'episodes', None, tmp_path / 'out', data, CausalTraining(directory), 'cpu')
    with pytest.raises(UserError, match=r'data\.frames is 34, and the model takes 32'):
        train_causal_on_latents(
            tmp_path / 'episodes', None, tmp_path / 'out', replace(data, frames=34), CausalTraining(directory), 'cpu'
        )
    data = replace(data, frames=4, condition='anchor')
    with pytest.raises(UserError, match=r'data\.condition is anchor, and .* takes more planes'):
        train_causal_on_latents(tmp_path / 'episodes', None, tmp_path / 'out', data, CausalTraining(directory), 'cpu')
    assert not (tmp_path / 'out').exists()


def test_condition_maps_come_from_the_models_own_stage_1(directory, tmp_path):
    write_recording(tmp_path / 'episodes/000000', 3)
    run = CausalTraining(directory)
    (made,) = prepare_for(run, tmp_path / 'episodes', tmp_path / 'maps', None, 1)
    with np.load(made) as f:
        assert f['condition'].shape == (run.maps, 3, 32, 32, 3) and f['anchors'].shape[-3:] == (32, 32, 3)
    assert prepare_for(run, tmp_path / 'episodes', tmp_path / 'maps', None, 1) == [made]
