"""What holds for all tests of decoding."""

from collections.abc import Iterator

import pytest

from raymdm.decoding import batching


@pytest.fixture(scope="module", autouse=True)
def rows_of_any_lengths_share_a_batch() -> Iterator[None]:
    """Batches of rows of like length would leave little to test in what padding may not change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "PADDING", None)
        yield
