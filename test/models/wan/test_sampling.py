"""The sampler's schedule, steps and noise."""

import pytest
import torch

from wristworld_ros.models.wan import WristGenerator, sampling


def test_schedules_are_the_published_ones():
    assert sampling.shifted_sigmas(4, 5.0).tolist() == pytest.approx([1, 0.9375, 0.83333333, 0.625])
    assert sampling.shifted_sigmas(2, 1.0).tolist() == [1, 0.5]
    assert sampling.shifted_sigmas(1, 5.0).tolist() == [1]
    with pytest.raises(ValueError, match='steps=0'):
        sampling.shifted_sigmas(0, 5.0)


def test_exact_velocity_leads_to_the_sample_in_any_number_of_steps():
    sample, noise = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    for steps in (1, 2, 4, 20):
        for solve in sampling.SOLVERS.values():
            found = solve(lambda x, sigma: noise - sample, noise, sampling.shifted_sigmas(steps, 3.0))
            assert torch.allclose(found, sample, atol=2e-5)


def mixture_velocity(x, sigma):
    """Exact velocity of the flow from unit Gaussian noise to a mixture of 3 Gaussians. x: [N, 2] float64."""
    means = torch.tensor([[-2.0, 0.5], [1.5, 1.5], [0.5, -2.0]]).to(x)
    spreads, shares = torch.tensor([0.2, 0.4, 0.3]).to(x), torch.tensor([0.5, 0.3, 0.2]).to(x)
    alpha = 1 - sigma
    variance = (alpha * spreads).square() + sigma.square()
    off = x[:, None] - alpha * means
    log = shares.log() - off.square().sum(-1) / (2 * variance) - variance.log()
    share = log.softmax(1)[..., None]
    # noise - sample, each by its expectation given x
    sample = means + (alpha * spreads.square() / variance)[None, :, None] * off
    noise = (sigma / variance)[None, :, None] * off
    return (share * (noise - sample)).sum(1)


@pytest.mark.parametrize(('shift', 'gain'), [(1.0, 4), (5.0, 1.2)])
def test_ten_steps_of_unipc_are_nearer_to_the_true_flow_than_ten_of_euler(shift, gain):
    """At shift 5 ten steps end with one from 0.36 to 0, which no solver's past can make good."""
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))

    def solved(solve, steps):
        return solve(mixture_velocity, noise, sampling.shifted_sigmas(steps, shift))

    truth = solved(sampling.euler_sample, 1000)
    euler, unipc = ((solved(solve, 10) - truth).norm(dim=1).mean() for solve in sampling.SOLVERS.values())
    assert unipc < euler / gain


@pytest.mark.parametrize('steps', [1, 2])
def test_one_or_two_steps_of_unipc_are_those_of_euler(steps):
    """Its first step has no past, and its last goes straight to the predicted sample."""
    noise = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    one, two = (
        solve(mixture_velocity, noise, sampling.shifted_sigmas(steps, 5.0)) for solve in sampling.SOLVERS.values()
    )
    assert torch.allclose(one, two, atol=1e-5)


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match='must be one of euler, unipc'):
        sampling.solver('heun')


def test_noisy_latents_take_one_level_a_sample_or_a_frame():
    sample, noise = torch.zeros(2, 1, 3, 1, 1), torch.ones(2, 1, 3, 1, 1)
    assert sampling.add_noise(sample, noise, torch.tensor([0.2, 0.7]))[:, 0, 2, 0, 0].tolist() == pytest.approx(
        [0.2, 0.7]
    )
    levels = torch.tensor([[0.1, 0.2, 0.3]] * 2)
    assert torch.allclose(sampling.add_noise(sample, noise, levels)[:, 0, :, 0, 0], levels)


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_shared_noise_keeps_unit_variance_and_its_share_over_calls(share):
    generator = torch.Generator().manual_seed(0)
    noise, base = sampling.shared_noise((1, 64, 2, 16, 16), share, generator=generator)
    more, same = sampling.shared_noise((1, 64, 2, 16, 16), share, base, generator)
    assert torch.equal(same, base)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert (noise[:, :, 0] * more[:, :, 1]).mean() == pytest.approx(share, abs=0.03)


def test_the_clean_guess_is_the_best_linear_one():
    sample, noise = 0.5 * torch.randn(1, 1, 3, 64, 64), torch.randn(1, 1, 3, 64, 64)
    sigma = torch.tensor([[0.0, 0.4, 1.0]])
    noisy = sampling.add_noise(sample, noise, sigma)
    guess = sampling.clean_guess(noisy, sigma)
    assert torch.equal(guess[:, :, 0], sample[:, :, 0]) and not guess[:, :, 2].any()
    error = (guess - sample)[:, :, 1].square().mean()
    for factor in (0.9, 1.1):
        assert error < (factor * guess - sample)[:, :, 1].square().mean()


@torch.no_grad()
def test_a_model_of_samples_needs_one_step_and_no_noise(small_config):
    torch.manual_seed(0)
    gen = WristGenerator.from_config(small_config)
    torch.nn.init.normal_(gen.decoder.last.weight)
    condition, context = torch.randn(1, gen.settings.condition_channels, 1, 4, 4), gen.context(None, None)
    one, two = (gen.sample(torch.randn(1, 192, 1, 4, 4), condition, context, steps=1) for _ in range(2))
    assert torch.allclose(one, two, atol=1e-4)


def test_renoising_predicts_the_sample_and_adds_new_noise_up_to_the_next_level():
    noise, fresh, seen = torch.randn(1, 2), torch.randn(2, 1, 2), []

    def velocity(x, sigma):
        """Of a model that predicts a tenth of what it sees."""
        seen.append((x, float(sigma)))
        return (x - 0.1 * x) / sigma

    found = sampling.renoise_sample(velocity, noise, torch.tensor([1.0, 0.75, 0.5]), fresh)
    first = 0.1 * noise
    second = 0.1 * (0.25 * first + 0.75 * fresh[0])
    wanted = 0.1 * (0.5 * second + 0.5 * fresh[1])
    assert torch.allclose(found, wanted, atol=1e-6)
    assert [sigma for _, sigma in seen] == [1.0, 0.75, 0.5] and torch.equal(seen[0][0], noise)
    with pytest.raises(ValueError, match='noise for 0 steps; give 2'):
        sampling.renoise_sample(velocity, noise, torch.tensor([1.0, 0.75, 0.5]))


def test_fewer_steps_than_a_student_has_are_spread_over_its_levels():
    levels = (1.0, 0.9375, 0.8333, 0.625)
    chosen = [sampling.chosen_levels(levels, steps).tolist() for steps in (1, 2, 3)]
    assert chosen == [pytest.approx(part) for part in ([1.0], [1.0, 0.8333], [1.0, 0.9375, 0.8333])]
    assert sampling.chosen_levels(levels).tolist() == pytest.approx(levels)
    with pytest.raises(ValueError, match=r'steps=5.*distilled to 4 step'):
        sampling.chosen_levels(levels, 5)


@pytest.mark.parametrize('timesteps', [[], [900, 500], [1000, 1000], [1000, 0], [1000, 500, 750]])
def test_a_list_that_does_not_fall_from_noise_is_refused(small_config, timesteps):
    with pytest.raises(ValueError, match='falling numbers'):
        WristGenerator.from_config(small_config | {'sampler': {'kind': 'renoise', 'timesteps': timesteps}})


def test_a_sampler_of_another_kind_is_refused(small_config):
    with pytest.raises(ValueError, match='sampler'):
        WristGenerator.from_config(small_config | {'sampler': {'kind': 'leap', 'timesteps': [1000]}})
