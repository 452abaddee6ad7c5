import torch

from crossdiff_cli.imaging.masking import eroded, extend, extend_coarse


def holed(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 2, 64, 64, generator=generator)
    mask = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    mask[..., 20:30, 10:33] = False
    mask[..., :, 60:] = False
    return image, mask


def test_valid_pixels_are_untouched_and_masked_ones_never_read():
    image, mask = holed()
    for function in (extend, extend_coarse):
        out = function(image, mask, 8)
        assert torch.equal(out[mask.expand_as(out)], image[mask.expand_as(image)])
        poisoned = torch.where(mask, image, torch.tensor(1e6))
        assert torch.equal(function(poisoned, mask, 8), out)


def test_fill_stays_within_the_range_of_the_data():
    image, mask = holed(1)
    for function in (extend, extend_coarse):
        out = function(image, mask, 64)
        assert out.min() >= image.min() - 1e-6
        assert out.max() <= image.max() + 1e-6


def test_a_flat_image_is_filled_flat():
    _, mask = holed()
    out = extend(torch.full((1, 1, 64, 64), 3.0), mask, 64)
    assert torch.allclose(out, torch.full_like(out, 3.0))


def test_fill_is_local():
    image, mask = holed()
    changed = image.clone()
    changed[..., 0, 0] += 5
    difference = (extend(changed, mask, 4) - extend(image, mask, 4)).abs().sum(dim=(0, 1))
    rows, cols = torch.nonzero(difference, as_tuple=True)
    assert rows.max() <= 4
    assert cols.max() <= 4


def test_erosion_keeps_what_is_far_from_holes_and_borders():
    mask = torch.ones(9, 11, dtype=torch.bool)
    mask[4, 8] = False
    assert eroded(mask, 2).nonzero().tolist() == [[row, col] for row in range(2, 7) for col in range(2, 6)]
    assert torch.equal(eroded(mask, 0), mask)
