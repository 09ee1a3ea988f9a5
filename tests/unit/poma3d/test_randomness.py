import torch

from poma3d.randomness import generator


def draw(*key: object) -> list[float]:
    return torch.rand(4, generator=generator(*key)).tolist()  # type: ignore[arg-type]


def test_the_same_key_gives_the_same_numbers() -> None:
    assert draw("masks", 1, 2, 3) == draw("masks", 1, 2, 3)


def test_every_part_of_the_key_matters() -> None:
    keys = [
        ("masks", 1, 2, 3),
        ("captions", 1, 2, 3),
        ("masks", 2, 2, 3),
        ("masks", 1, 3, 3),
        ("masks", 1, 2, -3),
    ]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    draw("masks", 0, 0, 2**63 - 1)
    assert torch.equal(torch.rand(1), expected)
