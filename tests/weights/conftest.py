import pytest

from flowad_jax.weights import torch_file


@pytest.fixture
def refused():
    """Asserts that a file is refused in one line that names the file and every given word."""

    def check(path, *words, reader=torch_file.read):
        with pytest.raises(torch_file.WeightFileError) as caught:
            reader(path)
        message = str(caught.value)
        assert message.isprintable()
        for word in (str(path), *words):
            assert word in message
        return message

    return check
