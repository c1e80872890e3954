"""Models that are known by a short name: the package's and the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from rwkv_py import Chat, Session, models
from rwkv_py.chat_format import CHAT_FORMATS
from rwkv_py.errors import FetchError

FILES = [
    "README.md",
    "rwkv7-g1d-0.1b-20260129-ctx8192.pth",
    "rwkv7-g1d-0.4b-20260210-ctx8192.pth",
    "rwkv7-g1k-1.5b-20260930-ctx25600.pth",
    "rwkv7-g1l-1.5b-20261101-ctx25600.pth",
    "rwkv7-g1z-1.5b-20251231-ctx25600.pth",
    "rwkv7a-g1d-0.1b-20260212-ctx8192.pth",
]
G1 = "BlinkDL/rwkv7-g1"


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the user's models, which is yet to be written."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("RWKV_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rwkv").mkdir()
    return tmp_path / "rwkv" / "models.toml"


def test_every_model_of_the_package_makes_sense(trained: Session) -> None:
    known = models.known_models()
    assert {"g1-0.4b", "g1?-13.3b", "world7-2.9b", "world6-1b6", "world5-3b", "world4-7b"} <= {
        *known
    }
    for name, model in known.items():
        assert model.name == name == name.lower()
        assert model.about and model.format in CHAT_FORMATS
        assert model.version and model.layers and model.width and model.context
        assert model.page == f"https://huggingface.co/{model.repository}"
        # Its settings are ones that a chat takes.
        Chat(Session(trained), format=model.chat_format).check()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("g1-0.4b", "rwkv7-g1d-0.4b-20260210-ctx8192.pth"),
        ("g1d-0.4b", "rwkv7-g1d-0.4b-20260210-ctx8192.pth"),
        ("G1D-0.4B", "rwkv7-g1d-0.4b-20260210-ctx8192.pth"),
        ("g1-1.5b", "rwkv7-g1l-1.5b-20261101-ctx25600.pth"),
        ("g1k-1.5b", "rwkv7-g1k-1.5b-20260930-ctx25600.pth"),
        ("g1-0.1b", "rwkv7-g1d-0.1b-20260129-ctx8192.pth"),
    ],
)
def test_newest_file_of_a_name(name: str, file: str) -> None:
    known = models.find_known(name)
    assert (known.name, known.repository) == (name.lower(), G1)
    assert known.newest(FILES) == file


def test_date_and_not_the_alphabet_decides() -> None:
    files = [
        "RWKV-4-World-1.5B-v1-OnlyForTest_81%_trained-20230603-ctx4096.pth",
        "RWKV-4-World-1.5B-v1-fixed-20230612-ctx4096.pth",
        "RWKV-4-World-CHNtuned-1.5B-v1-20230620-ctx4096.pth",
    ]
    assert models.find_known("world4-1.5b").newest(files) == files[1]
    assert models.find_known("world4-1.5b").newest(files[:1]) == files[0]


def test_name_that_the_hub_does_not_have() -> None:
    with pytest.raises(FetchError) as caught:
        models.find_known("g1y-1.5b").newest(FILES)
    assert caught.value.message.startswith(
        "g1y-1.5b: expected a file rwkv7-g1y-1.5b-*.pth in BlinkDL/rwkv7-g1, got rwkv7-g1"
    )
    assert caught.value.message.endswith(" and 3 others")
    assert "-1.5b" in caught.value.remedy
    with pytest.raises(FetchError, match=r"g1-2\.9b: expected .*, got no model$"):
        models.find_known("g1-2.9b").newest(["README.md"])


@pytest.mark.parametrize(
    ("name", "near"),
    [("g1d-0.5b", "g1d-0.4b"), ("g1-04b", "g1-0.4b"), ("wrld7-2.9b", "world7-2.9b")],
)
def test_unknown_names_get_the_nearest(name: str, near: str) -> None:
    with pytest.raises(FetchError, match=f"^{name}: expected a model file, ") as caught:
        models.find_known(name)
    assert near in caught.value.remedy


def test_unknown_name_near_nothing() -> None:
    with pytest.raises(FetchError, match=r"got none of them\. Try one of `rwkv models --known`$"):
        models.find_known("xyzzy")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("rwkv7-g1d-0.4b-20260210-ctx8192.pth", "g1d-0.4b"),
        ("/a/b/rwkv7-g1d-0.4b-20260210-ctx8192.bin", "g1d-0.4b"),
        ("rwkv7-g1d-0.4b-20260210-ctx8192-q4_0.bin", "g1d-0.4b"),
        ("RWKV-x070-World-0.4B-v2.9-20250107-ctx4096.gguf", "world7-0.4b"),
        ("rwkv7a-g1d-0.1b-20260212-ctx8192.pth", None),
        ("model.bin", None),
        ("rwkv7-pydoc-L6-D256.pth", None),
    ],
)
def test_files_are_recognised(file: str, name: str | None, users: Path) -> None:
    found = models.recognise(file)
    assert (found and found.name) == name


def test_user_adds_and_replaces(users: Path) -> None:
    users.write_text(
        '[[series]]\nname = "mine"\nrepository = "me/tuned"\npattern = "*.pth"\n'
        'format = "instruct"\nsampling = {temperature = 0.5}\n'
        '[[series]]\nname = "g1"\nrepository = "me/mirror"\npattern = "{name}-{size}*.pth"\n'
        '[series.sizes]\n"0.4B" = {}\n'
    )
    known = models.known_models()
    assert known["mine"].chat_format.sampling == {"temperature": 0.5}
    assert known["mine"].chat_format.user == CHAT_FORMATS["instruct"].user
    assert (known["g1-0.4b"].repository, known["g1-0.4b"].pattern) == ("me/mirror", "g1-0.4B*.pth")
    assert "g1-1.5b" not in known
    assert "g1?-1.5b" in known
    # A pattern that says so little tells nothing of a file from elsewhere.
    assert models.recognise("model.pth") is None
    assert models.find_known("mine").newest(["a.pth", "b-20260101.pth"]) == "b-20260101.pth"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[series", "expected a file of TOML, got: "),
        ("\xff", "expected a file of TOML, got: "),
        ("x = 1", "expected [[series]] and what belongs to it, got something else"),
        ("series = [1]", "expected [[series]] and what belongs to it"),
        ("[[series]]\nrepository = 'a/b'", "series 1: name, expected a text, got None"),
        ("{0}\npattern = 3", "series 'x': pattern, expected a text, got 3"),
        ("{0}", "series 'x': pattern, expected a text, got None"),
        ("{1}\nrepository = 'b'", "series 'x': repository, expected OWNER/NAME, got 'b'"),
        ("{2}\ncontexts = 3", "series 'x': expected name, about, "),
        ("{2}\ncontext = true", "series 'x': context, expected a whole number, got True"),
        ("{2}\nformat = 'g7'", "series 'x': format, expected one of world, g1, "),
        ("{2}\nsampling = {{temp = 1}}", "series 'x': sampling: expected temperature, "),
        ("{2}\nsizes = {{'1b' = 3}}", "series 'x': size '1b': expected a table, got 3"),
        ("{2}\nsizes = {{'1b' = {{layers = 0}}}}", "size '1b': layers, expected at least 1, got 0"),
        ("{2}\nsizes = {{'1b' = {{deep = 3}}}}", "size '1b': expected layers, width, context"),
    ],
)
def test_users_file_that_makes_no_sense(text: str, problem: str, users: Path) -> None:
    begin = "[[series]]\nname = 'x'"
    named = f"{begin}\nrepository = 'a/b'"
    text = text.format(named, f"{begin}\npattern = 'p'", f"{named}\npattern = 'p'")
    users.write_bytes(text.encode("latin-1"))
    with pytest.raises(FetchError) as caught:
        models.known_models()
    assert caught.value.message.startswith(f"{users}: ")
    assert problem in caught.value.message


def test_users_file_that_cannot_be_read(users: Path) -> None:
    users.mkdir()  # a folder of that name is none
    assert "g1-0.4b" in models.known_models()
