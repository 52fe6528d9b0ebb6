"""OFA's heads of networks whose groups are all of one shape."""

import pytest
import torch
from test_method_traps import build, outputs

from kdbench.method.token_head import PatchMerging, TokenHead


@pytest.mark.parametrize(("side", "merges"), [(4, 0), (7, 0), (13, 0), (14, 1), (28, 2), (29, 2)])
def test_patches_are_merged_down_to_about_seven(side, merges):
    head = TokenHead((8, side, side), blocks=1, classes=5)
    assert len(head.merging) == merges
    assert head(torch.randn(2, 8, side, side)).shape == (2, 5)


def test_a_patch_is_made_of_four():
    torch.manual_seed(0)
    merging, maps = PatchMerging(3, activation=False), torch.randn(1, 3, 4, 6)
    found = merging(maps)
    corner = maps[0, :, 2:4, 4:6].flatten()  # channel by channel, as pixel_unshuffle orders them
    expected = merging.reduction(merging.norm(corner))
    torch.testing.assert_close(found[0, :, 1, 2], expected)


def test_ofa_takes_them_for_a_student_of_one_shape_and_convolutions_for_others():
    isotropic = ((8, 4, 4),) * 4
    ofa = build("ofa", outputs(4, sizes=isotropic), outputs(4))
    assert [len(head.blocks) for head in ofa.heads] == [3, 2, 1, 1]
    assert not any(isinstance(head, TokenHead) for head in build("ofa", outputs(4), outputs(4)).heads)
