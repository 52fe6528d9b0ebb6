"""4. Streams, not a state: randomness is derived from its names, and what is added changes nobody else's."""

import torch
from conftest import Lab

from invariants.probes import short
from kdbench.streams import derive, generator, seeded


def test_a_stream_is_a_function_of_its_names_and_of_nothing_else() -> None:
    assert derive(0, "batches", 1, 2) == 4967048150219227996
    names: list[tuple[int | str, ...]] = [
        *((seed, purpose, epoch) for seed in range(5) for purpose in ("batches", "student") for epoch in range(5)),
        *((0,), ("0",), (0, "a", "b"), (0, "ab"), (0, "a,b"), (0, "1"), (0, 1), (1, 0), (0, "b", "a"), (0, "a", "")),
    ]
    seeds = [derive(*parts) for parts in names]
    assert len(set(seeds)) == len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seeded_block_leaves_no_trace() -> None:
    before = torch.get_rng_state()
    with seeded(0, "student"):
        first = torch.rand(3)
    torch.rand(1)
    with seeded(0, "student"):
        assert torch.equal(torch.rand(3), first)
    torch.set_rng_state(before)
    with seeded(0, "other"):
        assert not torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.rand(2, generator=generator(0, "x")), torch.rand(2, generator=generator(0, "x")))


def test_more_epochs_leave_the_earlier_ones_as_they_were(lab: Lab) -> None:
    methods = ["scratch", "kd", *short("crd", "ft", "fitnets")]
    curves = []
    for epochs in (2, 4):
        suite = lab.suite(methods=methods, recipe={"epochs": epochs}, teacher={"recipe": {"epochs": 2}})
        lab.run(suite)
        curves.append({trial.method: lab.outcomes()[trial.id][1:] for trial in suite.trials})
    fewer, more = curves
    assert all(more[name][: len(rows)] == rows and len(more[name]) == len(rows) + 2 for name, rows in fewer.items())


def test_more_methods_and_seeds_in_another_order_leave_the_others_as_they_were(lab: Lab, another: Lab) -> None:
    few = lab.suite(methods=["kd", *short("crd")])
    many = another.suite(
        methods=[*short("ft", "crd"), "kd"],
        seeds=[2, 0],
        pairs=[{"teacher": "resnet8", "student": "resnet8"}, {"teacher": "wrn_10_1", "student": "resnet8"}],
    )
    lab.run(few)
    another.run(many)
    assert another.outcomes(few) == lab.outcomes()
