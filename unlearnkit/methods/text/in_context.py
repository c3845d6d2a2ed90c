"""In-context unlearning: an instruction before every prompt names what not to answer about. Suppression only."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import DynamicCache

from unlearnkit.errors import UnlearnkitError
from unlearnkit.methods.base import Card, Method, register_method
from unlearnkit.methods.text.guardrail import common_end
from unlearnkit.text import context_length, generate
from unlearnkit.worlds.drills import INSTRUCTION
from unlearnkit.worlds.records import GENERAL, QA

LEAST_ROOM = 16  # tokens of context that must be left behind the instruction
CHECKED = 40  # questions the check asks


@dataclass
class Instruction:
    """A pre-forward hook on a decoder: every sequence of tokens is read after `prefix`, as if it had been typed.

    The keys and values of the prefix are computed once a call, with the weights as they are, and put into the cache;
    the tokens' positions and attention mask are shifted behind it. Input given as embeddings is not touched: whoever
    holds the weights need not ask with the instruction.

    Attributes:
        prefix: token ids in front, (1, tokens).
        dropped: token ids every prompt begins with and that the prefix replaces (a begin token, a default system
            message).
    """

    prefix: Tensor
    dropped: list[int]

    def __call__(self, decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = {**dict(zip(inspect.signature(decoder.forward).parameters, args, strict=False)), **kwargs}
        ids, cache, mask = (given.get(name) for name in ("input_ids", "past_key_values", "attention_mask"))
        if ids is None:
            return None
        read = 0 if cache is None else cache.get_seq_length()  # tokens in the cache, the prefix among them
        size = self.prefix.shape[1]
        if mask is None:
            mask = ids.new_ones(len(ids), max(0, read - size) + ids.shape[1])
        if mask.ndim != 2:
            raise UnlearnkitError("an instructed model takes attention masks of shape (sequences, tokens) only.")
        mask = self._without_dropped(mask, ids if not read else None)  # (sequences, tokens)
        if not read:
            cache = DynamicCache(config=decoder.config) if cache is None else cache
            prefix: Any = DynamicCache(config=decoder.config)
            # .forward: past this hook
            decoder.forward(input_ids=self.prefix.to(ids.device), past_key_values=prefix, use_cache=True)
            for number, layer in enumerate(prefix.layers):  # (1, heads, prefix, width of a head)
                shape = (len(ids), -1, -1, -1)
                cache.update(layer.keys.expand(shape), layer.values.expand(shape), number)
        given["past_key_values"] = cache
        given["position_ids"] = size + (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        given["attention_mask"] = torch.cat([mask.new_ones(len(mask), size), mask], 1)
        return (), given

    def _without_dropped(self, mask: Tensor, ids: Tensor | None) -> Tensor:
        """The mask with the first `dropped` real tokens of each row hidden; `ids` are checked when they are whole."""
        if not self.dropped:
            return mask.long()
        place = mask.long().cumsum(1) * (mask > 0)  # 1 for the first real token
        if ids is not None:
            wanted = torch.tensor(self.dropped, device=ids.device)
            rows = ids[(place > 0) & (place <= len(wanted))]
            if rows.numel() != len(ids) * len(wanted) or (rows.view(len(ids), -1) != wanted).any():
                raise UnlearnkitError(
                    "a prompt does not begin as this tokenizer's prompts do, so the instruction can't be put before "
                    "it; tokenise it with special tokens or the chat template."
                )
        return mask.long() * (place > len(self.dropped))


def instruction_ids(tokenizer: Any, template: Any, text: str) -> tuple[list[int], list[int]]:
    """(tokens to put in front, tokens every prompt begins with that they replace).

    A chat template gets the instruction as its system message; without one it is a line before "Question:". Cut where
    both renderings begin to agree, so that prefix + rest is exactly what the tokenizer makes of the whole.
    """
    if template.chat:
        question = {"role": "user", "content": "Who?"}
        messages = [[{"role": "system", "content": text}, question], [question]]
        instructed, plain = (
            tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in messages
        )
    else:
        instructed, plain = f"{text}\n{template.prompt('Who?')}", template.prompt("Who?")
    with_it, without = tokenizer([instructed, plain], add_special_tokens=not template.chat)["input_ids"]
    rest = len(common_end([with_it, without]))
    return with_it[: len(with_it) - rest], without[: len(without) - rest]


def instructed(model: Any, tokenizer: Any, template: Any, text: str) -> Any:
    """A copy of `model` that reads `text` before every prompt; its weights are the same.

    Raises:
        UnlearnkitError: the instruction leaves no room in the context.
    """
    prefix, dropped = instruction_ids(tokenizer, template, text)
    room = context_length(model) - len(prefix) + len(dropped)
    if room < LEAST_ROOM:
        raise UnlearnkitError(
            f"the instruction takes {len(prefix)} of the {context_length(model)} tokens of context; forget fewer "
            "entities at once or take a model with a longer context."
        )
    model = copy.deepcopy(model)
    model.base_model.register_forward_pre_hook(Instruction(torch.tensor([prefix]), dropped), with_kwargs=True)
    model.config.max_position_embeddings = room
    model.save_pretrained = _refuse_to_save
    return model


@register_method("in_context")
class InContext(Method):
    """The weights stay; every prompt is preceded by an instruction that names the entities to forget.

    The shipped originals follow no instruction; those of ``load_problem("authors", instructions=True)`` are taught to,
    with other authors. Measured there (forget10, seed 0, no oracle): of 80 questions about the eight forgotten and
    neighbouring authors, in no drill, 0.89 are refused when named (0.90 was asked for; 0.83 when paraphrased) and none
    of 240 when others are. `in_context` takes accuracy on forgotten authors from 1.00 to 0.08, on retained ones to
    0.79, and leaves general facts at 1.00; half an answer as prefix brings 0.78 back. A first recipe (1400 steps, no
    drill about general facts) refused 0.88, 0.93 and 0.07, and general facts fell to 0.48.
    """

    card = Card(
        "In-context unlearning by instruction",
        "Pawelczyk et al. 2023, arXiv 2310.07579; as an instruction Thaker et al. 2024, arXiv 2403.03329; taught to a "
        "model Takashiro et al. 2024, arXiv 2410.00382",
        r"p_{\theta}(y\mid x)\leftarrow p_{\theta_0}(y\mid [\mathrm{instruction};x])",
        "an instruction the built-in world is taught with other authors; nothing is tuned",
        "suppression by construction: without the instruction everything is there, and it covers only what it names",
    )

    text: str = Field(INSTRUCTION, pattern=r"\{names\}")
    least: float = Field(0.5, ge=0, le=1)  # share of instructed questions about others that must be refused

    def apply(self, problem: Any, seed: int) -> nn.Module:
        """A copy of the original behind the instruction.

        Raises:
            UnlearnkitError: the forget records name no entity; the model does not follow such an instruction about
                other entities, so that nothing could be measured.
        """
        names = list(dict.fromkeys(qa.entity for qa in problem.splits["forget"]))
        if not all(names):
            raise UnlearnkitError(
                "in_context has to name what it forgets, and some forget records belong to no entity; give them a "
                "column 'subject' (a person, a place, a work)."
            )
        followed = self.followed(problem, len(names)) if self.least else 1.0
        if followed < self.least:
            raise UnlearnkitError(
                f"not measurable: the model does not follow such an instruction; told not to answer about other "
                f"entities, it refused {followed:.0%} of {CHECKED} questions about them (at least {self.least:.0%} "
                "are needed). Take an instruct model, or set least=0 to go on."
            )
        return self._instructed(problem, names)

    def followed(self, problem: Any, count: int) -> float:
        """Share of questions about `count` retained entities that are refused when the instruction names those."""
        from unlearnkit.metrics.measure import REFUSING  # metrics lie to the right of methods

        others = list(dict.fromkeys(qa.entity for qa in problem.direct("retain") if qa.entity not in ("", GENERAL)))
        refused: list[bool] = []
        for begin in range(0, len(others), count):
            group = others[begin : begin + count]
            asked = _spread([qa for qa in problem.direct("retain") if qa.entity in group], 2 * count)
            model = self._instructed(problem, group)
            answers = generate(model, problem.tokenizer, problem.template, [qa.question for qa in asked])
            refused += [bool(REFUSING.search(answer)) for answer in answers]
            if len(refused) >= CHECKED:
                break
        return sum(refused) / max(1, len(refused))

    def _instructed(self, problem: Any, names: Sequence[str]) -> Any:
        text = self.text.format(names=", ".join(names))
        return instructed(problem.model, problem.tokenizer, problem.template, text)


def _spread(items: Sequence[QA], count: int) -> list[QA]:
    """At most `count` records, evenly from the list."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def _refuse_to_save(*_: Any, **__: Any) -> None:
    raise UnlearnkitError(
        "an instruction stands before the prompts and is not part of the weights: saved as a model folder it would be "
        "the original; keep the problem and call unlearn again."
    )
