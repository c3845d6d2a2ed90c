"""Every objective of every image method on a linear denoiser: its value in plain numpy, its gradient by differences.

A gradient method that is registered without a formula here fails `test_every_method_has_a_closed_form`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from toy_denoiser import (
    ANCHOR,
    BETAS,
    FORGET,
    RETAIN,
    Hand,
    Pipe,
    T,
    batch,
    gradient,
    move,
    mse,
    states,
    toy,
)

import unlearnkit as uk
from unlearnkit.data import ImageBatch, ImageData, denoising_loss
from unlearnkit.masks import MASKS
from unlearnkit.methods import METHODS, StepBatch
from unlearnkit.methods.fisher import fisher_diagonal
from unlearnkit.methods.image import (
    Negative,
    SafeLatent,
    adversary,
    attention_norm,
    capped_ascent,
    elastic,
    esd_target,
    multiplier,
    trajectory_bank,
    uce_weight,
)
from unlearnkit.methods.image.sld import STRENGTHS
from unlearnkit.methods.image.uce import aligned_states
from unlearnkit.methods.ssd import dampened
from unlearnkit.models.attention import position_mask, recorded_attention, word_positions
from unlearnkit.models.diffusion import ClassifierFree, Conditioning, Diffusion
from unlearnkit.models.image_recipe import ImageRecipe, new_pipeline, train_prompt_tokenizer
from unlearnkit.worlds.canvas import CONCEPTS

VIEWS = {"forget": (FORGET, ANCHOR), "retain": (RETAIN, []), "anchor": (FORGET, ANCHOR)}
SEEDS = {"forget": 1, "retain": 2, "anchor": 3}
PREDICTIONS = ("epsilon", "v_prediction")


def data_of(model: Diffusion, views: tuple[str, ...]) -> ImageData:
    """What `ImageProblem.training_data` gives, of a problem that is nothing but the pictures of `batch`."""
    problem = SimpleNamespace(
        word="striped",
        anchor="plain",
        asked={"forget": FORGET, "retain": RETAIN},
        latents=lambda view: batch(VIEWS[view][0], SEEDS[view]).latents,
        prompts_of=lambda view: VIEWS[view],
    )
    return ImageData(problem, model, views, torch.device("cpu"), 2, torch.Generator().manual_seed(0))


def prepared(name: str, prediction: str, **settings: Any) -> tuple[Any, Diffusion, Hand, Hand, StepBatch]:
    """A method, the model at θ, θ and θ₀ by hand, and a step's batch with what was prepared at θ₀."""
    torch.manual_seed(0)
    method = METHODS["image"][name](**settings)
    model = toy(prediction)
    trained = {n for n in method.trainable(model) if method.trained != "full" or "idle" not in n}
    for n, p in model.named_parameters():
        p.requires_grad_(n in trained)
    before = Hand.of(model)
    reference = method.prepare(model, data_of(model, method.views_needed()))
    move(model)
    views = {v: batch(prompts, 10 + SEEDS[v], anchors or None) for v, (prompts, anchors) in VIEWS.items()}
    return method, model, Hand.of(model), before, StepBatch(views, reference)


# --- the formulas ----------------------------------------------------------------------------------------------------
# Each: (θ as it moves, θ as it stood, θ₀, method, batch) → (forget loss, retain loss), None where there is none.

Formula = Callable[[Hand, Hand, Hand, Any, StepBatch], tuple[float | None, float | None]]


def retain_finetune(now: Hand, frozen: Hand, before: Hand, m: Any, b: StepBatch) -> tuple[float | None, float | None]:
    return None, now.loss(b.retain)


def grad_ascent(now: Hand, frozen: Hand, before: Hand, m: Any, b: StepBatch) -> tuple[float | None, float | None]:
    each = ((now.at(b.forget) - now.target(b.forget)) ** 2).mean((1, 2, 3))
    return -float(np.minimum(each, m.cap).mean()), now.loss(b.retain) if m.alpha else None


def esd(now: Hand, frozen: Hand, before: Hand, m: Any, b: StepBatch) -> tuple[float | None, float | None]:
    """The states of the bank that the seed draws; the bank itself is checked below."""
    bank, count = b.reference
    torch.manual_seed(11)
    rows = torch.randint(len(bank), (count,)).numpy()
    x, t = bank.x[rows].double().numpy(), bank.t[rows].numpy()
    words = states([FORGET[k] for k in bank.which[rows]])
    null, concept = before.predict(x, t, states([""] * count)), before.predict(x, t, words)
    wanted = null - m.eta * (concept - null)
    return mse(now.predict(x, t, words), wanted), now.loss(b.retain) if m.alpha else None


def concept_ablation(now: Hand, frozen: Hand, before: Hand, m: Any, b: StepBatch) -> tuple[float | None, float | None]:
    a = b.views["anchor"]
    wanted = frozen.at(a, ANCHOR) if m.variant == "model" else now.target(a)
    return mse(now.at(a), wanted), now.loss(b.retain)


def salun(now: Hand, frozen: Hand, before: Hand, m: Any, b: StepBatch) -> tuple[float | None, float | None]:
    return mse(now.at(b.forget), frozen.at(b.forget, ANCHOR)), now.loss(b.retain)


def selective_amnesia(now: Hand, frozen: Hand, before: Hand, m: Any, b: StepBatch) -> tuple[float | None, float | None]:
    """Fisher: the mean over batches of the squared slope of L at θ₀ on the retained pictures."""
    trained = [n.removeprefix("unet.") for n in b.reference["start"]]
    if "fisher" not in before.known:
        slopes = [gradient(lambda h, one=one: h.loss(one), copy.deepcopy(before)) for one in fisher_batches()]
        before.known["fisher"] = {n: np.mean([s[n] ** 2 for s in slopes], 0) for n in trained}
    fisher = before.known["fisher"]
    held = sum(float((fisher[n] * (now.p[n] - before.p[n]) ** 2).sum()) for n in trained)
    return now.loss(b.views["anchor"]), now.loss(b.retain) + m.elastic * held


