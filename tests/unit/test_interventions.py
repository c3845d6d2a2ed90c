"""Interventions: the limits give the plain samples, complements agree, attention maps share out 1 at every place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from unlearnkit.errors import UnlearnkitError
from unlearnkit.models.attention import attention_maps
from unlearnkit.models.builtin_image import all_prompts
from unlearnkit.models.diffusion import STEPS, Conditioning, Diffusion, sample
from unlearnkit.models.image_recipe import ImageRecipe, new_pipeline, train_prompt_tokenizer
from unlearnkit.models.interventions import attention_blocks, hearing, token_groups, told, transplant
from unlearnkit.worlds.canvas import CONCEPTS

ASKED, INSTEAD, SEEDS = ["a striped circle", "a picture of a striped star"], ["a plain circle", "a dotted star"], [3, 4]


@pytest.fixture(scope="module")
def model() -> Iterator[Diffusion]:
    """An untrained pipeline whose text matters."""
    recipe = ImageRecipe(data="", codec="", prompts="", channels=(8, 16), text_width=16, text_layers=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8), num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1), latent_channels=8,
        )  # fmt: skip
        found = Diffusion(new_pipeline(recipe, codec, train_prompt_tokenizer(all_prompts(CONCEPTS)))).eval()
        with torch.no_grad():
            for name, p in found.named_parameters():
                if ".attn2.to_v" in name or "token_embedding" in name:
                    p.mul_(8)
    found.requires_grad_(False)
    yield found


@pytest.fixture(scope="module")
def both(model: Diffusion) -> tuple[Conditioning, Conditioning]:
    return model.embed(ASKED), model.embed(INSTEAD)


@pytest.fixture(scope="module")
def plain(model: Diffusion, both: tuple[Conditioning, Conditioning]) -> tuple[np.ndarray, np.ndarray]:
    """The samples of either prompt alone."""
    here, elsewhere = (sample(model, text, SEEDS) for text in both)
    assert (here != elsewhere).any((1, 2, 3)).all()  # else nothing below would be a test
    return here, elsewhere


def groups(model: Diffusion) -> dict[str, torch.Tensor]:
    return token_groups(model.pipe.tokenizer, ASKED, "striped")


def test_token_groups_by_hand(model: Diffusion) -> None:
    # <start> a striped circle <end> …, and <start> a picture of a striped star <end> …, of 16 tokens
    found = {name: [m.nonzero().flatten().tolist() for m in mask] for name, mask in groups(model).items()}
    assert found["its own word"] == [[2], [5]]
    assert found["words after it"] == [[3], [6]]
    assert found["end token"] == [[4], [7]]
    assert found["padding"] == [list(range(5, 16)), list(range(8, 16))]
    with pytest.raises(UnlearnkitError, match="'dotted' don't stand in the prompt 'a striped circle'"):
        token_groups(model.pipe.tokenizer, ASKED, "dotted")


def test_told_everywhere_is_the_one_prompt_and_told_nowhere_the_other(
    model: Diffusion, both: tuple[Conditioning, Conditioning], plain: tuple[np.ndarray, np.ndarray]
) -> None:
    every = torch.ones(2, 16, dtype=torch.bool)
    names = tuple(attention_blocks(model.unet).values())
    for place in ({"tokens": every}, {"blocks": names}, {"blocks": ""}, {"steps": (0, STEPS)}):
        np.testing.assert_array_equal(told(model, *both, SEEDS, **place), plain[0])
    for place in ({"tokens": ~every}, {"steps": (4, 4)}):
        np.testing.assert_array_equal(told(model, *both, SEEDS, **place), plain[1])


def test_told_here_is_the_other_told_everywhere_else(model: Diffusion, both: tuple[Conditioning, Conditioning]) -> None:
    first, *others = attention_blocks(model.unet).values()
    end = groups(model)["end token"]
    for one, other in (
        ({"tokens": end}, {"tokens": ~end}),
        ({"blocks": first}, {"blocks": tuple(others)}),
        ({"steps": (0, 7)}, {"steps": (7, STEPS)}),
    ):
        here = told(model, *both, SEEDS, **one)
        np.testing.assert_array_equal(here, told(model, both[1], both[0], SEEDS, **other))
        assert (here != sample(model, both[0], SEEDS)).any() and (here != sample(model, both[1], SEEDS)).any()


def test_nothing_is_left_behind(model: Diffusion, both: tuple[Conditioning, Conditioning]) -> None:
    before = sample(model, both[1], SEEDS)
    with pytest.raises(RuntimeError, match="stop"), hearing(model, "mid_block", both[0]):
        raise RuntimeError("stop")
    np.testing.assert_array_equal(sample(model, both[1], SEEDS), before)


def test_what_can_not_be_told(model: Diffusion, both: tuple[Conditioning, Conditioning]) -> None:
    with pytest.raises(UnlearnkitError, match="one of them"):
        told(model, *both, SEEDS)
    with pytest.raises(UnlearnkitError, match="one of them"):
        told(model, *both, SEEDS, blocks="up", steps=(0, 1))
    with pytest.raises(UnlearnkitError, match="begins with 'sideways'.*down_blocks.0, down_blocks.1, mid_block"):
        told(model, *both, SEEDS, blocks="sideways")
    with pytest.raises(UnlearnkitError, match="give up to 128"):
        told(model, *both, range(200), steps=(0, 1))


def test_transplant_moves_what_is_wanted_and_nothing_else(model: Diffusion) -> None:
    donor = transplant(model, model, lambda name: False)
    with torch.no_grad():
        for p in donor.parameters():
            p.add_(1)
    mixed = transplant(model, donor, lambda name: ".attn2." in name)
    before, theirs = dict(model.named_parameters()), dict(donor.named_parameters())
    moved = [n for n, p in mixed.named_parameters() if torch.equal(p, theirs[n])]
    assert moved == [n for n in before if ".attn2." in n]
    assert all(torch.equal(p, before[n]) for n, p in mixed.named_parameters() if n not in moved)


def test_attention_is_shared_out_at_every_place(model: Diffusion) -> None:
    pictures, maps = attention_maps(model, ASKED[0], SEEDS)
    assert maps.shape == (2, 16, 32, 32)
    torch.testing.assert_close(maps.sum(1), torch.ones(2, 32, 32), atol=1e-4, rtol=0)
    np.testing.assert_array_equal(pictures, sample(model, [ASKED[0]] * 2, SEEDS))
