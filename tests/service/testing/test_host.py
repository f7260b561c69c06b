import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from brigantine.errors import GenerationFailed, NotAcceptable
from brigantine.seeds import derive_seed
from brigantine.testing.host import Host

from tests.service.testing.chimes import Chime, Rhyme, chime_model
from tests.service.testing.faulty_params import Dividing


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def test_each_of_many_is_made_again_alone(host: Host, tmp_path: Path):
    model = chime_model(tmp_path)

    many = host.generate(Rhyme, model, n=9, seed=5, words=9)

    assert many[4] == host.generate(Rhyme, model, seed=derive_seed(5, 4), words=9)[0]


def test_an_error_is_what_a_client_would_be_told(host: Host, tmp_path: Path):
    model = chime_model(tmp_path)

    with pytest.raises(NotAcceptable):
        host.generate(Chime, model, "image/png")
    with pytest.raises(GenerationFailed, match="ZeroDivisionError"):
        host.generate(Dividing, model, pitch=20)


def test_closing_ends_its_threads(tmp_path: Path):
    before = set(threading.enumerate())
    host = Host()
    host.generate(Rhyme, chime_model(tmp_path))

    host.close()

    assert set(threading.enumerate()) == before
