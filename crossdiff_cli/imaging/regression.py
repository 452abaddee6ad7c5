"""Linear least squares by the normal equations, for all that is fitted to a scene."""

import torch
from torch import Tensor

__all__ = ["least_squares", "solve_normal_equations"]

_DAMPING = 1e-12
"""Share of the diagonal that is added to it: columns that are copies of each other share their weight."""


def least_squares(columns: Tensor, targets: Tensor) -> Tensor:
    """Return the x (c, k) of least |columns x - targets|, for columns (n, c) and targets (n, k), in the dtype of both.

    The sums are in float64.
    """
    exact = columns.double()
    return solve_normal_equations(exact.T @ exact, exact.T @ targets.double()).to(targets.dtype)


def solve_normal_equations(gram: Tensor, moments: Tensor) -> Tensor:
    """Return the x (c, k), float64, of gram x = moments, slightly damped, for gram (c, c) and moments (c, k)."""
    gram, moments = gram.double(), moments.double()
    damping = (_DAMPING * gram.diagonal() + 1e-30).diag()
    solution: Tensor = torch.linalg.solve(gram + damping, moments)
    return solution
