"""Solutions of notebook 04: shown folded there, executed by the tests against the same checks."""

import torch


def solution_04_1(x0, noise, kept):
    x_t = kept**0.5 * x0 + (1 - kept) ** 0.5 * noise
    return x_t, kept**0.5 * noise - (1 - kept) ** 0.5 * x0


def solution_04_2(w, eta):
    return -w * eta


def solution_04_3(w0, concepts, values, preserved, lam):
    left = lam * w0 + values.T @ concepts + w0 @ preserved.T @ preserved
    right = lam * torch.eye(w0.shape[1]) + concepts.T @ concepts + preserved.T @ preserved
    return torch.linalg.solve(right, left.T).T


def solution_04_4(pictures, erased):
    on = [p for p in pictures if p["asked"]["style"] == erased]
    off = [p for p in pictures if p["asked"]["style"] != erased]

    def share(hits):
        return sum(hits) / len(hits)

    ua = share([p["read"]["style"] != erased for p in on])
    ira = share([p["read"]["style"] == p["asked"]["style"] for p in off])
    cra = share([p["read"]["object"] == p["asked"]["object"] for p in pictures])
    return ua, ira, cra


def solution_04_5(null, prompt, unsafe, w, scale, threshold):
    mu = (scale * (prompt - unsafe)).abs().clamp(max=1)
    mu = torch.where(prompt - unsafe < threshold, mu, torch.zeros_like(mu))
    return null + w * (prompt - null - mu * (unsafe - null))
