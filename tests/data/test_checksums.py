import torch

from mpq.data.checksums import checksum, digest


def test_a_checksum_is_the_same_everywhere() -> None:
    assert checksum(torch.tensor([[1.0, 2.0]])) == "e84312a548a7a99d"
    assert digest(torch.tensor([[1.0, 2.0]]), size=4).hex() == checksum(torch.tensor([[1.0, 2.0]]))[:8]


def test_dtype_shape_and_every_bit_count() -> None:
    known = torch.tensor([[1.0, 2.0]])
    others = [known.double(), known.T, known + 2**-22, known.flip(1)]
    assert len({checksum(each) for each in (known, *others)}) == 5


def test_memory_order_does_not_count() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    assert checksum(tensor.T.contiguous()) == checksum(tensor.T)
