"""Solutions of notebook 02: shown folded there, executed by the tests against the same checks."""

import torch
import torch.nn.functional as F


def solution_02_1(nll, reference_nll, beta):
    return -2 / beta * F.logsigmoid(beta * (nll - reference_nll)).mean()


def solution_02_2(nll, reference_nll, beta):
    return 2 * torch.sigmoid(-beta * (nll - reference_nll))


def solution_02_3(reference_logits, logits):
    before = reference_logits.log_softmax(-1)
    return (before.exp() * (before - logits.log_softmax(-1))).sum(-1).mean()


def solution_02_4(logits, reference_logits, labels, beta):
    lowered = reference_logits - beta * F.one_hot(labels, logits.shape[-1])
    return -(lowered.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()


def solution_02_5(nll, lengths, level):
    return F.smooth_l1_loss(nll / lengths, torch.full_like(nll, level))
