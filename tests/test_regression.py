"""Least squares of the estimates, against LAPACK and a closed form."""

import numpy as np
import pytest
import torch

from crossdiff_cli.imaging.regression import least_squares, solve_normal_equations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_lapack(dtype):
    generator = torch.Generator().manual_seed(3)
    columns = torch.rand(200, 4, generator=generator, dtype=dtype) * torch.tensor([1.0, 900.0, 2e4, 1e-3], dtype=dtype)
    targets = torch.rand(200, 2, generator=generator, dtype=dtype)
    wanted = np.linalg.lstsq(columns.double().numpy(), targets.double().numpy())[0]
    found = least_squares(columns, targets)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)


def test_columns_that_are_copies_share_their_weight():
    column = torch.arange(1.0, 9.0)[:, None]
    found = least_squares(torch.cat([column, column], dim=1), 6 * column)
    torch.testing.assert_close(found, torch.full((2, 1), 3.0), atol=1e-3, rtol=0)


def test_a_column_of_zeros_has_no_weight():
    found = solve_normal_equations(torch.tensor([[4.0, 0.0], [0.0, 0.0]]), torch.tensor([[8.0], [0.0]]))
    torch.testing.assert_close(found, torch.tensor([[2.0], [0.0]], dtype=torch.float64))