def fisher_batches(count: int = 2, size: int = 2) -> list[ImageBatch]:
    """The batches `ImageData.losses` takes of the retained pictures, evenly, with noise of their own."""
    whole = batch(RETAIN, SEEDS["retain"])
    own = torch.Generator().manual_seed(0)
    rows = [i * len(RETAIN) // (count * size) for i in range(count * size)]  # 0, 0, 1, 2
    out = []
    for k in range(count):
        chosen = rows[k::count]
        x = whole.latents[chosen]
        noise, t = torch.randn(x.shape, generator=own), torch.randint(0, T, (len(x),), generator=own)
        out.append(ImageBatch(x, noise, t, whole.text, None, torch.tensor(chosen), [RETAIN[i] for i in chosen]))
    return out


def erasediff(now: Hand, frozen: Hand, before: Hand, m: Any, b: StepBatch) -> tuple[float | None, float | None]:
    torch.manual_seed(11)
    wanted = ((torch.rand_like(b.forget.noise) - 0.5) * 12**0.5).double().numpy()

    def forget(h: Hand) -> float:
        return mse(h.at(b.forget), wanted)

    if not frozen.known:
        inner, used = copy.deepcopy(frozen), m.fixed
        for _ in range(m.inner_steps):
            for n, slope in gradient(forget, inner).items():
                inner.p[n] -= m.inner_lr * slope
        if m.adaptive:
            sides = [gradient(f, copy.deepcopy(frozen)) for f in (lambda h: h.loss(b.retain), forget)]
            r, q = (np.concatenate([g.ravel() for g in side.values()]) for side in sides)
            used = max(m.eta - r @ q / np.sqrt((r @ r) * (q @ q)), 0)
        frozen.known.update(reachable=forget(inner), multiplier=used)
    return frozen.known["multiplier"] * (forget(now) - frozen.known["reachable"]), now.loss(b.retain)


def spm(now: Hand, frozen: Hand, before: Hand, m: Any, b: StepBatch) -> tuple[float | None, float | None]:
    """The states of both banks that the seed draws; banks are checked below."""
    bank, kept, count = b.reference
    torch.manual_seed(11)
    found = []
    for one, prompts in ((bank, FORGET), (kept, RETAIN)):
        if one is None:
            return found[0], None
        rows = torch.randint(len(one), (count,)).numpy()
        x, t = one.x[rows].double().numpy(), one.t[rows].numpy()
        words = states([prompts[k] for k in one.which[rows]])
        wanted = before.predict(x, t, words)
        if one is bank:
            null = before.predict(x, t, states([""] * count))
            wanted = null - m.eta * (wanted - null)
        found.append(mse(now.predict(x, t, words), wanted))
    return found[0], found[1]


FORMULAS: dict[str, Formula] = {
    "retain_finetune": retain_finetune,
    "grad_ascent": grad_ascent,
    "esd": esd,
    "concept_ablation": concept_ablation,
    "salun": salun,
    "selective_amnesia": selective_amnesia,
    "erasediff": erasediff,
    "spm": spm,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("retain_finetune", {}),
    ("grad_ascent", {}),
    ("grad_ascent", {"alpha": 0.5, "cap": 1.3}),  # one picture is beyond the cap
    ("esd", {"variant": "full", "eta": 1.0, "seeds": 2, "bank_steps": 5}),
    ("esd", {"variant": "x", "eta": 2.0, "alpha": 0.0, "seeds": 1, "bank_steps": 10}),
    ("esd", {"variant": "u", "seeds": 1, "bank_steps": 5}),
    ("concept_ablation", {"variant": "model"}),
    ("concept_ablation", {"variant": "noise", "trained": "full"}),
    ("salun", {}),
    ("selective_amnesia", {"elastic": 3.0, "fisher_batches": 2}),
    ("erasediff", {}),
    ("erasediff", {"adaptive": False, "inner_steps": 3, "inner_lr": 0.05}),
    ("spm", {"seeds": 2, "bank_steps": 5}),
    ("spm", {"eta": 2.0, "alpha": 0.0, "seeds": 1, "bank_steps": 10}),
]


def test_every_method_has_a_closed_form() -> None:
    gradient_methods = {n for n, c in METHODS["image"].items() if not hasattr(c, "apply")}
    assert gradient_methods == {*FORMULAS, "forget_me_not", "advunlearn"}  # these have tests of their own below
    assert {name for name, _ in CASES} == set(FORMULAS)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("name", "settings"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_objectives_equal_their_closed_form_and_their_gradients_the_differences(
    name: str, settings: dict[str, Any], prediction: str
) -> None:
    method, model, now, before, step = prepared(name, prediction, **settings)
    torch.manual_seed(11)
    mine = method.objectives(model, step)
    frozen = copy.deepcopy(now)
    trained = {n.removeprefix("unet."): p for n, p in model.named_parameters() if p.requires_grad}
    wanted = FORMULAS[name](now, frozen, before, method, step)
    for side, found, right in zip((0, 1), (mine.forget, mine.retain), wanted, strict=True):
        assert (found is None) == (right is None)
        if found is None:
            continue
        assert found.item() == pytest.approx(right, rel=1e-4, abs=1e-6)
        slopes = gradient(lambda h, side=side: FORMULAS[name](h, frozen, before, method, step)[side], now)
        got = torch.autograd.grad(found, list(trained.values()), retain_graph=True, allow_unused=True)
        for n, g in zip(trained, got, strict=True):
            found_ = np.zeros_like(slopes[n]) if g is None else g.numpy()
            np.testing.assert_allclose(found_, slopes[n], rtol=2e-3, atol=2e-5)
    assert any(np.abs(s).max() > 1e-3 for s in slopes.values())


# --- noise schedule and denoising loss -------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sampler", ["ddim", "pndm", "euler", "dpm++"])
def test_x_t_and_target_are_those_of_training_whatever_the_sampler(sampler: str, prediction: str) -> None:
    """Euler's add_noise is x + σ·noise, DPM++'s counts steps of its own: neither is what a denoiser was trained on."""
    kinds = {"pndm": PNDMScheduler, "euler": EulerDiscreteScheduler, "dpm++": DPMSolverMultistepScheduler}
    pipe = Pipe(prediction)
    if sampler in kinds:
        pipe.scheduler = kinds[sampler](**BETAS, prediction_type=prediction)
    model, hand, b = Diffusion(pipe), Hand.of(toy(prediction)), batch(RETAIN, 5)
    np.testing.assert_allclose(model.noisy(b.latents, b.noise, b.t), hand.noisy(b), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.target(b.latents, b.noise, b.t), hand.target(b), rtol=1e-5, atol=1e-6)
    assert denoising_loss(model, b).item() == pytest.approx(hand.loss(b), rel=1e-5)


def test_little_noise_is_not_lost_in_bfloat16() -> None:
    """1 − ᾱ₁ is 0.005 here, 0.0009 in Stable Diffusion: below a bfloat16's step near 1, so ᾱ must not be rounded."""
    model, b = toy(), batch(["a"] * 3, 6)
    b.t[:] = 0
    x = model.noisy(b.latents.bfloat16() * 0, b.noise.bfloat16(), b.t)
    assert x.dtype == torch.bfloat16
    _, spread = Hand.of(model).levels([0])
    torch.testing.assert_close(x.double(), b.noise.bfloat16().double() * float(spread.item()), rtol=0.01, atol=0)


# --- ESD -------------------------------------------------------------------------------------------------------------


def test_esd_target_by_hand_and_its_gradient() -> None:
    null, concept = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 0.0]).double()
    assert esd_target(null, concept, 1.0).tolist() == [-1.0, 4.0]
    assert esd_target(null, concept, 0.0).tolist() == [1.0, 2.0]
    # diffusers' guidance of −η points there: the negative of what a sampler would follow
    torch.testing.assert_close(esd_target(null, concept, 0.7), ClassifierFree().combine(null, concept, [], -0.7, 0))
    inputs = (null.requires_grad_(), concept.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: esd_target(a, b, 1.7), inputs)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_bank_holds_the_states_of_a_naive_partial_denoise_and_is_computed_once(
    prediction: str, guidance: float
) -> None:
    model, hand = toy(prediction), Hand.of(toy(prediction))
    model.unet.calls = 0
    steps, seeds, first = 5, 2, 1_000_000_000 + 10_000 * 4
    bank = trajectory_bank(model, FORGET, 1.5, seeds, steps, guidance, seed=4)
    assert len(bank) == len(FORGET) * seeds * steps and model.unet.calls == steps  # both predictions in one call
    times = [1 + T // steps * k for k in reversed(range(steps))]  # "leading", with an offset of 1
    assert sorted(set(bank.t.tolist())) == sorted(times)
    for p, prompt in enumerate(FORGET):
        for s in range(seeds):
            own = torch.Generator().manual_seed(first + seeds * p + s)
            x = torch.randn((1, 2, 2, 2), generator=own).double().numpy()
            for t in times:
                near = [k for k in range(len(bank)) if bank.which[k] == p and bank.t[k] == t]
                errors = [np.abs(bank.x[k].numpy() - x[0]).max() for k in near]
                k = near[int(np.argmin(errors))]
                np.testing.assert_allclose(bank.x[k], x[0], rtol=1e-3, atol=1e-4)
                null, concept = (hand.predict(x, [t], states([q])) for q in ("", prompt))
                np.testing.assert_allclose(bank.target[k], (null - 1.5 * (concept - null))[0], rtol=1e-3, atol=1e-4)
                x = hand.ddim(x, t, null + guidance * (concept - null), steps)


def test_a_step_of_esd_asks_the_trained_model_once_and_the_original_never() -> None:
    method, model, _, _, step = prepared("esd", "epsilon", seeds=1, bank_steps=5)
    bank = copy.deepcopy(step.reference[0])
    model.unet.calls = 0
    for _ in range(3):
        method.objectives(model, step).forget.backward()
    assert model.unet.calls == 3
    assert torch.equal(bank.target, step.reference[0].target) and torch.equal(bank.x, step.reference[0].x)


def test_another_seed_makes_another_bank_and_no_bank_starts_from_noise_that_metrics_use() -> None:
    from unlearnkit.metrics.measure_image import questions

    one, other = (trajectory_bank(toy(), FORGET, 1.0, 4, 2, 3.0, seed=s) for s in (0, 1))
    assert not torch.equal(one.x, other.x)
    problem = SimpleNamespace(asked={"forget": FORGET * 20, "retain": RETAIN * 90}, wanted={})
    problem.wanted = {k: [{}] * len(v) for k, v in problem.asked.items()}
    assert max(q.seed for q in questions(problem, 400)) < 1_000_000_000


# --- SPM and AdvUnlearn ----------------------------------------------------------------------------------------------


def test_preserved_prompts_are_held_at_what_the_original_said_about_as_often_as_the_concept_is_erased() -> None:
    method, model, _, before, step = prepared("spm", "v_prediction", seeds=4, bank_steps=3)
    bank, kept, _ = step.reference
    assert len(bank) == 2 * 4 * 3 and len(kept) == 3 * round(24 / 9) * 3
    for k in range(len(kept)):
        text = states([RETAIN[kept.which[k]]])
        wanted = before.predict(kept.x[k : k + 1].double().numpy(), kept.t[k : k + 1].numpy(), text)
        np.testing.assert_allclose(kept.target[k : k + 1], wanted, rtol=1e-3, atol=1e-4)


def test_the_adversary_steps_along_the_sign_of_its_gradient_by_hand() -> None:
    aim = torch.tensor([1.0, -1.0, 0.1])

    def distance(delta: Any) -> torch.Tensor:
        return ((delta[0] - aim) ** 2).sum() + (delta[1] - 4.8).square().sum()

    start = [torch.zeros(3), torch.full((1,), 4.0)]
    first, second = adversary(distance, start, [0.2, 0.5], 3)
    assert first.tolist() == pytest.approx([0.6, -0.6, 0.2]) and second.item() == pytest.approx(4.5)  # it overshoots
    assert all(torch.equal(a, b) for a, b in zip(adversary(distance, start, [0.2, 0.5], 0), start, strict=True))


@pytest.mark.parametrize("steps", [0, 3])
def test_advunlearn_equals_its_closed_form_on_a_real_text_encoder(steps: int) -> None:
    """δ is added to the embedding table instead, a prompt at a time, and the encoder is called by itself."""
    model = tiny_pipeline()
    forget, retain = ["a striped circle", "a striped star"], ["a dotted circle", "a plain ring"]
    problem = SimpleNamespace(asked={"forget": forget, "retain": retain})
    data = SimpleNamespace(problem=problem, generator=torch.Generator().manual_seed(0), batch_size=3)
    method = METHODS["image"]["advunlearn"](attack_steps=steps, attack_lr=0.4, seeds=1, bank_steps=4)
    fixed = method.prepare(model, data)
    names = method.trainable(model)
    with torch.no_grad():  # θ₀ → θ
        draw = torch.Generator().manual_seed(1)
        for n in names:
            p = model.get_parameter(n)
            p += 0.2 * p.std() * torch.randn(p.shape, generator=draw) if p.numel() > 1 else 0
    torch.manual_seed(11)
    mine = method.objectives(model, StepBatch({}, fixed))

    torch.manual_seed(11)
    rows, other = (torch.randint(len(b), (3,)) for b in (fixed.bank, fixed.preserved))
    tokenizer, encoder = model.pipe.tokenizer, model.text_encoder
    (place,) = [n for n, p in encoder.named_parameters() if p is encoder.get_input_embeddings().weight]
    table = encoder.get_input_embeddings().weight

    def states_of(prompt: str, delta: torch.Tensor | None = None) -> torch.Tensor:
        ids = tokenizer(prompt, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        ids = ids["input_ids"]
        moved = table if delta is None else table.index_add(0, ids[0, 1:4], delta)  # three words, each once
        return torch.func.functional_call(encoder, {place: moved}, (ids,))[0]

    def told(deltas: list[torch.Tensor]) -> torch.Tensor:
        text = Conditioning(torch.cat([states_of(forget[k], deltas[k]) for k in fixed.bank.which[rows].tolist()]))
        return model(fixed.bank.x[rows], fixed.bank.t[rows], text)

    deltas = [torch.zeros(3, table.shape[1]) for _ in forget]
    size = 0.4 * float(table.detach().square().mean().sqrt())
    before = ((told(deltas) - fixed.concept[rows]) ** 2).mean().item()
    for _ in range(steps):
        free = [d.clone().requires_grad_() for d in deltas]
        slopes = torch.autograd.grad(((told(free) - fixed.concept[rows]) ** 2).mean(), free, allow_unused=True)
        deltas = [d if g is None else d - size * g.sign() for d, g in zip(deltas, slopes, strict=True)]
    right = ((told(deltas) - fixed.bank.target[rows]) ** 2).mean()
    after = ((told(deltas) - fixed.concept[rows]) ** 2).mean().item()
    assert after == before if not steps else after < before  # the adversary is nearer to the original's concept
    said = Conditioning(torch.cat([states_of(retain[k]) for k in fixed.preserved.which[other].tolist()]))
    stays = model(fixed.preserved.x[other], fixed.preserved.t[other], said)
    kept = ((stays - fixed.preserved.target[other]) ** 2).mean()
    assert mine.forget.item() == pytest.approx(right.item(), rel=1e-4)
    assert mine.retain.item() == pytest.approx(kept.item(), rel=1e-4)
    trained = [model.get_parameter(n) for n in names]
    for both in ((mine.forget, right), (mine.retain, kept)):
        got, wanted = (torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True) for loss in both)
        for g, w in zip(got, wanted, strict=True):
            assert (g is None) == (w is None)
            if g is not None:
                torch.testing.assert_close(g, w, rtol=2e-3, atol=1e-6)
    with torch.no_grad():  # the targets: what θ₀ said, of which the null prompt's part is the same for both
        model = tiny_pipeline()
        x, t = fixed.bank.x, fixed.bank.t
        null, concept = (
            model(x, t, model.embed(p)) for p in ([""] * len(x), [forget[k] for k in fixed.bank.which.tolist()])
        )
        torch.testing.assert_close(fixed.concept, concept, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fixed.bank.target, null - method.eta * (concept - null), rtol=1e-4, atol=1e-5)


# --- UCE -------------------------------------------------------------------------------------------------------------


def uce_case(seed: int = 0) -> tuple[torch.Tensor, ...]:
    draw = np.random.default_rng(seed)
    w0, c, p = draw.normal(size=(5, 6)), draw.normal(size=(2, 6)), draw.normal(size=(3, 6))
    values = draw.normal(size=(2, 5))
    return tuple(torch.from_numpy(a) for a in (w0, c, values, p))


@pytest.mark.parametrize(("lam", "erase", "preserve"), [(0.5, 1.0, 1.0), (0.1, 2.0, 0.3), (7.0, 0.5, 0.0)])
def test_uce_is_the_least_squares_solution(lam: float, erase: float, preserve: float) -> None:
    """min λ‖W − W₀‖² + s_eΣ‖Wc − v*‖² + s_pΣ‖Wc_p − W₀c_p‖², by numpy's QR-based solver on the stacked rows."""
    w0, c, v, p = uce_case()
    rows = np.concatenate([np.sqrt(lam) * np.eye(6), np.sqrt(erase) * c.numpy(), np.sqrt(preserve) * p.numpy()])
    sides = np.concatenate(
        [np.sqrt(lam) * w0.numpy().T, np.sqrt(erase) * v.numpy(), np.sqrt(preserve) * (p @ w0.T).numpy()]
    )
    wanted = np.linalg.lstsq(rows, sides, rcond=None)[0].T
    np.testing.assert_allclose(uce_weight(w0, c, v, p, lam, erase, preserve), wanted, rtol=1e-9, atol=1e-11)
    assert uce_weight(w0.float(), c, v, p, lam, erase, preserve).dtype == torch.float32


def test_limits_of_uce() -> None:
    w0, c, v, p = uce_case(1)
    torch.testing.assert_close(uce_weight(w0, c, v, p, 1e12, 1.0, 1.0), w0, rtol=1e-9, atol=1e-9)  # λ → ∞
    torch.testing.assert_close(uce_weight(w0, c, v, p, 0.5, 0.0, 1.0), w0)  # nothing to erase
    torch.testing.assert_close(uce_weight(w0, c, c @ w0.T, p, 0.5, 1.0, 1.0), w0)  # the anchor is the concept
    free = uce_weight(w0, c, v, p, 1e-9, 1.0, 1.0)  # λ → 0 with five states in six dimensions: all of them exactly
    torch.testing.assert_close(c @ free.T, v, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(p @ free.T, p @ w0.T, rtol=1e-6, atol=1e-7)
    held = uce_weight(w0, c, v, p, 0.5, 1.0, 1e9)  # s_p → ∞ keeps the preserved ones whatever is erased
    torch.testing.assert_close(p @ held.T, p @ w0.T, rtol=1e-6, atol=1e-6)
    assert float((c @ held.T - v).norm()) > 0.1


def test_a_singular_system_is_regularised_and_says_so() -> None:
    w0, c, v, p = uce_case(2)
    with pytest.warns(UserWarning, match=r"singular \(lam = 0 and 5 states for width 6\); regularised with lam = "):
        found = uce_weight(w0, c, v, p, 0.0, 1.0, 1.0)
    torch.testing.assert_close(c @ found.T, v, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(p @ found.T, p @ w0.T, rtol=1e-5, atol=1e-6)
    away = torch.linalg.svd(torch.cat([c, p]))[2][-1]  # the direction no state has: as it was
    torch.testing.assert_close(found @ away, w0 @ away, rtol=1e-5, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uce_weight(w0, c, v, p, 1e-6, 1.0, 1.0)  # ill-conditioned, not singular: nothing to say
    with pytest.raises(uk.UnlearnkitError, match="not finite"):
        uce_weight(w0, c * torch.nan, v, p, 0.5, 1.0, 1.0)


def tiny_pipeline(seed: int = 0) -> Diffusion:
    """A random pipeline with real cross-attention, text encoder and tokenizer."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(seed)
    words = CONCEPTS.domains
    texts = [CONCEPTS.prompt({"object": o, "style": s}) for o in words["object"] for s in words["style"]]
    codec = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3,
        num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3, latent_channels=8,
    )  # fmt: skip
    recipe = ImageRecipe(data="", codec="", prompts="", channels=(8, 16), text_width=16, text_layers=1)
    return Diffusion(new_pipeline(recipe, codec, train_prompt_tokenizer([*texts, "van gogh painter dog small"]))).eval()


def test_uce_edits_every_key_and_value_by_the_formula_and_nothing_else() -> None:
    model = tiny_pipeline()
    asked = {"forget": ["a striped circle", "a striped star"], "retain": ["a dotted circle", "a plain ring"]}
    problem = SimpleNamespace(
        word="striped", anchor="plain", asked=asked, replaced=lambda p: p.replace("striped", "plain"),
        original=SimpleNamespace(fresh=lambda: copy.deepcopy(model)),
    )  # fmt: skip
    edited = METHODS["image"]["uce"](lam=0.3, erase_scale=1.4, preserve_scale=0.6).apply(problem, 0)
    with torch.no_grad():
        states = {p: model.embed([p]).hidden[0] for side in (*asked.values(), ANCHOR) for p in side}
        c = torch.cat([states[p][2:] for p in asked["forget"]])  # from the concept's token on: <start> a striped …
        a = torch.cat([states[p.replace("striped", "plain")][2:] for p in asked["forget"]])
        kept = torch.cat([states[p] for p in asked["retain"]])
    after = dict(edited.named_parameters())
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, after[n])}
    wanted = {n for n, _ in model.named_parameters() if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    assert changed == wanted and len(wanted) >= 8
    for n in wanted:
        w0 = model.get_parameter(n).detach()
        right = uce_weight(w0, c, a @ w0.T, kept, 0.3, 1.4, 0.6)
        torch.testing.assert_close(after[n].detach(), right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("prompt", "anchor", "first"),
    [
        ("a striped circle", "a plain circle", (2, 2)),
        ("van gogh", "painter", (2, 1)),  # the last token of a name
        ("a circle van gogh", "a circle painter", (4, 3)),
        ("striped circle", "circle", (2, 1)),  # a word more
        ("a striped circle", "a circle", (3, 2)),
        ("circle striped", "circle", (2, 1)),  # the word more at the end
        ("circle", "small circle", (1, 2)),
    ],
)
def test_uce_aligns_concept_and_anchor_at_their_last_different_token(
    prompt: str, anchor: str, first: tuple[int, int]
) -> None:
    model = tiny_pipeline()
    states = model.embed([prompt, anchor]).hidden.detach()
    c, a = aligned_states(model, prompt, anchor)
    assert len(c) == len(a) == 16 - max(first)
    torch.testing.assert_close(c, states[0, first[0] : first[0] + len(c)])
    torch.testing.assert_close(a, states[1, first[1] : first[1] + len(a)])
    with pytest.raises(uk.UnlearnkitError, match="the same to the text encoder"):
        aligned_states(model, prompt, prompt.upper())


# --- pure functions --------------------------------------------------------------------------------------------------


def test_capped_ascent_by_hand_and_its_gradient() -> None:
    found = torch.tensor([[1.0, 1.0], [3.0, 0.0]]).double().view(2, 1, 1, 2).requires_grad_()
    wanted = torch.zeros_like(found)
    assert capped_ascent(found, wanted, 2.0).item() == -(1.0 + 2.0) / 2  # the losses are 1 and 4.5
    (slope,) = torch.autograd.grad(capped_ascent(found, wanted, 2.0), found)
    assert slope.flatten().tolist() == [-0.5, -0.5, 0.0, 0.0]  # beyond the cap nothing pushes
    assert torch.autograd.gradcheck(lambda x: capped_ascent(x, wanted, 9.0), (found,))


def test_the_elastic_term_by_hand_and_its_gradient() -> None:
    start, fisher = {"a": torch.tensor([1.0, 2.0]).double()}, {"a": torch.tensor([0.5, 4.0]).double()}
    now = torch.tensor([2.0, 1.5]).double().requires_grad_()
    assert elastic({"a": now}, start, fisher).item() == 0.5 * 1 + 4 * 0.25
    assert elastic({"a": start["a"]}, start, fisher).item() == 0
    assert torch.autograd.gradcheck(lambda x: elastic({"a": x}, start, fisher), (now,))


def test_erasediff_multiplier_by_hand() -> None:
    r, same, against = [torch.tensor([3.0, 4.0])], [torch.tensor([6.0, 8.0])], [torch.tensor([-3.0, -4.0])]
    assert multiplier(r, same, 0.1) == 0.0  # the retain step already serves the constraint
    assert multiplier(r, against, 0.1) == pytest.approx(1.1)
    assert multiplier(r, [torch.tensor([-4.0, 3.0])], 0.1) == pytest.approx(0.1)  # at right angles
    apart = multiplier([r[0][:1], r[0][1:]], [torch.tensor([4.0]), torch.tensor([0.0])], 1.0)
    assert apart == pytest.approx(1 - 0.6)


def test_dampening_by_hand() -> None:
    theta = torch.tensor([1.0, -2.0, 3.0, 4.0, 5.0])
    forget, every = torch.tensor([10.0, 10.0, 1.0, 0.0, 4.0]), torch.tensor([1.0, 0.1, 1.0, 0.0, 1.0])
    # F_f > 5·F_D for the first two only: × λF_D/F_f, never more than 1
    torch.testing.assert_close(dampened(theta, forget, every, 5.0, 1.0), torch.tensor([0.1, -0.02, 3.0, 4.0, 5.0]))
    torch.testing.assert_close(dampened(theta, forget, every, 5.0, 20.0), torch.tensor([1.0, -0.4, 3.0, 4.0, 5.0]))
    torch.testing.assert_close(dampened(theta, forget, every * 0, 5.0, 1.0), torch.tensor([0, 0, 0, 4.0, 0]))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_fisher_and_ssd_by_hand(prediction: str) -> None:
    model, hand = toy(prediction), Hand.of(toy(prediction))
    data = data_of(model, ())
    parameters = dict(model.named_parameters())
    found = fisher_diagonal(model, parameters, data, "retain", 2)
    slopes = [gradient(lambda h, one=one: h.loss(one), hand) for one in fisher_batches()]
    for n, f in found.items():
        right = np.mean([s[n.removeprefix("unet.")] ** 2 for s in slopes], 0)
        np.testing.assert_allclose(f.detach(), right, rtol=2e-3, atol=1e-7)
    assert not found["unet.idle"].any() and all(p.grad is None for p in parameters.values())

    problem = SimpleNamespace(
        original=SimpleNamespace(fresh=lambda: toy(prediction)),
        training_data=lambda method, fresh, loop, seed: data_of(fresh, method.views_needed()),
    )
    after = METHODS["image"]["ssd"](select=0.9, strength=0.5, batch_size=2, batches=2).apply(problem, 0)
    forget = fisher_diagonal(model, parameters, data, "forget", 2)
    moved = 0
    for n, p in after.named_parameters():
        right = np.where(
            forget[n] > 0.9 * found[n],
            parameters[n].detach() * np.minimum(0.5 * found[n] / np.maximum(forget[n], 1e-30), 1),
            parameters[n].detach(),
        )
        np.testing.assert_allclose(p.detach(), right, rtol=1e-5, atol=1e-7)
        moved += int((p != parameters[n]).sum())
    assert 0 < moved < sum(p.numel() for p in parameters.values())


# --- SalUn's mask ----------------------------------------------------------------------------------------------------


def test_saluns_mask_is_one_where_the_gradient_is_above_the_median() -> None:
    model = toy()
    data = data_of(model, ("retain",))  # a method that draws no forget pictures can have the mask as well
    parameters = {n: p for n, p in model.named_parameters() if "idle" not in n}
    mask = MASKS["salun"](model, parameters, data, 0.5, 0)
    hand = Hand.of(model)
    whole, own = batch(FORGET, SEEDS["forget"]), torch.Generator().manual_seed(0)
    total = {n: np.zeros_like(v) for n, v in hand.p.items()}
    for _ in range(8):  # 8 batches of 2 of 2 pictures: each is both, in order
        noise, t = torch.randn(whole.latents.shape, generator=own), torch.randint(0, T, (2,), generator=own)
        rows = torch.tensor([0, 1])
        one = ImageBatch(whole.latents, noise, t, whole.text, None, rows, FORGET)
        for n, g in gradient(lambda h, one=one: h.loss(one), hand).items():
            total[n] += g
    sizes = {n: np.abs(total[n.removeprefix("unet.")]) for n in parameters}
    median = np.median(np.concatenate([s.ravel() for s in sizes.values()]))
    for n, m in mask.items():
        np.testing.assert_array_equal(m.numpy(), sizes[n] >= median)
    assert sum(int(m.sum()) for m in mask.values()) == 6  # of twelve


# --- EraseDiff's inner steps -----------------------------------------------------------------------------------------


def test_inner_steps_leave_every_weight_as_it_was_and_have_no_gradient() -> None:
    slopes = []
    for inner in (0, 1, 4):
        method, model, _, _, step = prepared("erasediff", "epsilon", inner_steps=inner, inner_lr=0.3)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        torch.manual_seed(11)
        losses = method.objectives(model, step)
        assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
        assert (losses.log["constraint"] > 1e-4) == (inner > 0)  # L_f can be made smaller
        free = [p for p in model.parameters() if p.requires_grad]
        slopes.append(torch.autograd.grad(losses.forget, free, allow_unused=True))
    for other in slopes[1:]:  # L̄_f is a constant: to first order the update does not know of it
        for a, b in zip(slopes[0], other, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


# --- Forget-Me-Not ---------------------------------------------------------------------------------------------------


def attention_by_hand(model: Diffusion, x: torch.Tensor, t: torch.Tensor, text: Conditioning) -> dict[str, np.ndarray]:
    """softmax(QKᵀ/√d) of every cross-attention layer, in float64, from what its projections were given."""
    inputs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    hooks = []
    for name, layer in model.unet.named_modules():
        if name.endswith("attn2"):

            def keep(module: Any, args: Any, kwargs: Any, name: str = name) -> None:
                inputs[name] = (args[0].double().numpy(), kwargs["encoder_hidden_states"].double().numpy())

            hooks.append(layer.register_forward_pre_hook(keep, with_kwargs=True))
    with torch.no_grad():
        model(x, t, text)
    for hook in hooks:
        hook.remove()
    out = {}
    for name, (pixels, words) in inputs.items():
        layer = model.unet.get_submodule(name)
        q = pixels @ layer.to_q.weight.detach().double().numpy().T
        k = words @ layer.to_k.weight.detach().double().numpy().T
        q, k = (a.reshape(len(a), a.shape[1], layer.heads, -1).transpose(0, 2, 1, 3) for a in (q, k))
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        e = np.exp(scores - scores.max(-1, keepdims=True))
        out[name] = e / e.sum(-1, keepdims=True)
    return out


def asked_of(model: Diffusion, prompts: list[str]) -> ImageBatch:
    draw = torch.Generator().manual_seed(3)
    x, noise = (torch.randn((len(prompts), 8, 8, 8), generator=draw) for _ in range(2))
    t = torch.tensor([5, 400, 900])[: len(prompts)]
    with torch.no_grad():
        return ImageBatch(x, noise, t, model.embed(prompts), None, torch.arange(len(prompts)), prompts)


def test_recorded_attention_is_that_of_diffusers_and_changes_nothing() -> None:
    model = tiny_pipeline()
    b = asked_of(model, ["a striped circle", "circle striped"])
    before = {n: m.processor for n, m in model.unet.named_modules() if n.endswith("attn2")}
    assert before and all(isinstance(p, AttnProcessor2_0) for p in before.values())
    with torch.no_grad():
        plain = model(b.latents, b.t, b.text)  # through torch's own scaled_dot_product_attention
        with recorded_attention(model.unet) as kept:
            recorded = model(b.latents, b.t, b.text)
    torch.testing.assert_close(recorded, plain, rtol=1e-5, atol=1e-5)
    assert all(m.processor is before[n] for n, m in model.unet.named_modules() if n in before)
    wanted = attention_by_hand(model, b.latents, b.t, b.text)
    assert set(kept) == set(wanted) == set(before)
    for name, (found,) in kept.items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(RuntimeError, match="away"), recorded_attention(model.unet):
        raise RuntimeError("away")
    assert all(m.processor is before[n] for n, m in model.unet.named_modules() if n in before)


def test_the_mask_stands_at_the_concepts_tokens_only() -> None:
    tokenizer = tiny_pipeline().pipe.tokenizer
    assert word_positions(tokenizer, "a striped circle", "striped") == [2]
    assert word_positions(tokenizer, "a circle, Striped", "striped") == [4]  # the comma is a token
    assert word_positions(tokenizer, "a van gogh van", "van gogh") == [2, 3]
    assert word_positions(tokenizer, "striped star striped", "striped") == [1, 3]
    assert word_positions(tokenizer, "a dotted circle", "striped") == []
    mask = position_mask(tokenizer, ["a striped circle", "striped", "a plain star"], "striped", 16)
    assert mask.nonzero().tolist() == [[0, 2], [1, 1]]


def test_attention_norm_by_hand_and_its_gradient() -> None:
    # one image, one head, two pixels, three tokens; the concept is the last token of the first layer's two
    first = torch.tensor([[[[0.2, 0.0, 0.8], [0.4, 0.0, 0.6]]]]).double()
    second = torch.tensor([[[[0.5, 0.2, 0.3], [0.1, 0.5, 0.4]]]]).double()
    mask = torch.tensor([[0.0, 0.0, 1.0]]).double()
    wanted = (np.sqrt((0.64 + 0.36) / 2) + np.sqrt((0.09 + 0.16) / 2)) / 2
    assert attention_norm([first, second], mask).item() == pytest.approx(wanted)
    twice = [torch.cat([p, p]) for p in (first, second)]  # neither the batch nor the resolution counts
    assert attention_norm(twice, mask.repeat(2, 1)).item() == pytest.approx(wanted)
    assert attention_norm([p.repeat(1, 1, 4, 1) for p in (first, second)], mask).item() == pytest.approx(wanted)
    two = torch.tensor([[1.0, 0.0, 1.0]]).double()  # a concept of two tokens
    assert attention_norm([second], two).item() == pytest.approx(np.sqrt((0.25 + 0.09 + 0.01 + 0.16) / 2))
    scores = torch.randn((2, 2, 3, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    places = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]).double()
    assert torch.autograd.gradcheck(lambda s: attention_norm([s.softmax(-1)], places), (scores,))


def test_forget_me_not_equals_its_closed_form_on_real_attention() -> None:
    model = tiny_pipeline()
    method = METHODS["image"]["forget_me_not"]()
    prompts = ["a striped circle", "circle striped", "striped star"]
    forget, retain = asked_of(model, prompts), asked_of(model, ["a dotted star", "a plain ring"])
    data = SimpleNamespace(
        problem=SimpleNamespace(word="striped"), prompts={"forget": prompts}, states=forget.text,
        device=torch.device("cpu"),
    )  # fmt: skip
    reference = method.prepare(model, data)
    found = method.objectives(model, StepBatch({"forget": forget, "retain": retain}, reference))
    x = model.noisy(forget.latents, forget.noise, forget.t)
    places = [[2], [2], [1]]
    norms = []
    for a in attention_by_hand(model, x, forget.t, forget.text).values():
        at = [a[i][:, :, where] ** 2 for i, where in enumerate(places)]  # (heads, pixels, 1)
        norms.append(np.sqrt(np.mean([p.sum(-1) for p in at])))
    assert found.forget.item() == pytest.approx(np.mean(norms), rel=1e-5)
    assert found.retain.item() == pytest.approx(denoising_loss(model, retain).item(), rel=1e-6)

    found.forget.backward()
    steepest = max(
        ((n, p) for n, p in model.named_parameters() if p.grad is not None and ".attn2.to_k" in n),
        key=lambda item: float(item[1].grad.abs().max()),
    )[1]
    place = np.unravel_index(int(steepest.grad.abs().argmax()), steepest.shape)

    def loss(change: float) -> float:
        kept = steepest.data[place].clone()
        steepest.data[place] += change
        value = np.mean(
            [
                np.sqrt(np.mean([(a[i][:, :, where] ** 2).sum(-1) for i, where in enumerate(places)]))
                for a in attention_by_hand(model, x, forget.t, forget.text).values()
            ]
        )
        steepest.data[place] = kept
        return float(value)

    assert steepest.grad[place].item() == pytest.approx((loss(0.05) - loss(-0.05)) / 0.1, rel=0.03)
    with pytest.raises(uk.UnlearnkitError, match="the tokens of 'striped' don't stand in the prompt 'a long"):
        long = "a long " * 10 + "striped circle"
        data.prompts = {"forget": [prompts[0], long]}
        method.prepare(model, data)


# --- guidance rules --------------------------------------------------------------------------------------------------


def safe_latent_by_hand(
    path: list[tuple[np.ndarray, np.ndarray, np.ndarray]], guidance: float, strength: str
) -> list[np.ndarray]:
    """arXiv 2211.05105, equations 3 to 8, number by number over the steps of one sample."""
    warmup, s_s, lam, s_m, beta = {  # table 2
        "weak": (15, 200, 0.0, 0.0, 0.0),
        "medium": (10, 1000, 0.01, 0.3, 0.4),
        "strong": (7, 2000, 0.025, 0.5, 0.7),
        "max": (0, 5000, 1.0, 0.5, 0.7),
    }[strength]
    nu = np.zeros_like(path[0][0])
    out = []
    for step, (null, prompt, unsafe) in enumerate(path):
        followed = np.empty_like(null)
        for i in np.ndindex(null.shape):
            phi = s_s * (prompt[i] - unsafe[i])
            mu = min(1.0, abs(phi)) if prompt[i] - unsafe[i] < lam else 0.0  # eq. 6; the paper's max(1, ·) is a slip
            gamma = mu * (unsafe[i] - null[i]) + s_m * nu[i]  # eqs. 5 and 7
            nu[i] = beta * nu[i] + (1 - beta) * gamma  # eq. 8
            away = gamma if step >= warmup else 0.0  # momentum builds up during the warm-up
            followed[i] = null[i] + guidance * (prompt[i] - null[i] - away)  # eq. 3
        out.append(followed)
    return out


@pytest.mark.parametrize("strength", ["weak", "medium", "strong", "max"])
def test_safe_latent_diffusion_equals_the_papers_equations(strength: str) -> None:
    draw = np.random.default_rng(0)
    path = []
    for k in range(20):
        null = draw.normal(size=(2, 3))
        prompt = null + draw.normal(size=(2, 3)) * 0.02
        path.append((null, prompt, prompt + draw.normal(size=(2, 3)) * 10.0 ** -(k % 5)))  # μ between 0 and 1 as well
    rule = SafeLatent(("striped",), *STRENGTHS[strength])
    for _ in range(2):  # a new batch starts without momentum
        rule.begin()
        found = [
            rule.combine(*(torch.from_numpy(a) for a in (null, prompt)), [torch.from_numpy(unsafe)], 7.5, k)
            for k, (null, prompt, unsafe) in enumerate(path)
        ]
        for mine, right in zip(found, safe_latent_by_hand(path, 7.5, strength), strict=True):
            np.testing.assert_allclose(mine, right, rtol=1e-9, atol=1e-12)
    warmup = STRENGTHS[strength][0]
    plain = [ClassifierFree().combine(*(torch.from_numpy(a) for a in step[:2]), [], 7.5, 0) for step in path]
    same = [torch.equal(a, b) for a, b in zip(found, plain, strict=True)]
    assert all(same[:warmup]) and not any(same[warmup:])  # counted in steps


def test_guidance_by_hand() -> None:
    null, prompt, negative = (torch.tensor([v]) for v in (1.0, 3.0, 2.0))
    assert ClassifierFree().combine(null, prompt, [], 3.0, 0).item() == 1 + 3 * 2
    assert ClassifierFree().combine(null, prompt, [], 1.0, 0).item() == 3  # w = 1: no guidance
    s = 1.5  # papers that write (1 + s)ε_c − sε∅ mean w = 1 + s
    assert ClassifierFree().combine(null, prompt, [], 1 + s, 0).item() == (1 + s) * 3 - s * 1
    assert Negative(("striped",)).combine(null, prompt, [negative], 3.0, 0).item() == 2 + 3 * 1
