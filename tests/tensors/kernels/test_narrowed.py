"""fp16 scales through bfloat16 and back."""

import torch

from mpq.tensors.kernels.narrowed import narrowed, widened


def test_every_scale_comes_back_to_the_bit() -> None:
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    every = every[every.isfinite()]
    near, steps = narrowed(every)
    assert torch.equal(near, every.bfloat16())
    assert torch.equal(widened(near, steps).view(torch.int16), every.view(torch.int16))
    assert (int(steps.min()), int(steps.max())) == (4, 12)  # fits 4 bits


def test_what_is_cut_off_counts_steps_of_fp16_from_the_nearest_bfloat16() -> None:
    one, step = 1.0, 2.0**-10  # fp16 has 10 bits after the point here, bfloat16 has 7
    scales = torch.tensor([one, one + step, one + 3 * step, one + 5 * step, -(one + step)]).half()
    near, steps = narrowed(scales)
    assert near.tolist() == [1, 1, 1, 1 + 8 * step, -1]
    assert steps.tolist() == [8, 9, 11, 5, 9]


def test_shapes_stay() -> None:
    near, steps = narrowed(torch.ones(3, 0, 2).half())
    assert near.shape == steps.shape == widened(near, steps).shape == (3, 0, 2)
